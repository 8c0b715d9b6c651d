//! What is where in a picture: boxes of things, the class of every pixel, or the points of a thing.

mod detect;
mod measure;
mod pose;
mod segment;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use danlu_data::images::{Images, Scale};
use danlu_data::scenes::{Instance, Keypoint, Picture, Scene, SceneSet, Side, sheet};
use danlu_eval::Measure;
use danlu_eval::vision::Guess;
use danlu_models::{DenseConfig, DenseTask, VitDense};
use danlu_ops::{IGNORE, Ids};

use self::detect::Boxes;
use super::image_classify::{cost, device_of, pictures_of};
use super::{Loss, Objective, Sample, Shown};
use crate::auto::Plan;

/// Pictures that are looked at together when measuring.
const TOGETHER: usize = 64;
/// Held-out pictures on a sheet, and those of which is said what is seen.
const SHEET: usize = 16;
const SAMPLES: usize = 3;
/// Things that are shown to a person are at least as sure as this; measures look at all.
const SHOWN: f64 = 0.3;

/// The objective of a network that says something of every place of a picture.
pub struct Dense {
    set: Arc<SceneSet>,
    scale: Scale,
    config: DenseConfig,
    micro_rows: usize,
    seed: u64,
}

/// Pictures of one piece.
#[derive(Debug, Clone)]
pub struct DenseBatch {
    /// Scaled, picture after picture.
    values: Vec<f32>,
    learned: Learned,
    /// What is in the first picture.
    first: Vec<Instance>,
}

/// What is learned of some pictures.
#[derive(Debug, Clone)]
enum Learned {
    Boxes(Boxes),
    /// The class of each cell, picture after picture.
    Classes(Ids),
    /// The cell of each point, picture after picture.
    Cells(Ids),
}

impl Dense {
    /// # Errors
    /// When there is nothing to learn or to measure on, or pictures are not what the network reads.
    pub fn new(plan: &Plan, set: Arc<SceneSet>, scale: Scale, config: DenseConfig) -> Result<Self> {
        config.validate()?;
        ensure!(set.count(Side::Train) > 0, "there is no picture to train on");
        ensure!(
            set.count(Side::HeldOut) > 0,
            "no picture is held out to measure with; raise `scene.held_out` or `data.held_out`, or give more pictures"
        );
        ensure!(
            config.vit.image_size == [set.height, set.width] && config.vit.num_channels == 3 && scale.fits(3),
            "the network reads {} channels of {:?}; pictures are coloured, of {}×{}",
            config.vit.num_channels,
            config.vit.image_size,
            set.height,
            set.width
        );
        ensure!(
            set.classes.iter().map(|class| &class.name).eq(&config.vit.labels),
            "the network knows the classes {}, and the pictures have others",
            config.vit.labels.join(", ")
        );
        Ok(Self { set, scale, config, micro_rows: plan.micro_rows, seed: plan.recipe.seed })
    }

    /// The places of about `count` held-out pictures, far apart.
    fn places(&self, count: u64) -> Vec<u64> {
        let all = self.set.count(Side::HeldOut);
        (0..all).step_by((all / count.max(1)).max(1) as usize).collect()
    }

    fn named(&self, class: u32) -> &str {
        self.config.vit.labels.get(class as usize).map_or("?", String::as_str)
    }

    /// What a person sees of some guesses.
    fn said(&self, guesses: &[Guess]) -> String {
        let shown = guesses.iter().filter(|guess| is_shown(&self.config, guess));
        let one = |guess: &Guess| match self.config.task {
            DenseTask::Pose => {
                let at = |(name, point): (&String, &Keypoint)| format!("{name} {:.0},{:.0}", point.x, point.y);
                self.config.keypoints.iter().zip(&guess.keypoints).map(at).collect::<Vec<_>>().join(" ")
            }
            _ => format!("{} {:.2}", self.named(guess.class), guess.score),
        };
        let all: Vec<String> = shown.map(one).collect();
        if all.is_empty() { "nothing".into() } else { all.join(", ") }
    }
}

/// Whether a guess is for a person too: of what is seen in every picture, a pose, all are.
pub fn is_shown(config: &DenseConfig, guess: &Guess) -> bool {
    config.task == DenseTask::Pose || guess.score >= SHOWN
}

/// A guess as a thing, to be drawn.
pub fn thing(guess: Guess) -> Instance {
    let Guess { class, bbox, mask, keypoints, .. } = guess;
    Instance { class, bbox, area: bbox[2] * bbox[3], mask, keypoints, crowd: false, identity: None }
}

/// What the network sees in pictures of its size, the surest first.
///
/// # Errors
/// When it says what is no number.
///
/// # Panics
/// When pictures are not of its size.
pub fn guesses(model: &VitDense, config: &DenseConfig, scale: &Scale, pictures: &[Picture]) -> Result<Vec<Vec<Guess>>> {
    let said = outputs(model, config, scale, pictures)?;
    let one = |values: &Vec<f32>| match config.task {
        DenseTask::Detect => detect::guesses(config, values),
        DenseTask::Segment => segment::guesses(config, values),
        DenseTask::Pose => vec![pose::guess(config, values)],
    };
    Ok(said.iter().map(one).collect())
}

/// The outputs of the cells of each picture.
fn outputs(model: &VitDense, config: &DenseConfig, scale: &Scale, pictures: &[Picture]) -> Result<Vec<Vec<f32>>> {
    let [rows, columns] = config.cells();
    let each = rows * columns * config.outputs();
    let mut all = Vec::with_capacity(pictures.len());
    for some in pictures.chunks(TOGETHER) {
        let (images, places) = (images(some, config)?, (0..some.len()).collect::<Vec<_>>());
        let maps = model.maps(pictures_of(&images, &places, scale, &device_of(model))).inner();
        let values: Vec<f32> = maps.into_data().iter::<f32>().collect();
        ensure!(values.iter().all(|x| x.is_finite()), "what the model says of pictures is not a number; training diverged");
        all.extend(values.chunks_exact(each).map(<[f32]>::to_vec));
    }
    Ok(all)
}

fn images(pictures: &[Picture], config: &DenseConfig) -> Result<Images> {
    let pixels: Vec<u8> = pictures.iter().flat_map(|picture| picture.pixels.iter().copied()).collect();
    let [height, width] = config.vit.image_size;
    Images::of_pixels(pixels, [3, height, width])
}

impl Objective for Dense {
    type Model = VitDense;
    type Batch = DenseBatch;

    fn batch(&self, position: u64) -> Result<DenseBatch> {
        let positions = position..position + self.micro_rows as u64;
        let mut scenes = self.set.train_all(positions, self.seed);
        let config = &self.config;
        let learned = match config.task {
            DenseTask::Detect => {
                let mut boxes = Boxes::default();
                scenes.iter().for_each(|scene| boxes.push(&scene.instances, config));
                Learned::Boxes(boxes)
            }
            DenseTask::Segment => Learned::Classes(scenes.iter().flat_map(|scene| segment::classes(scene, config)).collect()),
            DenseTask::Pose => Learned::Cells(scenes.iter().flat_map(|scene| pose::cells(&scene.instances, config)).collect()),
        };
        let first = scenes.first_mut().map_or(vec![], |scene| std::mem::take(&mut scene.instances));
        let pictures: Vec<Picture> = scenes.into_iter().map(|scene| scene.picture).collect();
        let images = images(&pictures, config)?;
        let each = images.each();
        let mut values = vec![0.0; pictures.len() * each];
        values.chunks_exact_mut(each).enumerate().for_each(|(place, to)| images.write(place, &self.scale, to));
        Ok(DenseBatch { values, learned, first })
    }

    fn targets(&self, batch: &DenseBatch) -> usize {
        match &batch.learned {
            Learned::Boxes(boxes) => boxes.targets(),
            Learned::Classes(classes) => classes.len(),
            Learned::Cells(cells) => cells.iter().filter(|cell| **cell != IGNORE).count().max(1),
        }
    }

    fn loss(&self, model: &VitDense, batch: &DenseBatch) -> Loss {
        let shape = [self.micro_rows, batch.values.len() / self.micro_rows.max(1)];
        let pictures = Tensor::from_data(TensorData::new(batch.values.clone(), shape), &device_of(model));
        let maps = model.maps(pictures);
        match &batch.learned {
            Learned::Boxes(boxes) => boxes.loss(maps, self.config.vit.labels.len()),
            Learned::Classes(classes) => cost(maps, classes, 0.0).into(),
            Learned::Cells(cells) => cost(pose::rows(maps, self.micro_rows), cells, 0.0).into(),
        }
    }

    /// The things of the first picture stand there as tokens; their cells carry the loss, and where nothing is, that nothing is.
    fn show(&self, batch: &DenseBatch) -> Result<Shown> {
        let each = batch.values.len() / self.micro_rows.max(1);
        let (low, high) =
            batch.values[..each].iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), x| (a.min(*x), b.max(*x)));
        let one = |thing: &Instance| {
            let [x, y, wide, high] = thing.bbox;
            format!("{} {wide:.0}×{high:.0} at {x:.0},{y:.0}", self.named(thing.class))
        };
        let things: Vec<String> = batch.first.iter().map(one).collect();
        let text = format!(
            "{}: 3×{}×{} values from {low:.2} to {high:.2}",
            if things.is_empty() { "nothing".into() } else { things.join(", ") },
            self.set.height,
            self.set.width
        );
        let mut tokens: Vec<(u32, String, bool)> =
            batch.first.iter().map(|thing| (thing.class, self.named(thing.class).to_owned(), true)).collect();
        if self.config.task != DenseTask::Pose || tokens.is_empty() {
            tokens.push((self.config.vit.labels.len() as u32, "nothing".into(), true));
        }
        Ok(Shown { text, tokens, starts: vec![0] })
    }

    fn held_out_tokens(&self) -> u64 {
        self.set.count(Side::HeldOut)
    }

    fn measure(&self, model: &VitDense, pictures: u64) -> Result<Measure> {
        self.measured(&model.valid(), pictures)
    }

    fn samples(&self, model: &VitDense, _: u64) -> Result<Vec<Sample>> {
        let places = self.places(SAMPLES as u64);
        let scenes: Vec<Scene> = places.iter().take(SAMPLES).map(|&place| self.set.held_out(place)).collect();
        let pictures: Vec<Picture> = scenes.iter().map(|scene| scene.picture.clone()).collect();
        let guesses = guesses(&model.valid(), &self.config, &self.scale, &pictures)?;
        let one = |((place, scene), guesses): ((&u64, &Scene), &Vec<Guess>)| {
            let are: Vec<&str> = scene.instances.iter().map(|thing| self.named(thing.class)).collect();
            Sample { prompt: format!("picture {place}"), text: format!(" → {} (is {})", self.said(guesses), are.join(", ")) }
        };
        Ok(places.iter().zip(&scenes).zip(&guesses).map(one).collect())
    }

    /// What is seen in some held-out pictures, drawn into them.
    fn sheet(&self, model: &VitDense) -> Result<Option<Vec<u8>>> {
        let places = self.places(SHEET as u64).into_iter().take(SHEET);
        let pictures: Vec<Picture> = places.map(|place| self.set.held_out(place).picture).collect();
        let seen = guesses(&model.valid(), &self.config, &self.scale, &pictures)?.into_iter().map(|guesses| {
            guesses.into_iter().filter(|guess| is_shown(&self.config, guess)).map(thing).collect::<Vec<Instance>>()
        });
        let seen: Vec<Vec<Instance>> = seen.collect();
        Ok(Some(sheet(pictures.iter().zip(seen.iter().map(Vec::as_slice)))?))
    }
}
