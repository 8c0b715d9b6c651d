//! Two networks that learn against each other: one draws pictures, the other tells them from real ones.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData, activation};
use danlu_data::images::{self, Augment, ImageSet, Images, Scale};
use danlu_data::sampler::shuffled;
use danlu_eval::{Better, Features, Measure, Unit, interval};
use danlu_models::{Discriminator, Gan, Generator, Lenet, noise};

use super::image_classify::{augment, device_of, pictures_of};
use super::{Loss, Moved, Objective, Sample, Shown};
use crate::auto::Plan;
use crate::recipe::GanLoss;

/// In a network's features, from the same number of pictures.
const FRECHET: Unit = Unit { name: "frechet_distance", label: "of Fréchet distance", better: Better::Lower };
/// Half is all that a discriminator can do where pictures are as real ones.
const TOLD_APART: Unit = Unit { name: "told_apart", label: "of real and drawn pictures told apart", better: Better::Lower };
/// Pictures that go through a network at once outside of training.
const TOGETHER: usize = 256;
/// Pictures by which norms of batches are settled.
const SETTLING: usize = 1024;
/// Neighbours whose distance makes a picture's surroundings (Kynkäänniemi 2019, 3).
const NEAREST: usize = 3;
/// Pictures of a sheet, and those beside each other.
const SHEET: usize = 64;
const COLUMNS: usize = 8;

/// Noise is counted: training takes its rows from zero on, by the position of the picture beside it, and what is drawn to settle, to measure
/// and to be looked at has rows of its own, the same ones each time, so that sheets of a run show the same places as they change.
const SETTLED: u64 = 1 << 62;
const MEASURED: u64 = 2 << 62;
const LOOKED_AT: u64 = 3 << 62;

/// The objective: the two networks' losses as one, in which neither's reaches the other's weights, so that one backward pass moves both
/// (Goodfellow 2016, <https://arxiv.org/abs/1701.00160>, 3: simultaneous gradient descent, one step for each player).
pub struct Adversarial {
    set: Arc<ImageSet>,
    augment: Augment,
    loss: GanLoss,
    spectral: bool,
    latent: usize,
    discriminator_rate: f64,
    scored: usize,
    judge: Option<Judge>,
    micro_rows: usize,
    seed: u64,
}

/// A classifier of such pictures, by whose features they are compared.
pub struct Judge {
    lenet: Lenet,
    scale: Scale,
    /// Of held-out pictures, once they are known.
    real: OnceLock<Features>,
}

/// Real pictures of one piece, and noise for as many drawn ones.
#[derive(Debug, Clone)]
pub struct GanBatch {
    count: usize,
    /// From -1 to 1, picture after picture.
    pictures: Vec<f32>,
    noise: Vec<f32>,
    /// The class of the first picture, for people.
    first: u32,
}

impl Judge {
    /// `scale` is what the classifier's pictures were scaled by.
    ///
    /// # Errors
    /// When it reads other pictures than those of the set.
    pub fn new(lenet: Lenet, scale: Scale, set: &ImageSet) -> Result<Self> {
        let (reads, train) = (lenet.picture(), &set.train);
        ensure!(
            [reads.channels, reads.height, reads.width] == [train.channels, train.height, train.width]
                && scale.fits(train.channels),
            "the judge reads pictures of {}×{}×{}; these are {}×{}×{}",
            reads.channels,
            reads.height,
            reads.width,
            train.channels,
            train.height,
            train.width
        );
        Ok(Self { lenet, scale, real: OnceLock::new() })
    }

    fn features(&self, images: &Images, places: &[usize]) -> Result<Features> {
        let (device, mut all, mut width) = (device_of(&self.lenet), vec![], 0);
        for places in places.chunks(TOGETHER) {
            let features = self.lenet.features(pictures_of(images, places, &self.scale, &device));
            width = features.dims()[1];
            all.extend(numbers(features)?);
        }
        Features::new(all, width)
    }
}

impl Adversarial {
    /// # Errors
    /// When there is nothing to learn or to measure on.
    pub fn new(plan: &Plan, set: Arc<ImageSet>, judge: Option<Judge>) -> Result<Self> {
        let (recipe, spec) = (&plan.recipe, &plan.recipe.gan);
        ensure!(set.train.len() > 1, "there are no pictures to train on");
        ensure!(set.held_out.len() > 1, "no pictures are held out to measure with; raise `data.held_out` or give more of them");
        ensure!(plan.rows == plan.micro_rows, "an update goes through in one piece, since norms are of its whole batch");
        Ok(Self {
            augment: augment(&recipe.image, recipe.seed),
            loss: spec.loss,
            spectral: spec.spectral_norm,
            latent: spec.latent,
            discriminator_rate: spec.discriminator_rate,
            scored: spec.scored.min(set.held_out.len()),
            judge,
            micro_rows: plan.micro_rows,
            seed: recipe.seed,
            set,
        })
    }

    /// Held-out pictures to measure on.
    fn places(&self) -> Vec<usize> {
        let all = self.set.held_out.len();
        (0..self.scored).map(|i| i * all / self.scored).collect()
    }

    /// The score of each picture.
    fn scores(&self, judge: &Discriminator, images: &Images, places: &[usize]) -> Result<Vec<f32>> {
        let (scorer, scale, device) = (judge.scorer(), scale_of(images.channels), device_of(judge));
        let chunks = places.chunks(TOGETHER).map(|places| numbers(scorer.scores(pictures_of(images, places, &scale, &device))));
        Ok(chunks.collect::<Result<Vec<_>>>()?.concat())
    }
}

/// What brings pictures to the numbers that a generator draws: from -1 to 1.
fn scale_of(channels: usize) -> Scale {
    Scale { mean: vec![0.5; channels], deviation: vec![0.5; channels] }
}

/// The generator with its norms settled, on noise that is the same each time: a function of its weights alone.
pub fn settled(generator: &Generator, seed: u64) -> Generator {
    generator.settled(rows(noise(seed, SETTLED, SETTLING, generator.latent()), SETTLING, &device_of(generator)))
}

/// Pictures that a settled generator draws of noise from row `first` on, as bytes.
///
/// # Errors
/// When it draws what is no number.
pub fn drawn(generator: &Generator, seed: u64, first: u64, count: usize) -> Result<Vec<u8>> {
    let (latent, device) = (generator.latent(), device_of(generator));
    let mut pixels = vec![];
    for start in (0..count).step_by(TOGETHER) {
        let some = TOGETHER.min(count - start);
        let values = numbers(generator.forward(rows(noise(seed, first + start as u64, some, latent), some, &device)))?;
        ensure!(values.iter().all(|x| x.is_finite()), "the generator draws what is no number; training diverged");
        pixels.extend(values.iter().map(|x| ((x + 1.0) * 127.5).round() as u8));
    }
    Ok(pixels)
}

/// `[count, width]`, row after row.
fn rows(values: Vec<f32>, count: usize, device: &Device) -> Tensor<2> {
    let width = values.len() / count.max(1);
    Tensor::from_data(TensorData::new(values, [count, width]), device)
}

fn numbers(x: Tensor<2>) -> Result<Vec<f32>> {
    x.inner().into_data().try_into_vec::<f32>().map_err(|error| anyhow!("what a network gives cannot be read: {error:?}"))
}

fn number(x: &Tensor<1>) -> f64 {
    f64::from(x.clone().inner().into_scalar::<f32>())
}

/// The share of scores that say a picture is real.
fn taken(scores: &Tensor<2>) -> f64 {
    let scores: Vec<f32> = scores.clone().inner().into_data().iter::<f32>().collect();
    scores.iter().filter(|score| **score > 0.0).count() as f64 / scores.len().max(1) as f64
}

/// What the discriminator loses on real and on drawn pictures, and the generator on drawn ones.
fn losses(loss: GanLoss, real: Tensor<2>, drawn: Tensor<2>, passed: Tensor<2>) -> [Tensor<1>; 2] {
    match loss {
        GanLoss::NonSaturating => {
            let [real, drawn, passed] = [real, drawn.neg(), passed].map(|scores| activation::log_sigmoid(scores).mean().neg());
            [real + drawn, passed]
        }
        GanLoss::Hinge => {
            let [real, drawn] = [real.neg(), drawn].map(|scores| danlu_ops::relu(scores + 1.0).mean());
            [real + drawn, passed.mean().neg()]
        }
    }
}

impl Objective for Adversarial {
    type Model = Gan;
    type Batch = GanBatch;

    fn batch(&self, position: u64) -> Result<GanBatch> {
        let (train, scale) = (&self.set.train, scale_of(self.set.train.channels));
        let row = |position: u64| shuffled(position, train.len() as u64, self.seed) as usize;
        let rows: Vec<usize> = (position..).take(self.micro_rows).map(row).collect();
        let pictures = self.augment.write_all(train, &rows, position, &scale);
        let noise = noise(self.seed, position, self.micro_rows, self.latent);
        Ok(GanBatch { count: self.micro_rows, pictures, noise, first: train.label(row(position)) })
    }

    fn targets(&self, batch: &GanBatch) -> usize {
        batch.count
    }

    fn loss(&self, model: &Gan, batch: &GanBatch) -> Loss {
        let device = device_of(model);
        let drawn = model.generator.forward(rows(batch.noise.clone(), batch.count, &device));
        let scorer = model.discriminator.scorer();
        let real = scorer.scores(rows(batch.pictures.clone(), batch.count, &device));
        let told = scorer.scores(drawn.clone().detach());
        let shares = [("real_taken", taken(&real)), ("drawn_taken", taken(&told))];
        let [judging, drawing] = losses(self.loss, real, told, scorer.fixed().scores(drawn));
        let mut report = vec![("discriminator_loss", number(&judging)), ("generator_loss", number(&drawing))];
        report.extend(shares);
        Loss { value: judging + drawing, report }
    }

    /// Follows what the discriminator's weights are divided by.
    fn step(&self, model: Gan, _: &[GanBatch], _: f64) -> (Gan, Option<Moved>) {
        if !self.spectral {
            return (model, None);
        }
        let Gan { generator, discriminator } = model;
        (Gan { generator, discriminator: discriminator.power_iteration() }, None)
    }

    fn rate_factor(&self, name: &str) -> f64 {
        if name.starts_with("discriminator.") { self.discriminator_rate } else { 1.0 }
    }

    fn guards_loss(&self) -> bool {
        false
    }

    /// A picture, and one that is drawn beside it, stand there as a token each.
    fn show(&self, batch: &GanBatch) -> Result<Shown> {
        let train = &self.set.train;
        let first = &batch.pictures[..train.each().min(batch.pictures.len())];
        let (low, high) = first.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), x| (a.min(*x), b.max(*x)));
        let text = format!(
            "{}: {}×{}×{} values from {low:.2} to {high:.2}, and {} of noise",
            self.set.classes[batch.first as usize], train.channels, train.height, train.width, self.latent
        );
        Ok(Shown { text, tokens: vec![(1, "real".into(), true), (0, "drawn".into(), true)], starts: vec![0, 1] })
    }

    fn held_out_tokens(&self) -> u64 {
        self.scored as u64
    }

    /// On as many pictures as the recipe says, whatever is asked for: a Fréchet distance of fewer would be another number.
    fn measure(&self, model: &Gan, _: u64) -> Result<Measure> {
        let start = Instant::now();
        let model = model.valid();
        let train = &self.set.train;
        let pixels = drawn(&settled(&model.generator, self.seed), self.seed, MEASURED, self.scored)?;
        let drawn = Images::of_pixels(pixels, [train.channels, train.height, train.width])?;
        let (places, every) = (self.places(), (0..self.scored).collect::<Vec<_>>());
        let right = |right: bool| (f64::from(u8::from(right)), 1.0);
        let mut pairs: Vec<(f64, f64)> = vec![];
        pairs.extend(self.scores(&model.discriminator, &self.set.held_out, &places)?.iter().map(|score| right(*score > 0.0)));
        pairs.extend(self.scores(&model.discriminator, &drawn, &every)?.iter().map(|score| right(*score <= 0.0)));
        let apart = pairs.iter().map(|pair| pair.0).sum::<f64>() / pairs.len() as f64;
        let (low, high) = interval(&pairs);
        let count = self.scored as u64;
        let measure = Measure {
            unit: TOLD_APART,
            value: apart,
            low,
            high,
            items: count,
            tokens: count,
            bytes: 0,
            seconds: 0.0,
            others: vec![],
        };
        let measure = match &self.judge {
            None => measure,
            Some(judge) => {
                let real = match judge.real.get() {
                    Some(real) => real,
                    None => {
                        let real = judge.features(&self.set.held_out, &places)?;
                        judge.real.get_or_init(|| real)
                    }
                };
                let drawn = judge.features(&drawn, &every)?;
                let coverage = Features::precision_and_recall(real, &drawn, NEAREST);
                let others = vec![("precision", coverage.precision), ("recall", coverage.recall), ("told_apart", apart)];
                let value = real.frechet_distance(&drawn);
                Measure { unit: FRECHET, value, low: f64::NAN, high: f64::NAN, others, ..measure }
            }
        };
        Ok(Measure { seconds: start.elapsed().as_secs_f64(), ..measure })
    }

    fn samples(&self, _: &Gan, _: u64) -> Result<Vec<Sample>> {
        Ok(vec![])
    }

    fn sheet(&self, model: &Gan) -> Result<Option<Vec<u8>>> {
        let generator = settled(&model.generator.valid(), self.seed);
        let train = &self.set.train;
        let pixels = drawn(&generator, self.seed, LOOKED_AT, SHEET)?;
        Ok(Some(images::sheet(&pixels, [train.channels, train.height, train.width], COLUMNS)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: ln 2 where nothing is known, and what a margin leaves.
    #[test]
    fn losses_are_those_of_the_papers() {
        let device = Device::flex();
        let scores = |values: [f32; 2]| Tensor::<2>::from_data(TensorData::new(values.to_vec(), [2, 1]), &device);
        let check = |loss, real, drawn, judging: f64, drawing: f64| {
            let found = losses(loss, scores(real), scores(drawn), scores(drawn)).map(|loss| number(&loss));
            assert!((found[0] - judging).abs() < 1e-5 && (found[1] - drawing).abs() < 1e-5, "{loss:?}: {found:?}");
        };
        let softplus = |x: f64| x.exp().ln_1p();
        check(GanLoss::NonSaturating, [0.0; 2], [0.0; 2], 2.0 * f64::ln(2.0), f64::ln(2.0));
        let judging = (softplus(-1.0) + softplus(2.0)) / 2.0 + (softplus(3.0) + softplus(-40.0)) / 2.0;
        check(GanLoss::NonSaturating, [1.0, -2.0], [3.0, -40.0], judging, (softplus(-3.0) + 40.0) / 2.0);
        check(GanLoss::Hinge, [2.0, 0.5], [-3.0, 1.0], 0.25 + 1.0, 1.0);
    }
}
