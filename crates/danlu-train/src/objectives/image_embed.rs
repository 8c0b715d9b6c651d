//! Embeddings of pictures, in which what is the same is alike.

mod margin;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use danlu_data::images::{Augment, Identities, Pairs, Scale};
use danlu_eval::vision::{Roc, accuracy_by_folds, area_interval, best_threshold};
use danlu_eval::{Better, Measure, Unit};
use danlu_models::{Recognizer, VitEmbedder};

use super::image_classify::{PictureBatch, augment, device_of, guesses, kept_from, patches_of, pictures_of};
use super::{Loss, Objective, Sample, Shown};
use crate::auto::Plan;

pub use margin::{Margin, margin_loss};

const AREA: Unit = Unit { name: "roc_area", label: "area under the ROC curve of pairs never seen", better: Better::Higher };
/// Pictures that are looked at together when measuring.
const TOGETHER: usize = 500;
/// Pairs that a measure asks about at least, where there are so many.
const LEAST: usize = 100;
/// A threshold is chosen on nine tenths of the pairs and tried on the last, as for Labeled Faces in the Wild.
const FOLDS: usize = 10;
/// Pairs that are compared now and then, for a person to read.
const SAMPLES: usize = 4;

/// The objective: pictures of one identity in one direction, by telling identities apart with a margin.
pub struct ImageEmbed {
    identities: Arc<Identities>,
    scale: Scale,
    augment: Augment,
    margin: Margin,
    /// Patches of a picture and how many of them are seen, where not all are.
    patches: Option<(usize, usize)>,
    micro_rows: usize,
    seed: u64,
}

impl ImageEmbed {
    /// # Errors
    /// When the scale is not one for these pictures.
    pub fn new(plan: &Plan, identities: Arc<Identities>, scale: Scale) -> Result<Self> {
        let (recipe, pictures) = (&plan.recipe, &identities.pairs.pictures);
        ensure!(scale.fits(pictures.channels), "the scale of the pictures is not one for {} channels", pictures.channels);
        let patches = patches_of(pictures, &recipe.vit);
        let margin = Margin { loss: recipe.embed.loss, margin: recipe.embed.margin(), scale: recipe.embed.scale };
        Ok(Self {
            augment: augment(&recipe.image, recipe.seed),
            margin,
            patches: (recipe.vit.keep < 1.0).then(|| (patches, recipe.vit.kept(patches))),
            micro_rows: plan.micro_rows,
            seed: recipe.seed,
            identities,
            scale,
        })
    }

    fn pairs(&self) -> &Pairs {
        &self.identities.pairs
    }

    /// The cosine of each of these pairs, and whether it is of one identity.
    fn scores(&self, model: &VitEmbedder, pairs: &[usize]) -> Result<Vec<(f64, bool)>> {
        let asked = self.pairs();
        let mut vectors: BTreeMap<usize, Vec<f32>> =
            pairs.iter().flat_map(|&pair| asked.places[pair]).map(|place| (place, vec![])).collect();
        let places: Vec<usize> = vectors.keys().copied().collect();
        for places in places.chunks(TOGETHER) {
            let pictures = pictures_of(&asked.pictures, places, &self.scale, &device_of(model));
            let found = model.embeddings(pictures, None);
            let size = found.dims()[1];
            let values: Vec<f32> = found.into_data().iter::<f32>().collect();
            for (place, vector) in places.iter().zip(values.chunks_exact(size)) {
                vectors.insert(*place, vector.to_vec());
            }
        }
        let cosine = |[a, b]: [usize; 2]| vectors[&a].iter().zip(&vectors[&b]).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let scores: Vec<(f64, bool)> = pairs.iter().map(|&pair| (cosine(asked.places[pair]), asked.is_same(pair))).collect();
        ensure!(
            scores.iter().all(|(score, _)| score.is_finite()),
            "what the model makes of the held-out pictures is not a number; training diverged"
        );
        Ok(scores)
    }
}

impl Objective for ImageEmbed {
    type Model = Recognizer;
    type Batch = PictureBatch;

    fn batch(&self, position: u64) -> Result<PictureBatch> {
        let mut values = vec![0.0; self.micro_rows * self.pairs().pictures.each()];
        let labels = self.identities.write(position, &self.augment, &self.scale, &mut values);
        let kept = self.patches.map(|patches| kept_from(position, self.micro_rows, patches, self.seed));
        Ok(PictureBatch { values, labels: labels.into(), kept })
    }

    fn targets(&self, batch: &PictureBatch) -> usize {
        batch.labels.len()
    }

    /// Cosines bound the loss, so that it cannot run away; and times their scale, which identities a batch happens to have moves it by more
    /// than a spike is in nats.
    fn guards_loss(&self) -> bool {
        false
    }

    fn loss(&self, model: &Recognizer, batch: &PictureBatch) -> Loss {
        let count = batch.labels.len();
        let data = TensorData::new(batch.values.clone(), [count, batch.values.len() / count.max(1)]);
        let cosines = model.cosines(Tensor::from_data(data, &device_of(model)), batch.kept.as_ref());
        let right = guesses(cosines.clone()).into_iter().zip(batch.labels.iter()).filter(|(guess, is)| *guess == **is as usize);
        let report = vec![("accuracy", right.count() as f64 / count.max(1) as f64)];
        Loss { value: margin_loss(cosines, &batch.labels, self.margin), report }
    }

    /// A picture stands there as one token, its identity, which carries the loss.
    fn show(&self, batch: &PictureBatch) -> Result<Shown> {
        let pictures = &self.pairs().pictures;
        let label = batch.labels.first().map_or(0, |label| *label);
        let first = &batch.values[..pictures.each().min(batch.values.len())];
        let (low, high) = first.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), x| (a.min(*x), b.max(*x)));
        let names = &self.identities.names;
        let name = names.get(label as usize).cloned().unwrap_or_default();
        let text = format!(
            "{name}, one of {} identities: {}×{}×{} values from {low:.2} to {high:.2}",
            names.len(),
            pictures.channels,
            pictures.height,
            pictures.width
        );
        Ok(Shown { text, tokens: vec![(label, name, true)], starts: vec![0] })
    }

    fn held_out_tokens(&self) -> u64 {
        2 * self.pairs().places.len() as u64
    }

    fn measure(&self, model: &Recognizer, pictures: u64) -> Result<Measure> {
        let start = Instant::now();
        let count = usize::try_from(pictures / 2).unwrap_or(usize::MAX).max(LEAST).min(self.pairs().places.len());
        let scores = self.scores(&model.embedder.valid(), &(0..count).collect::<Vec<_>>())?;
        let roc = Roc::of(&scores)?;
        let (area, (low, high)) = (roc.area(), area_interval(&scores));
        Ok(Measure {
            unit: AREA,
            value: area,
            // Where nothing is mistaken all three are one, but for rounding.
            low: low.min(area),
            high: high.max(area),
            items: count as u64,
            tokens: 2 * count as u64,
            bytes: 0,
            seconds: start.elapsed().as_secs_f64(),
            others: vec![
                ("accuracy", accuracy_by_folds(&scores, FOLDS)),
                ("equal_error", roc.equal_error()),
                ("tar_at_far_0.01", roc.at_false_accept(0.01).true_accept),
                ("tar_at_far_0.001", roc.at_false_accept(0.001).true_accept),
                ("threshold", best_threshold(&scores)),
            ],
        })
    }

    fn samples(&self, model: &Recognizer, draw: u64) -> Result<Vec<Sample>> {
        let count = self.pairs().places.len();
        let chosen: Vec<usize> = (0..SAMPLES.min(count)).map(|i| (draw as usize % count + i) % count).collect();
        let scores = self.scores(&model.embedder.valid(), &chosen)?;
        let one = |(pair, (score, same)): (usize, (f64, bool))| Sample {
            prompt: format!("pair {pair}"),
            text: format!(" → {score:.2} alike (is {})", if same { "the same" } else { "another" }),
        };
        Ok(chosen.into_iter().zip(scores).map(one).collect())
    }
}
