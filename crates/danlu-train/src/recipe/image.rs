//! `[image]`, `[lenet]`, `[vit]` and `[mae]`: how pictures are read and changed, and the shapes of the networks that read them.

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Pictures, for the objectives `image-classify`, `masked-image` and `image-embed`: IDX files, or a folder for each class with PNG or JPEG files, perhaps below `train`
/// and `test`. `classify.labels` names the classes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImageSpec {
    /// Height and width of the pictures, to which files of other sizes are brought by scaling and cutting off two sides. Empty: those of the
    /// first one; IDX files have one size.
    pub size: Vec<usize>,
    /// Planes that are read: 1 for brightness, 3 for colour. Automatic: what the first picture has.
    #[schemars(range(min = 1, max = 3))]
    pub channels: Option<usize>,
    /// Pictures to train on at most, as many of each class as there can be, chosen by their hash; what is held out stays whole. Automatic: all.
    #[schemars(range(min = 2, max = 1_000_000_000))]
    pub limit: Option<usize>,
    /// Pixels that a picture is moved by at most each time that it is seen, up or down and left or right: a random crop of the padded picture.
    #[schemars(range(min = 0, max = 256))]
    pub shift: usize,
    /// Whether half of the pictures are mirrored, anew each time that they are seen. Not for digits and letters.
    pub flip: bool,
    /// Operations that each picture goes through each time that it is seen, drawn from turning, shearing, scaling, contrast, brightness and
    /// none (RandAugment, Cubuk 2019). Two of a magnitude of 0.3 are usual; they are for runs of many epochs.
    #[schemars(range(min = 0, max = 8))]
    pub operations: usize,
    /// How strong each operation is at most: at 1 it turns by 30 degrees, shears and scales by 0.3, and changes values by 0.9.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub magnitude: f64,
    /// The share of pictures in which a rectangle is erased, of up to a fifth of the picture (Zhong 2017).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub erase: f64,
    /// The share of a label's probability that is spread over all classes (Szegedy 2015); 0 for none.
    #[schemars(range(min = 0.0, max = 0.9))]
    pub smoothing: f64,
}

/// The Vision Transformer, for `model.kind = "vit"`; `[model]` gives its layers, hidden, heads and intermediate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VitSpec {
    /// The side of the squares that a picture is cut into; both sides of the pictures are multiples of it.
    #[schemars(range(min = 1, max = 1024))]
    pub patch: usize,
    /// The share of a picture's patches that are seen in training, drawn anew each time (Liu 2023): what is left out costs nothing, and what is
    /// seen is never twice the same. Measures see all.
    #[schemars(range(min = 0.01, max = 1.0))]
    pub keep: f64,
}

/// What a masked autoencoder adds to `[vit]`, for the objective `masked-image` (He 2021).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MaeSpec {
    /// The share of patches that are hidden from the encoder and told by the decoder.
    #[schemars(range(min = 0.01, max = 0.99))]
    pub mask: f64,
    /// Layers of the decoder.
    #[schemars(range(min = 1, max = 64))]
    pub layers: usize,
    /// Channels of the decoder. Automatic: half of those of the encoder, and at least 32.
    #[schemars(range(min = 8, max = 4096))]
    pub hidden: Option<usize>,
    /// Whether the values of a patch are brought to mean 0 and deviation 1 before they are told, which makes features better.
    pub normalize: bool,
}

/// The network of LeCun 1998, for `model.kind = "lenet"`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LenetSpec {
    /// What it is made of.
    pub form: LenetFormKind,
    /// Planes that each convolution gives. Empty: 6, 16 in the form of 1998; 24, 48, 96 in the modern one.
    pub channels: Vec<usize>,
    /// Widths of the layers after the convolutions. Empty: 120, 84 in the form of 1998; 128 in the modern one.
    pub hidden: Vec<usize>,
}

/// What a LeNet is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LenetFormKind {
    /// Windows of 5×5, tanh, and the mean of each four values (LeCun 1998).
    #[default]
    #[serde(rename = "1998")]
    Paper,
    /// Windows of 5×5 and then 3×3, group normalization (Wu 2018), ReLU, and the largest of each four values.
    #[serde(rename = "modern")]
    Modern,
}

impl Default for VitSpec {
    fn default() -> Self {
        VitSpec { patch: 4, keep: 1.0 }
    }
}

impl VitSpec {
    /// How many of `patches` are seen in training: all, or at least one.
    pub fn kept(&self, patches: usize) -> usize {
        ((patches as f64 * self.keep).round() as usize).clamp(1, patches.max(1))
    }
}

impl Default for MaeSpec {
    fn default() -> Self {
        MaeSpec { mask: 0.75, layers: 2, hidden: None, normalize: true }
    }
}

impl ImageSpec {
    pub(super) fn validate(&self) -> Result<()> {
        ensure!(
            self.size.is_empty() || self.size.len() == 2 && self.size.iter().all(|side| (1..=4096).contains(side)),
            "`image.size` is {:?}; give a height and a width from 1 to 4096, or none",
            self.size
        );
        ensure!(self.channels != Some(2), "`image.channels` is 2; pictures have 1 for brightness or 3 for colour");
        Ok(())
    }
}
