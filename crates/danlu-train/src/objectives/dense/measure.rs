//! How well held-out pictures are seen, by the public definitions of `danlu_eval::vision`.

use std::time::Instant;

use anyhow::{Result, ensure};
use danlu_data::scenes::{Picture, Scene, class_map};
use danlu_eval::vision::{By, Judged, correct_keypoints, detection, mean_iou, precision_interval};
use danlu_eval::{Better, Confusion, Measure, Unit, interval};
use danlu_models::{DenseTask, VitDense};

use super::{Dense, TOGETHER, outputs, pose, segment};

const PRECISION: Unit = Unit { name: "average_precision", label: "average precision of boxes", better: Better::Higher };
const OVERLAP: Unit = Unit { name: "mean_iou", label: "mean IoU of pixels", better: Better::Higher };
const POINTS: Unit = Unit { name: "pck", label: "of points within a fifth of the thing (PCK)", better: Better::Higher };
/// What a point may be off, as a share of the longer side of the thing's box; half of it is measured beside.
const WITHIN: f64 = 0.2;

/// A number with its 95 % interval, and what else was measured.
type Found = (f64, [f64; 2], Vec<(&'static str, f64)>);

impl Dense {
    pub(super) fn measured(&self, model: &VitDense, pictures: u64) -> Result<Measure> {
        let start = Instant::now();
        let places = self.places(pictures);
        let (unit, (value, [low, high], others)) = match self.config.task {
            DenseTask::Detect => (PRECISION, self.boxes(model, &places)?),
            DenseTask::Segment => (OVERLAP, self.pixels(model, &places)?),
            DenseTask::Pose => (POINTS, self.points(model, &places)?),
        };
        let items = places.len() as u64;
        Ok(Measure { unit, value, low, high, items, tokens: items, bytes: 0, seconds: start.elapsed().as_secs_f64(), others })
    }

    /// What `judge` makes of each scene and the outputs of its cells.
    fn judged<T>(&self, model: &VitDense, places: &[u64], judge: impl Fn(Scene, &[f32]) -> T) -> Result<Vec<T>> {
        let mut all = Vec::with_capacity(places.len());
        for places in places.chunks(TOGETHER) {
            let scenes: Vec<Scene> = places.iter().map(|&place| self.set.held_out(place)).collect();
            let pictures: Vec<Picture> = scenes.iter().map(|scene| scene.picture.clone()).collect();
            let said = outputs(model, &self.config, &self.scale, &pictures)?;
            all.extend(scenes.into_iter().zip(&said).map(|(scene, said)| judge(scene, said)));
        }
        Ok(all)
    }

    fn boxes(&self, model: &VitDense, places: &[u64]) -> Result<Found> {
        let classes = self.config.vit.labels.len();
        let all = self.judged(model, places, |scene, said| Judged {
            truths: scene.instances,
            guesses: super::detect::guesses(&self.config, said),
        })?;
        let found = detection(&all, classes, &By::Boxes)?;
        let (low, high) = precision_interval(&all, classes, &By::Boxes)?;
        // How well things are found, whatever they are taken for.
        let of_one = |mut one: Judged| {
            one.truths.iter_mut().for_each(|truth| truth.class = 0);
            one.guesses.iter_mut().for_each(|guess| guess.class = 0);
            one
        };
        let anything = detection(&all.into_iter().map(of_one).collect::<Vec<_>>(), 1, &By::Boxes)?;
        let others =
            [("at_50", found.at_50), ("at_75", found.at_75), ("recall", found.recall), ("at_50_of_any_class", anything.at_50)];
        let others = others.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        Ok((found.average_precision.unwrap_or(0.0), [low, high], others))
    }

    fn pixels(&self, model: &VitDense, places: &[u64]) -> Result<Found> {
        let all = self.judged(model, places, |scene, said| {
            let is = class_map(&scene.instances, scene.picture.height, scene.picture.width);
            let mut confusion = Confusion::new(self.config.outputs());
            let seen = segment::map(&self.config, said);
            is.iter().zip(seen).for_each(|(is, seen)| confusion.add(*is as usize, seen as usize));
            confusion
        })?;
        let (value, interval) = mean_iou(&all);
        let mut sum = Confusion::new(self.config.outputs());
        all.iter().for_each(|one| sum.add_all(one));
        Ok((value, interval, vec![("pixel_accuracy", sum.accuracy())]))
    }

    fn points(&self, model: &VitDense, places: &[u64]) -> Result<Found> {
        let all = self.judged(model, places, |scene, said| {
            let seen = pose::guess(&self.config, said).keypoints;
            let Some(thing) = scene.instances.first().filter(|one| one.keypoints.len() == seen.len()) else {
                return [(0.0, 0.0); 2];
            };
            let reference = thing.bbox[2].max(thing.bbox[3]);
            [WITHIN, WITHIN / 2.0].map(|share| {
                let (right, all) = correct_keypoints(&thing.keypoints, &seen, reference, share);
                (right as f64, all as f64)
            })
        })?;
        let [pairs, nearer] = [0, 1].map(|at| all.iter().map(|one| one[at]).collect::<Vec<(f64, f64)>>());
        let share = |pairs: &[(f64, f64)]| danlu_eval::ratio(pairs.iter().copied());
        ensure!(pairs.iter().any(|pair| pair.1 > 0.0), "of no held-out thing the place of a point is known");
        let (low, high) = interval(&pairs);
        Ok((share(&pairs), [low, high], vec![("pck_at_10", share(&nearer))]))
    }
}
