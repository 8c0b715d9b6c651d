//! The hidden patches of pictures.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use danlu_data::images::{Augment, ImageSet, Scale};
use danlu_data::sampler::shuffled;
use danlu_eval::{Better, Measure, Unit, interval};
use danlu_models::Mae;
use danlu_ops::Ids;

use super::image_classify::{augment, device_of, kept_from, patches_of, pictures_of};
use super::{Loss, Objective, Sample, Shown};
use crate::auto::Plan;

const ERROR: Unit = Unit { name: "masked_error", label: "squared error of hidden values", better: Better::Lower };
/// Pictures that are looked at together when measuring.
const TOGETHER: usize = 500;
/// What is hidden of held-out pictures is drawn from here, so that every measure asks for the same.
const HELD_OUT: u64 = 0xda71;

/// The objective: the values of the patches that are hidden, by their squared error ([He et al. 2021](https://arxiv.org/abs/2111.06377)).
/// Labels are not looked at.
pub struct MaskedImage {
    set: Arc<ImageSet>,
    scale: Scale,
    augment: Augment,
    /// Patches of a picture, and how many the encoder sees.
    patches: (usize, usize),
    micro_rows: usize,
    seed: u64,
}

/// Pictures of one piece.
#[derive(Debug, Clone)]
pub struct MaskedPictures {
    /// Scaled, picture after picture.
    values: Vec<f32>,
    /// The patches of each that are seen.
    kept: Ids,
}

impl MaskedImage {
    /// Of pictures of which the encoder sees `kept` patches each.
    ///
    /// # Errors
    /// When there is nothing to learn or to measure on.
    pub fn new(plan: &Plan, set: Arc<ImageSet>, scale: Scale, kept: usize) -> Result<Self> {
        ensure!(!set.train.is_empty(), "there is no picture to train on");
        ensure!(!set.held_out.is_empty(), "no picture is held out to measure with; raise `data.held_out` or give more pictures");
        ensure!(scale.fits(set.train.channels), "the scale of the pictures is not one for {} channels", set.train.channels);
        let recipe = &plan.recipe;
        let patches = patches_of(&set.train, &recipe.vit);
        ensure!((1..patches).contains(&kept), "of {patches} patches {kept} are seen; some must be, and some must not");
        let augment = augment(&recipe.image, recipe.seed);
        Ok(Self { set, scale, augment, patches: (patches, kept), micro_rows: plan.micro_rows, seed: recipe.seed })
    }
}

impl Objective for MaskedImage {
    type Model = Mae;
    type Batch = MaskedPictures;

    fn batch(&self, position: u64) -> Result<MaskedPictures> {
        let train = &self.set.train;
        let row = |position: u64| shuffled(position, train.len() as u64, self.seed) as usize;
        let rows: Vec<usize> = (position..).take(self.micro_rows).map(row).collect();
        let values = self.augment.write_all(train, &rows, position, &self.scale);
        Ok(MaskedPictures { values, kept: kept_from(position, self.micro_rows, self.patches, self.seed) })
    }

    fn targets(&self, _: &MaskedPictures) -> usize {
        self.micro_rows
    }

    fn loss(&self, model: &Mae, batch: &MaskedPictures) -> Loss {
        let shape = [self.micro_rows, batch.values.len() / self.micro_rows.max(1)];
        let pictures = Tensor::from_data(TensorData::new(batch.values.clone(), shape), &device_of(model));
        model.loss(pictures, &batch.kept).into()
    }

    /// The patches of the first picture stand there as tokens, by their places; those that are hidden carry the loss.
    fn show(&self, batch: &MaskedPictures) -> Result<Shown> {
        let (patches, kept) = self.patches;
        let seen = &batch.kept[..kept.min(batch.kept.len())];
        let train = &self.set.train;
        let text = format!(
            "{}×{}×{} values in {patches} patches, of which the encoder sees {kept}",
            train.channels, train.height, train.width
        );
        let tokens = (0..patches as u32).map(|place| (place, format!("patch {place}"), !seen.contains(&place))).collect();
        Ok(Shown { text, tokens, starts: vec![0] })
    }

    fn masks(&self) -> bool {
        true
    }

    fn held_out_tokens(&self) -> u64 {
        self.set.held_out.len() as u64
    }

    fn measure(&self, model: &Mae, pictures: u64) -> Result<Measure> {
        let start = Instant::now();
        let model = model.valid();
        let held_out = &self.set.held_out;
        let every = (held_out.len() as u64 / pictures.max(1)).max(1) as usize;
        let chosen: Vec<usize> = (0..held_out.len()).step_by(every).collect();
        let (mut errors, mut pairs) = (0.0, vec![]);
        for places in chosen.chunks(TOGETHER) {
            let values = pictures_of(held_out, places, &self.scale, &device_of(&model));
            let kept: Ids =
                places.iter().flat_map(|&place| kept_from(place as u64, 1, self.patches, HELD_OUT).to_vec()).collect();
            for error in model.losses(values, &kept) {
                errors += f64::from(error);
                pairs.push((f64::from(error), 1.0));
            }
        }
        ensure!(errors.is_finite(), "what the model says of the held-out pictures is not a number; training diverged");
        let (low, high) = interval(&pairs);
        Ok(Measure {
            unit: ERROR,
            value: errors / pairs.len() as f64,
            low,
            high,
            items: pairs.len() as u64,
            tokens: pairs.len() as u64,
            bytes: 0,
            seconds: start.elapsed().as_secs_f64(),
            others: vec![],
        })
    }

    /// A picture's hidden patches are not for a terminal.
    fn samples(&self, _: &Mae, _: u64) -> Result<Vec<Sample>> {
        Ok(vec![])
    }
}
