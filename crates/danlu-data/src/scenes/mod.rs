//! Pictures with things in them: where each is, which pixels are its, where its points are and which one it is.
//!
//! [`Scenes`] composites them from pictures with transparency, so that all of this is exact, and makes any of them from a seed and an
//! index alone: a run needs no file of them, and its threads make them as they are wanted. [`coco`] reads and writes folders in the format of
//! COCO ([Lin et al. 2014](https://arxiv.org/abs/1405.0312)). A [`SceneSet`] is what a recipe learns from, of one or the other.
//!
//! A place in a picture is a pair of x to the right and y down, in pixels from the corner, so that the middle of the first pixel is at
//! (0.5, 0.5).

mod background;
pub mod coco;
mod compose;
mod draw;
mod export;
mod fit;
mod light;
mod pairs;
mod pixels;
mod polygon;
mod rle;
mod set;
mod sheet;
mod stamps;
#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::Result;

pub use compose::{Options, Scene, Scenes, Side};
pub use fit::Fit;
pub use pairs::{Pair, View};
pub use rle::Rle;
pub use set::{Kept, SceneSet};
pub use sheet::sheet;
pub use stamps::{POINTS, Stamp, Stamps};

/// A picture in colour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub height: usize,
    pub width: usize,
    /// `3 × height × width`: red, green and blue, each row after row.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// The picture in a file, in its own size.
    ///
    /// # Errors
    /// When the file holds no picture that can be read, or one that is larger than a picture may be.
    pub fn of_file(path: &Path) -> Result<Self> {
        let size = crate::images::decode(path)?;
        let (height, width) = (size.height() as usize, size.width() as usize);
        Ok(Self { height, width, pixels: crate::images::pixels(path, 3, height, width)? })
    }

    /// The colour of a pixel.
    ///
    /// # Panics
    /// When there is no such pixel.
    pub fn pixel(&self, y: usize, x: usize) -> [u8; 3] {
        let plane = self.height * self.width;
        std::array::from_fn(|channel| self.pixels[channel * plane + y * self.width + x])
    }
}

/// A thing in a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its place among the classes.
    pub class: u32,
    /// x and y of its corner, width and height, round what is seen of it.
    pub bbox: [f64; 4],
    /// In pixels, of what is seen of it; sizes of things are told apart by it.
    pub area: f64,
    pub mask: Option<Rle>,
    /// Those that its class names, or none.
    pub keypoints: Vec<Keypoint>,
    /// Many things under one mask, which nobody is asked to tell apart.
    pub crowd: bool,
    /// Which one it is, where that is known: the same thing in two pictures has the same number.
    pub identity: Option<u32>,
}

/// A point of a thing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Keypoint {
    pub x: f64,
    pub y: f64,
    pub visibility: Visibility,
}

/// What is known of a point, as COCO numbers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visibility {
    /// 0: it is not in the picture, or nobody said where; its place means nothing.
    #[default]
    Unknown,
    /// 1: it is there, behind something.
    Hidden,
    /// 2
    Visible,
}

/// Of each pixel, row after row, the class of what is seen there, from 1; 0 where there is nothing, and what comes later lies on top. Crowds
/// are nothing.
///
/// # Panics
/// When a mask is of another size.
pub fn class_map(instances: &[Instance], height: usize, width: usize) -> Vec<u32> {
    let mut map = vec![0; height * width];
    for instance in instances.iter().filter(|one| !one.crowd) {
        for (y, x) in instance.mask.iter().flat_map(Rle::pixels) {
            map[y as usize * width + x as usize] = instance.class + 1;
        }
    }
    map
}
