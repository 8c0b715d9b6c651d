//! Classes of pictures.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use danlu_data::images::{Augment, ImageSet, Images, PictureFeatures, Scale, drawn_patches};
use danlu_data::sampler::shuffled;
use danlu_eval::{Better, Confusion, Measure, Unit, interval};
use danlu_models::PictureLabeller;
use danlu_ops::Ids;

use super::classify::Rates;
use super::frozen::Frozen;
use super::{Loss, Objective, Sample, Shown};
use crate::auto::Plan;
use crate::recipe::{ImageSpec, ModelKind, VitSpec};

const ACCURACY: Unit = Unit { name: "accuracy", label: "of pictures named right", better: Better::Higher };
/// Pictures that are looked at together when measuring.
const TOGETHER: usize = 500;
/// Held-out pictures whose class is guessed now and then, for a person to read.
const SAMPLES: usize = 3;

/// The objective: the class of each picture, by cross-entropy.
pub struct ImageClassify {
    set: Arc<ImageSet>,
    scale: Scale,
    augment: Augment,
    /// Patches of a picture and how many of them are seen, where not all are.
    patches: Option<(usize, usize)>,
    features: Option<PictureFeatures>,
    /// What frozen layers make of each picture, those to train on and then those that are held out.
    frozen: Option<Frozen>,
    rates: Rates,
    smoothing: f64,
    micro_rows: usize,
    seed: u64,
}

/// Pictures of one piece.
#[derive(Debug, Clone)]
pub struct PictureBatch {
    /// Scaled, picture after picture.
    pub(super) values: Vec<f32>,
    pub(super) labels: Ids,
    /// The patches of each that are seen; none where all are.
    pub(super) kept: Option<Ids>,
}

/// The same with what else a classifier reads.
#[derive(Debug, Clone)]
pub struct Seen {
    pictures: PictureBatch,
    /// Picture after picture, where there are any.
    features: Option<Vec<f32>>,
    /// Where each is: among those to train on, or behind them among those that are held out.
    places: Vec<usize>,
}

impl ImageClassify {
    /// # Errors
    /// When there is nothing to learn or to measure on: no picture, one class for all.
    pub fn new(plan: &Plan, set: Arc<ImageSet>, scale: Scale) -> Result<Self> {
        ensure!(!set.train.is_empty(), "there is no picture to train on");
        ensure!(!set.held_out.is_empty(), "no picture is held out to measure with; raise `data.held_out` or give more pictures");
        ensure!(scale.fits(set.train.channels), "the scale of the pictures is not one for {} channels", set.train.channels);
        let first = set.train.label(0);
        ensure!(
            (0..set.train.len()).any(|i| set.train.label(i) != first),
            "all {} pictures to train on are of the class {:?}; there is nothing to tell apart",
            set.train.len(),
            set.classes[first as usize]
        );
        let recipe = &plan.recipe;
        let patches = (recipe.model.kind == ModelKind::Vit && recipe.vit.keep < 1.0).then(|| patches_of(&set.train, &recipe.vit));
        Ok(Self {
            augment: augment(&recipe.image, recipe.seed),
            patches: patches.map(|patches| (patches, recipe.vit.kept(patches))),
            features: None,
            frozen: None,
            rates: Rates::of(recipe),
            smoothing: recipe.image.smoothing,
            micro_rows: plan.micro_rows,
            seed: recipe.seed,
            set,
            scale,
        })
    }

    /// With the features that stand beside the model's network, or alone.
    #[must_use]
    pub fn with_features(self, features: Option<PictureFeatures>) -> Self {
        Self { features, ..self }
    }

    /// With layers that do not change while the model is trained, so that each picture goes through them once.
    ///
    /// # Errors
    /// When a picture is another each time that it is seen.
    pub fn with_frozen_layers(self) -> Result<Self> {
        ensure!(
            self.augment.is_still() && self.patches.is_none(),
            "frozen layers read each picture once: leave the changes of `[image]` out, and `vit.keep`"
        );
        Ok(Self { frozen: Some(Frozen::new(self.set.train.len() + self.set.held_out.len())), ..self })
    }

    /// The training picture at a position of the run.
    pub fn row(&self, position: u64) -> usize {
        shuffled(position, self.set.train.len() as u64, self.seed) as usize
    }

    fn name(&self, label: usize) -> &str {
        &self.set.classes[label]
    }

    /// What the model says of held-out pictures, by their places.
    fn held_out_logits(&self, model: &PictureLabeller, places: &[usize]) -> Tensor<2> {
        let held_out = &self.set.held_out;
        let values = values_of(held_out, places, &self.scale);
        let seen = Seen {
            features: self.features_of(&values),
            places: places.iter().map(|place| self.set.train.len() + place).collect(),
            pictures: PictureBatch { values, labels: places.iter().map(|&place| held_out.label(place)).collect(), kept: None },
        };
        self.logits(model, &seen)
    }

    fn features_of(&self, values: &[f32]) -> Option<Vec<f32>> {
        let features = self.features.as_ref()?;
        Some(values.chunks_exact(self.set.train.each()).flat_map(|picture| features.of(picture)).collect())
    }

    fn logits(&self, model: &PictureLabeller, seen: &Seen) -> Tensor<2> {
        let (count, device) = (seen.places.len(), device_of(model));
        let table = |values: &[f32], device: &Device| {
            Tensor::<2>::from_data(TensorData::new(values.to_vec(), [count, values.len() / count.max(1)]), device)
        };
        let states = match &self.frozen {
            _ if model.backbone.is_none() => None,
            None => model.states(table(&seen.pictures.values, &device), seen.pictures.kept.as_ref()),
            Some(frozen) => frozen.states(&seen.places, &device, |place| {
                let (model, train) = (model.valid(), self.set.train.len());
                let (images, place) = if place < train { (&self.set.train, place) } else { (&self.set.held_out, place - train) };
                model.states(pictures_of(images, &[place], &self.scale, &device_of(&model)), None)
            }),
        };
        model.head(states, seen.features.as_ref().map(|features| table(features, &device)))
    }
}

/// Pictures as they are, on a device: `[pictures, values]`.
pub fn pictures_of(images: &Images, places: &[usize], scale: &Scale, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values_of(images, places, scale), [places.len(), images.each()]), device)
}

fn values_of(images: &Images, places: &[usize], scale: &Scale) -> Vec<f32> {
    let each = images.each();
    let mut values = vec![0.0; places.len() * each];
    places.iter().zip(values.chunks_exact_mut(each)).for_each(|(&place, to)| images.write(place, scale, to));
    values
}

/// How the pictures of a recipe are changed.
pub(super) fn augment(spec: &ImageSpec, seed: u64) -> Augment {
    let ImageSpec { shift, flip, operations, magnitude, erase, .. } = *spec;
    Augment { shift, flip, operations, magnitude, erase, seed }
}

/// How many patches a picture is cut into.
pub(super) fn patches_of(images: &Images, spec: &VitSpec) -> usize {
    (images.height / spec.patch) * (images.width / spec.patch)
}

/// The patches that are seen of the pictures from a position of the run on.
pub(super) fn kept_from(position: u64, rows: usize, (patches, kept): (usize, usize), seed: u64) -> Ids {
    (position..position + rows as u64).flat_map(|position| drawn_patches(patches, kept, position, seed)).collect()
}

pub(super) fn device_of(model: &impl Module) -> Device {
    model.devices().into_iter().next().unwrap_or_default()
}

/// The cross-entropy of logits: they are what a head of ones gives back, and the loss on a head is there already.
pub(super) fn cost(logits: Tensor<2>, labels: &Ids, smoothing: f64) -> Tensor<1> {
    let ones = Tensor::eye(logits.dims()[1], &logits.device());
    danlu_ops::linear_cross_entropy_smoothed(logits, ones, labels, smoothing)
}

/// The output that is largest in each row.
pub(super) fn guesses(logits: Tensor<2>) -> Vec<usize> {
    let width = logits.dims()[1];
    let best = |row: &[f32]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(place, _)| place);
    logits.inner().into_data().iter::<f32>().collect::<Vec<_>>().chunks(width).map(best).collect()
}

impl Objective for ImageClassify {
    type Model = PictureLabeller;
    type Batch = Seen;

    fn batch(&self, position: u64) -> Result<Seen> {
        let train = &self.set.train;
        let places: Vec<usize> = (position..).take(self.micro_rows).map(|position| self.row(position)).collect();
        let values = self.augment.write_all(train, &places, position, &self.scale);
        let labels = places.iter().map(|&row| train.label(row)).collect();
        let kept = self.patches.map(|patches| kept_from(position, self.micro_rows, patches, self.seed));
        Ok(Seen { features: self.features_of(&values), pictures: PictureBatch { values, labels, kept }, places })
    }

    fn targets(&self, batch: &Seen) -> usize {
        batch.pictures.labels.len()
    }

    fn rate_factor(&self, name: &str) -> f64 {
        self.rates.factor(name)
    }

    fn loss(&self, model: &PictureLabeller, seen: &Seen) -> Loss {
        let (labels, count) = (&seen.pictures.labels, seen.places.len());
        let logits = self.logits(model, seen);
        let right = guesses(logits.clone()).into_iter().zip(labels.iter()).filter(|(guess, is)| *guess == **is as usize);
        let report = vec![("accuracy", right.count() as f64 / count.max(1) as f64)];
        Loss { value: cost(logits, labels, self.smoothing), report }
    }

    /// A picture stands there as one token, its class, which carries the loss.
    fn show(&self, Seen { pictures: batch, .. }: &Seen) -> Result<Shown> {
        let train = &self.set.train;
        let label = batch.labels.first().map_or(0, |label| *label);
        let first = &batch.values[..train.each().min(batch.values.len())];
        let (low, high) = first.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), x| (a.min(*x), b.max(*x)));
        let name = self.name(label as usize).to_owned();
        let seen = self.patches.map_or(String::new(), |(patches, kept)| format!(", {kept} of {patches} patches seen"));
        let beside = self.features.as_ref().map_or(String::new(), |features| format!(", {} features", features.len()));
        let (channels, height, width) = (train.channels, train.height, train.width);
        let text = format!("{name}: {channels}×{height}×{width} values from {low:.2} to {high:.2}{seen}{beside}");
        Ok(Shown { text, tokens: vec![(label, name, true)], starts: vec![0] })
    }

    fn held_out_tokens(&self) -> u64 {
        self.set.held_out.len() as u64
    }

    fn measure(&self, model: &PictureLabeller, pictures: u64) -> Result<Measure> {
        let start = Instant::now();
        let model = model.valid();
        let held_out = &self.set.held_out;
        let every = (held_out.len() as u64 / pictures.max(1)).max(1) as usize;
        let chosen: Vec<usize> = (0..held_out.len()).step_by(every).collect();
        let mut confusion = Confusion::new(self.set.classes.len());
        let (mut pairs, mut loss) = (vec![], 0.0);
        for places in chosen.chunks(TOGETHER) {
            let logits = self.held_out_logits(&model, places);
            let labels: Ids = places.iter().map(|&place| held_out.label(place)).collect();
            loss += f64::from(cost(logits.clone(), &labels, 0.0).into_scalar::<f32>()) * places.len() as f64;
            for (&is, guess) in labels.iter().zip(guesses(logits)) {
                confusion.add(is as usize, guess);
                pairs.push((f64::from(u8::from(is as usize == guess)), 1.0));
            }
        }
        let count = pairs.len() as f64;
        ensure!(loss.is_finite(), "what the model says of the held-out pictures is not a number; training diverged");
        let (low, high) = interval(&pairs);
        Ok(Measure {
            unit: ACCURACY,
            value: confusion.accuracy(),
            low,
            high,
            items: pairs.len() as u64,
            tokens: pairs.len() as u64,
            bytes: 0,
            seconds: start.elapsed().as_secs_f64(),
            others: vec![("macro_f1", confusion.macro_f1()), ("loss", loss / count)],
        })
    }

    fn samples(&self, model: &PictureLabeller, draw: u64) -> Result<Vec<Sample>> {
        let model = model.valid();
        let held_out = &self.set.held_out;
        let every = (held_out.len() / SAMPLES).max(1);
        let offset = (draw as usize) % every;
        let places: Vec<usize> = (0..held_out.len()).skip(offset).step_by(every).take(SAMPLES).collect();
        let guesses = guesses(self.held_out_logits(&model, &places));
        let one = |(place, guess): (usize, usize)| Sample {
            prompt: format!("picture {place}"),
            text: format!(" → {} (is {})", self.name(guess), self.name(held_out.label(place) as usize)),
        };
        Ok(places.into_iter().zip(guesses).map(one).collect())
    }
}
