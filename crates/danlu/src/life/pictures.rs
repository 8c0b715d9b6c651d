//! Models of pictures that are there already: a classifier and an embedder, asked about files, and a generator, asked to draw.

use std::path::Path;

use anyhow::{Result, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use danlu_data::images::{Images, PictureFeatures, Scale, sheet};
use danlu_models::{PictureConfig, PictureLabeller, PictureLabellerConfig, VitEmbedder, VitEmbedderConfig, folder};
use danlu_train::objectives::adversarial::drawn;
use danlu_train::objectives::image_classify::pictures_of;

use super::export::finite;
use super::kinds::FEATURES;
use super::labels::softmax;

/// The classifier, with what it scales pictures by, and the features it reads.
pub struct Namer {
    model: PictureLabeller,
    config: PictureLabellerConfig,
    scale: Scale,
    features: Option<PictureFeatures>,
}

impl Namer {
    /// Reads a classifier's folder; none when it holds another kind of model.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn open(dir: &Path) -> Result<Option<Self>> {
        if folder::picture_kind(dir)?.is_none() {
            return Ok(None);
        }
        let (model, config) = folder::load_picture_labeller(dir, &danlu_ops::device())?;
        let features = features(dir, &config)?;
        let scale = Scale { mean: config.image_mean.clone(), deviation: config.image_std.clone() };
        Ok(Some(Self { model, config, scale, features }))
    }

    /// The classes of a picture with their probabilities, the likeliest first.
    ///
    /// # Errors
    /// When the file holds no picture that can be read.
    pub fn ask(&self, path: &Path) -> Result<Vec<(String, f64)>> {
        let (size, device) = (self.config.picture, danlu_ops::device());
        let picture = Images::of_file(path, size.channels, size.height, size.width)?;
        let features = self.features.as_ref().map(|features| {
            let values = features.of_all(&picture, &[0], &self.scale);
            Tensor::from_data(TensorData::new(values, [1, features.len()]), &device)
        });
        let logits = self.model.logits(pictures_of(&picture, &[0], &self.scale, &device), features);
        let mut all: Vec<(String, f64)> = self.config.labels.iter().cloned().zip(softmax(&finite(logits)?)).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        Ok(all)
    }
}

/// The embedder of pictures, with what it scales them by.
pub struct Recognizer {
    model: VitEmbedder,
    config: VitEmbedderConfig,
}

impl Recognizer {
    /// Reads an embedder's folder.
    ///
    /// # Errors
    /// When it holds another kind of model, or a file is missing or damaged.
    pub fn open(dir: &Path) -> Result<Self> {
        let (model, config) = folder::load_picture_embedder(dir, &danlu_ops::device())?;
        Ok(Self { model, config })
    }

    /// The embedding of a picture, of length 1.
    ///
    /// # Errors
    /// When the file holds no picture that can be read.
    pub fn embedding(&self, path: &Path) -> Result<Vec<f32>> {
        let (vit, size) = (&self.config.vit, self.config.vit.picture());
        let scale = Scale { mean: vit.image_mean.clone(), deviation: vit.image_std.clone() };
        let picture = Images::of_file(path, size.channels, size.height, size.width)?;
        finite(self.model.embeddings(pictures_of(&picture, &[0], &scale, &danlu_ops::device()), None))
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

/// What a classifier's pictures are scaled by.
pub fn scale_of(config: &PictureConfig) -> Scale {
    let [mean, deviation] = config.scale().map(<[f64]>::to_vec);
    Scale { mean, deviation }
}

/// Loads the network of pictures in a folder and shows it a grey picture, of which it must make numbers. How many parameters it has.
///
/// # Errors
/// When a file is missing or damaged, or it makes something else of it.
pub fn check(dir: &Path) -> Result<u64> {
    let device = Device::flex();
    let grey = |values: usize| Tensor::<2>::zeros([1, values], &device);
    let (parameters, found) = if folder::picture_kind(dir)? == Some("vit_mae") {
        let (mae, config) = folder::load_mae(dir, &device)?;
        (config.parameters(), mae.vit.states(grey(config.vit.picture().len()), None))
    } else if folder::is_picture_embedder(dir)? {
        let (embedder, config) = folder::load_picture_embedder(dir, &device)?;
        (config.parameters(), embedder.embeddings(grey(config.vit.picture().len()), None))
    } else if folder::dense_task(dir)?.is_some() {
        let (model, config) = folder::load_dense(dir, &device)?;
        (config.parameters(), model.maps(grey(config.vit.picture().len())))
    } else {
        let (model, config) = folder::load_picture_labeller(dir, &device)?;
        let beside = features(dir, &config)?.map(|features| grey(features.len()));
        (config.parameters(), model.logits(grey(config.picture.len()), beside))
    };
    finite(found)?;
    Ok(parameters)
}

/// How the features of a classifier's pictures are made; none where it reads none.
fn features(dir: &Path, config: &PictureLabellerConfig) -> Result<Option<PictureFeatures>> {
    if config.features == 0 {
        return Ok(None);
    }
    let path = dir.join(FEATURES);
    let (features, size) = (PictureFeatures::load(&path)?, config.picture);
    ensure!(
        features.len() == config.features && features.picture() == [size.channels, size.height, size.width],
        "{} describes {} features of pictures of {:?}, and the model reads {} of {size:?}",
        path.display(),
        features.len(),
        features.picture(),
        config.features
    );
    Ok(Some(features))
}
