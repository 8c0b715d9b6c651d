use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::json::Keys;
use super::{VitConfig, bounded};

/// What a network says of every place of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenseTask {
    /// Which things are there, and the box of each.
    Detect,
    /// Of which class what is seen there is.
    Segment,
    /// Where the points of the one thing in the picture are.
    Pose,
}

/// The shape of a Vision Transformer with a head for every place: the keys of `transformers`' encoder, and what the head adds to them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct DenseConfig {
    /// The encoder; its labels are the classes of things.
    pub vit: VitConfig,
    pub task: DenseTask,
    /// What the points of a thing are called, of [`DenseTask::Pose`].
    pub keypoints: Vec<String>,
    /// The side of a cell in pixels: the head says something of each cell, and cells divide patches.
    pub stride: usize,
}

/// A picture may have this many cells, and each as many outputs.
const MOST_CELLS: usize = 1 << 20;
const MOST_OUTPUTS: usize = 1 << 16;

impl DenseTask {
    pub const ALL: [Self; 3] = [Self::Detect, Self::Segment, Self::Pose];

    /// As `config.json` has it.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Detect => "vit_detect",
            Self::Segment => "vit_segment",
            Self::Pose => "vit_pose",
        }
    }

    /// The stride where nobody says another: what is boxed is as large as a few cells, the edges of what is cut out are pixels, and a point
    /// is found within its cell.
    pub fn usual_stride(self, patch: usize) -> usize {
        match self {
            Self::Detect | Self::Pose if patch.is_multiple_of(2) => patch / 2,
            Self::Detect | Self::Pose => patch,
            Self::Segment => 1,
        }
    }
}

impl DenseConfig {
    /// Numbers for each cell. Of a detector a logit for each class, the logarithms of how far the box's left, top, right and bottom are, in
    /// cells, and how near its middle is; of pixels nothing's logit and one for each class; of a pose a logit for each point.
    pub fn outputs(&self) -> usize {
        match self.task {
            DenseTask::Detect => self.vit.labels.len() + 5,
            DenseTask::Segment => self.vit.labels.len() + 1,
            DenseTask::Pose => self.keypoints.len(),
        }
    }

    /// Rows and columns of cells.
    pub fn cells(&self) -> [usize; 2] {
        self.vit.image_size.map(|side| side / self.stride)
    }

    /// Cells along the side of a patch.
    pub(crate) fn fine(&self) -> usize {
        self.vit.patch_size / self.stride
    }

    /// What the head says of a patch.
    pub(crate) fn patch_outputs(&self) -> usize {
        self.outputs() * self.fine() * self.fine()
    }

    /// Checks that the numbers make a network.
    ///
    /// # Errors
    /// Names the key and what it may be.
    pub fn validate(&self) -> Result<()> {
        self.vit.validate()?;
        bounded("stride", self.stride, self.vit.patch_size)?;
        ensure!(
            self.vit.patch_size.is_multiple_of(self.stride),
            "`stride` is {}, and cells divide patches: `patch_size` ({}) must be a multiple of it",
            self.stride,
            self.vit.patch_size
        );
        ensure!(!self.vit.labels.is_empty(), "there is no class of things in `id2label`");
        ensure!(
            (self.task == DenseTask::Pose) != self.keypoints.is_empty(),
            "`keypoints` names {}; a pose has points, and nothing else has",
            self.keypoints.len()
        );
        let [rows, columns] = self.cells();
        bounded("image_size / stride squared", rows * columns, MOST_CELLS)?;
        bounded("outputs of a cell", self.outputs(), MOST_OUTPUTS)?;
        bounded("outputs of a patch", self.patch_outputs(), MOST_CELLS)
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        let hidden = self.vit.hidden_size;
        self.encoder().parameters() + (hidden * (hidden + 1) + self.patch_outputs() * (hidden + 1)) as u64
    }

    /// Floating-point operations to train on one picture.
    pub fn flops(&self) -> f64 {
        let (vit, patches) = (&self.vit, self.vit.patches());
        let head = patches * vit.hidden_size * (vit.hidden_size + self.patch_outputs());
        vit.patch_flops(patches) + vit.layers_flops(patches + 1, patches + 1) + 6.0 * head as f64
    }

    /// Numbers that all layers and the head keep for the backward pass of one picture.
    pub fn activations(&self) -> u64 {
        let (vit, patches) = (&self.vit, self.vit.patches());
        // Both sides of GELU, and the outputs with what the loss keeps of them.
        let head = patches * (2 * vit.hidden_size + 3 * self.patch_outputs());
        vit.num_hidden_layers as u64 * vit.layer_activations(patches + 1) + head as u64
    }

    /// The encoder alone, which has no classes.
    fn encoder(&self) -> VitConfig {
        VitConfig { labels: vec![], ..self.vit.clone() }
    }
}

impl TryFrom<Value> for DenseConfig {
    type Error = anyhow::Error;

    /// Reads the shape, without the classes, which are in `id2label` and read with the folder.
    fn try_from(value: Value) -> Result<Self> {
        let keys = Keys(value.as_object().context("a model's configuration must be a JSON object")?);
        let kind = keys.text("model_type")?.unwrap_or("missing");
        let task = DenseTask::ALL.into_iter().find(|task| task.model_type() == kind);
        let task =
            task.with_context(|| format!("`model_type` is {kind:?}; this is read as vit_detect, vit_segment or vit_pose"))?;
        let vit = VitConfig::of_shape(&keys)?;
        let names = |value: &Value| -> Option<Vec<String>> {
            value.as_array()?.iter().map(|name| Some(name.as_str()?.to_owned())).collect()
        };
        let keypoints = keys.get("keypoints").map_or(Some(vec![]), names);
        let keypoints = keypoints.context("`keypoints` must be a list of names")?;
        Ok(Self { vit, task, keypoints, stride: keys.needed("stride")? })
    }
}

impl From<DenseConfig> for Value {
    fn from(config: DenseConfig) -> Self {
        let mut value = config.vit.shape();
        value["architectures"] = Value::Null;
        value["model_type"] = json!(config.task.model_type());
        value["stride"] = json!(config.stride);
        value["keypoints"] = json!(config.keypoints);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(task: DenseTask) -> DenseConfig {
        let labels = vec!["round".into(), "pointed".into()];
        let keypoints = if task == DenseTask::Pose { vec!["top".into(), "bottom".into()] } else { vec![] };
        let vit = VitConfig { labels, ..VitConfig::new([3, 24, 32], 8, 32, 2) };
        DenseConfig { vit, task, keypoints, stride: task.usual_stride(8) }
    }

    #[test]
    fn it_is_read_as_it_is_written_and_what_makes_no_network_is_refused() {
        let of = DenseTask::ALL.map(|task| {
            let config = config(task);
            config.validate().unwrap();
            // The classes are the folder's.
            let vit = VitConfig { labels: vec![], ..config.vit.clone() };
            assert_eq!(DenseConfig::try_from(Value::from(config.clone())).unwrap(), DenseConfig { vit, ..config.clone() });
            (config.cells(), config.outputs(), config.patch_outputs())
        });
        assert_eq!(of, [([6, 8], 7, 28), ([24, 32], 3, 192), ([6, 8], 2, 8)]);
        let pose = config(DenseTask::Pose);
        let check = |config: DenseConfig, says: &str| {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        };
        check(DenseConfig { stride: 3, ..pose.clone() }, "multiple of it");
        check(DenseConfig { stride: 0, ..pose.clone() }, "`stride`");
        check(DenseConfig { keypoints: vec![], ..pose.clone() }, "a pose has points");
        check(DenseConfig { task: DenseTask::Detect, ..pose.clone() }, "nothing else has");
        check(DenseConfig { vit: VitConfig { labels: vec![], ..pose.vit.clone() }, ..pose.clone() }, "no class");
        let value = |key: &str, wrong: Value| {
            let mut value = Value::from(pose.clone());
            value[key] = wrong;
            DenseConfig::try_from(value).unwrap_err().to_string()
        };
        assert!(value("model_type", json!("vit")).contains("vit_detect") && value("stride", json!("a")).contains("`stride`"));
        assert!(value("keypoints", json!([1])).contains("`keypoints`") && value("stride", Value::Null).contains("missing"));
    }
}
