use std::path::Path;

use anyhow::Result;

use super::coco::{self, Class};
use super::{POINTS, Scene, Scenes, Side};

impl Scenes {
    /// The classes of the stamps as a file of instances has them.
    pub fn classes(&self) -> Vec<Class> {
        let class = |(id, name): (u64, &String)| Class { id, name: name.clone(), keypoints: POINTS.map(String::from).to_vec() };
        (1..).zip(&self.stamps.classes).map(class).collect()
    }

    /// Writes the first `count` scenes of a side as a folder in COCO's format.
    ///
    /// # Errors
    /// The file system's.
    pub fn export(&self, folder: &Path, side: Side, count: u64) -> Result<()> {
        coco::write(folder, &self.classes(), count, |index| {
            let Scene { picture, instances } = self.scene(side, index);
            (picture, instances)
        })
    }
}
