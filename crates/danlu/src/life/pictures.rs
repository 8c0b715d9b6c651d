//! Models of pictures that are there already: a classifier, asked about files, and a generator, asked to draw.

use std::path::Path;

use anyhow::Result;
use danlu_data::images::{Images, Scale, sheet};
use danlu_models::{Lenet, LenetConfig, folder};
use danlu_train::objectives::adversarial::drawn;
use danlu_train::objectives::image_classify::pictures_of;

use super::export::finite;
use super::labels::softmax;

/// The classifier, with what it scales pictures by.
pub struct Namer {
    lenet: Lenet,
    config: LenetConfig,
    scale: Scale,
}

impl Namer {
    /// Reads a classifier's folder; none when it holds another kind of model.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn open(dir: &Path) -> Result<Option<Self>> {
        if !folder::is_lenet(dir)? {
            return Ok(None);
        }
        let (lenet, config) = folder::load_lenet(dir, &danlu_ops::device())?;
        let scale = Scale { mean: config.image_mean.clone(), deviation: config.image_std.clone() };
        Ok(Some(Self { lenet, config, scale }))
    }

    /// The classes of a picture with their probabilities, the likeliest first.
    ///
    /// # Errors
    /// When the file holds no picture that can be read.
    pub fn ask(&self, path: &Path) -> Result<Vec<(String, f64)>> {
        let [height, width] = self.config.image_size;
        let picture = Images::of_file(path, self.config.num_channels, height, width)?;
        let logits = self.lenet.logits(pictures_of(&picture, &[0], &self.scale, &danlu_ops::device()));
        let mut all: Vec<(String, f64)> = self.config.labels.iter().cloned().zip(softmax(&finite(logits)?)).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        Ok(all)
    }
}

/// What the generator in `dir` draws: `count` pictures on one sheet, in PNG. The same seed draws the same pictures.
///
/// # Errors
/// When the folder holds no generator, or the sheet would be too large.
pub fn draw(dir: &Path, seed: u64, count: usize) -> Result<Vec<u8>> {
    let (gan, config) = folder::load_gan(dir, &danlu_ops::device())?;
    let [height, width] = config.image_size;
    let columns = (count as f64).sqrt().ceil() as usize;
    sheet(&drawn(&gan.generator, seed, 0, count)?, [config.num_channels, height, width], columns)
}
