//! `[image]` and `[lenet]`: how pictures are read and changed, and the network of 1998.

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Labelled pictures, for the objective `image-classify`: IDX files, or a folder for each class with PNG or JPEG files, perhaps below `train`
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
    /// Pixels that a picture is moved by at most each time that it is seen, up or down and left or right: a random crop of the padded picture.
    #[schemars(range(min = 0, max = 256))]
    pub shift: usize,
    /// Whether half of the pictures are mirrored, anew each time that they are seen. Not for digits and letters.
    pub flip: bool,
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
