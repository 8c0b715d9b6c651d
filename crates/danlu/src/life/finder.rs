//! Networks that say what is where in a picture, asked about files.

use std::path::Path;

use anyhow::Result;
use danlu_data::images::Scale;
use danlu_data::scenes::{Fit, Instance, Picture, Rle, Visibility};
use danlu_models::{DenseConfig, DenseTask, VitDense, folder};
use danlu_train::objectives::dense::{guesses, is_shown, thing};
use serde_json::{Value, json};

/// A detector, a segmenter or a finder of poses, with what it scales pictures by.
pub struct Finder {
    model: VitDense,
    config: DenseConfig,
    scale: Scale,
}

/// A thing in a picture, in the pixels of its file, and how sure it is.
pub struct Found {
    pub score: f64,
    pub thing: Instance,
}

impl Finder {
    /// Reads a folder; none when it holds another kind of model.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn open(dir: &Path) -> Result<Option<Self>> {
        if folder::dense_task(dir)?.is_none() {
            return Ok(None);
        }
        let (model, config) = folder::load_dense(dir, &danlu_ops::device())?;
        let scale = Scale { mean: config.vit.image_mean.clone(), deviation: config.vit.image_std.clone() };
        Ok(Some(Self { model, config, scale }))
    }

    /// The picture in a file and what is seen in it, the surest first. It is brought to the size that the network reads without being cut.
    ///
    /// # Errors
    /// When the file holds no picture that can be read.
    pub fn ask(&self, path: &Path) -> Result<(Picture, Vec<Found>)> {
        let picture = Picture::of_file(path)?;
        let fit = Fit::whole([picture.height, picture.width], self.config.vit.image_size);
        let all = guesses(&self.model, &self.config, &self.scale, &[fit.picture(&picture)])?;
        let shown = all.into_iter().flatten().filter(|guess| is_shown(&self.config, guess));
        let found = shown.filter_map(|guess| Some(Found { score: guess.score, thing: fit.back(&thing(guess))? }));
        let found = found.collect();
        Ok((picture, found))
    }

    /// What was found, in a line for a person.
    pub fn line(&self, picture: &Picture, found: &Found) -> String {
        let Found { score, thing } = found;
        let [x, y, wide, high] = thing.bbox;
        let what = match self.config.task {
            DenseTask::Detect => format!("{wide:.0}×{high:.0} at {x:.0},{y:.0}"),
            DenseTask::Segment => {
                let pixels = thing.mask.as_ref().map_or(0, Rle::area);
                format!("{:.1} % of the picture", 100.0 * f64::from(pixels) / (picture.height * picture.width).max(1) as f64)
            }
            DenseTask::Pose => {
                self.points(thing).map(|(name, [x, y])| format!("{name} {x:.0},{y:.0}")).collect::<Vec<_>>().join("  ")
            }
        };
        match self.config.task {
            DenseTask::Pose if what.is_empty() => format!("nowhere  {score:.3}"),
            DenseTask::Pose => format!("{what}  {score:.3}"),
            _ => format!("{}  {score:.3}  {what}", self.class(thing)),
        }
    }

    /// The same with the words of COCO's results.
    pub fn json(&self, found: &Found) -> Value {
        let Found { score, thing } = found;
        let mut value = json!({ "score": score, "bbox": thing.bbox });
        match self.config.task {
            DenseTask::Detect => value["category"] = json!(self.class(thing)),
            DenseTask::Segment => {
                value["category"] = json!(self.class(thing));
                let runs = |mask: &Rle| json!({ "size": [mask.height(), mask.width()], "counts": mask.text() });
                value["segmentation"] = thing.mask.as_ref().map_or(Value::Null, runs);
            }
            DenseTask::Pose => value["keypoints"] = self.points(thing).map(|(name, at)| (name.to_owned(), json!(at))).collect(),
        }
        value
    }

    fn class(&self, thing: &Instance) -> &str {
        self.config.vit.labels.get(thing.class as usize).map_or("?", String::as_str)
    }

    fn points<'a>(&'a self, thing: &'a Instance) -> impl Iterator<Item = (&'a str, [f64; 2])> {
        let all = self.config.keypoints.iter().zip(&thing.keypoints);
        // What is found beside the picture, where there is only black, is found nowhere.
        let known = all.filter(|(_, point)| point.visibility != Visibility::Unknown);
        known.map(|(name, point)| (name.as_str(), [point.x, point.y]))
    }
}
