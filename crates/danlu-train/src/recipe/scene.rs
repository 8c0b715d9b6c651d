//! `[scene]`: what the labelled scenes are like that detect, segment and pose learn from.

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Labelled scenes, for the objectives `detect`, `segment` and `pose`. Where `data.sources` names pictures with transparency (`stamps` and `emoji`
/// of the catalogue, or a folder of PNG for each class), scenes are made of them, none twice; of a folder in COCO's format `stride` is all that
/// is read here. `image.size` says how large they are, 64×64 if nothing does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SceneSpec {
    /// The fewest and the most things in a scene; one, for pose.
    pub things: Vec<usize>,
    /// The longer side of a thing at least and at most, as a share of the picture's shorter side.
    pub size: Vec<f64>,
    /// Degrees that a thing is turned by at most, to either side.
    #[schemars(range(min = 0.0, max = 180.0))]
    pub rotation: f64,
    /// The share of a thing that others and the picture's edge leave to be seen, at least.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub visible: f64,
    /// How many scenes are called an epoch.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub epoch: u64,
    /// Scenes to measure on, which are the same whatever the seed.
    #[schemars(range(min = 1, max = 100_000))]
    pub held_out: u64,
    /// Pixels along the side of a cell, of each of which the network says something; divides `vit.patch`. Automatic: half a patch for detect and
    /// pose, a pixel for segment.
    #[schemars(range(min = 1, max = 1024))]
    pub stride: Option<usize>,
}

impl Default for SceneSpec {
    fn default() -> Self {
        SceneSpec {
            things: vec![1, 3],
            size: vec![0.3, 0.7],
            rotation: 30.0,
            visible: 0.4,
            epoch: 10_000,
            held_out: 300,
            stride: None,
        }
    }
}

impl SceneSpec {
    pub(super) fn validate(&self) -> Result<()> {
        ensure!(
            matches!(self.things[..], [fewest, most] if fewest <= most && (1..=1000).contains(&most)),
            "`scene.things` is {:?}; give the fewest and the most things, 1000 at most",
            self.things
        );
        ensure!(
            matches!(self.size[..], [low, high] if low > 0.0 && low <= high && high <= 1.5),
            "`scene.size` is {:?}; give two shares of the picture, the smaller first, above 0 and 1.5 at most",
            self.size
        );
        Ok(())
    }
}
