//! Folders in the format of COCO: pictures, and a JSON file that says what is in them.
//!
//! A record that cannot be used is set aside with its reason, and the others go on. Nothing is made of the size that a record claims: masks
//! stay runs, and runs must come to the size of their picture.

mod read;
mod record;
#[cfg(test)]
mod tests;
mod write;

use std::path::PathBuf;

pub use read::{in_folder, parse, read};
pub use write::{Labelled, write};

use super::{Instance, Picture};
use crate::images::SetAside;

/// The pictures of a folder and what is in them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dataset {
    /// By their number in the file, which [`Instance::class`] is not.
    pub classes: Vec<Class>,
    /// By their number in the file.
    pub pictures: Vec<Entry>,
    pub set_aside: Vec<SetAside>,
}

/// A class of things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Its number in the file.
    pub id: u64,
    pub name: String,
    /// What the points of such things are called.
    pub keypoints: Vec<String>,
}

/// A picture that is in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its number in the file.
    pub id: u64,
    /// Relative to the folder of pictures, until [`read`](read()) has found it.
    pub file: PathBuf,
    pub height: u32,
    pub width: u32,
    pub instances: Vec<Instance>,
    /// Of each instance its number in the file; 0 where it has none.
    pub ids: Vec<u64>,
}

impl Entry {
    /// The picture itself, in its own size.
    ///
    /// # Errors
    /// When the file can no longer be read.
    pub fn picture(&self) -> anyhow::Result<Picture> {
        let (height, width) = (self.height as usize, self.width as usize);
        let pixels = crate::images::pixels(&self.file, 3, height, width)?;
        Ok(Picture { height, width, pixels })
    }
}
