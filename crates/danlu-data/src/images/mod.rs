//! Labelled pictures in memory: from IDX files or from a folder for each class, split into what is trained on and what is held out.
//!
//! A picture that cannot be used is set aside with its reason and the others go on; too many of them are an error. No picture is decoded
//! before its header has said that it is of a size to be decoded.

mod augment;
mod features;
mod few;
mod folder;
mod identities;
mod idx;
mod operations;
mod patches;
mod sheet;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::chat::held_out_lots;
use crate::hash;

pub use augment::{Augment, Scale};
pub use features::{PictureFeatureSpec, PictureFeatures};
pub(crate) use folder::{decode, pixels};
pub use identities::{Identities, Pairs};
pub use patches::drawn_patches;
pub use sheet::sheet;

/// The most bytes that all pictures together may have once they are decoded.
pub(crate) const MOST_BYTES: u64 = 4 << 30;
/// The most classes.
pub(crate) const MOST_CLASSES: usize = 65_536;

/// Pictures of one size with their labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Images {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    /// Picture after picture, each plane after plane, each row after row.
    pixels: Vec<u8>,
    /// Of each picture, its place among the classes.
    labels: Vec<u32>,
}

/// What a recipe's pictures come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageSet {
    pub train: Images,
    pub held_out: Images,
    /// In the order of the labels.
    pub classes: Vec<String>,
    /// Whether the held-out pictures are the data's own test set; else they were chosen by their hash.
    pub own_test: bool,
    pub set_aside: Vec<SetAside>,
}

/// A picture that is not used.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SetAside {
    /// The file, or the file and the picture's place in it from 0.
    pub picture: String,
    pub reason: String,
}

/// How pictures are read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Height and width, to which pictures of folders are brought; none for those of the first one.
    pub size: Option<(usize, usize)>,
    /// One plane of brightness, or three of colour; none for what the first one has.
    pub channels: Option<usize>,
    /// The classes in the order of the labels; empty for those of the data.
    pub classes: Vec<String>,
    /// The share that is held out where the data has no test set.
    pub held_out: f64,
    /// How many pictures to train on are kept at most; none for all.
    pub limit: Option<usize>,
    pub seed: u64,
}

impl Images {
    pub(crate) fn empty(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width, pixels: vec![], labels: vec![] }
    }

    /// Pictures without labels, `pixels` picture after picture, each plane after plane, of one size `[channels, height, width]`.
    ///
    /// # Errors
    /// When the values are no such pictures.
    pub fn of_pixels(pixels: Vec<u8>, [channels, height, width]: [usize; 3]) -> Result<Self> {
        let each = channels * height * width;
        ensure!(each > 0 && pixels.len().is_multiple_of(each), "{} values are no pictures of {each}", pixels.len());
        let labels = vec![0; pixels.len() / each];
        Ok(Self { channels, height, width, pixels, labels })
    }

    /// The one picture of a file, brought to a size: see [`read`] for what is refused.
    ///
    /// # Errors
    /// When the file holds no picture that can be read.
    pub fn of_file(path: &Path, channels: usize, height: usize, width: usize) -> Result<Self> {
        let mut images = Self::empty(channels, height, width);
        images.push(&folder::pixels(path, channels, height, width)?, 0);
        Ok(images)
    }

    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Values of one picture.
    pub fn each(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// The bytes of a picture, plane after plane.
    ///
    /// # Panics
    /// When there is no such picture.
    pub fn picture(&self, index: usize) -> &[u8] {
        &self.pixels[index * self.each()..][..self.each()]
    }

    /// # Panics
    /// When there is no such picture.
    pub fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    pub(crate) fn push(&mut self, picture: &[u8], label: u32) {
        debug_assert_eq!(picture.len(), self.each());
        self.pixels.extend_from_slice(picture);
        self.labels.push(label);
    }

    /// Those that `keep` chooses, in their order.
    fn retain(&mut self, keep: &[bool]) {
        if keep.iter().all(|keep| *keep) {
            return;
        }
        let mut kept = Self::empty(self.channels, self.height, self.width);
        (0..self.len()).filter(|&i| keep[i]).for_each(|i| kept.push(self.picture(i), self.label(i)));
        *self = kept;
    }

    fn hash(&self, hasher: &mut blake3::Hasher) {
        let shape = [self.channels, self.height, self.width, self.len()];
        for n in shape {
            hasher.update(&(n as u64).to_le_bytes());
        }
        hasher.update(&self.pixels);
        for label in &self.labels {
            hasher.update(&label.to_le_bytes());
        }
    }
}

impl ImageSet {
    /// BLAKE3 of all pictures and labels.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        self.train.hash(&mut hasher);
        self.held_out.hash(&mut hasher);
        for class in &self.classes {
            hasher.update(class.as_bytes()).update(b"\n");
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// What one source holds, before it is split.
struct Found {
    train: Images,
    test: Images,
    /// Where each picture of `train` is, for people.
    places: Vec<String>,
    /// Empty where the data names none.
    classes: Vec<String>,
    set_aside: Vec<SetAside>,
}

/// Reads pictures: `files` are IDX files (also `.gz`), pictures and labels; or one folder that holds such files, or a folder for each class,
/// or those below `train` and `test`.
///
/// # Errors
/// When there are none, they do not fit each other, a file of IDX is damaged, or more than half of them cannot be used.
pub fn read(files: &[PathBuf], wanted: &Wanted) -> Result<ImageSet> {
    let listed = match files {
        [one] if one.is_dir() => idx::in_folder(one)?,
        files => files.iter().filter(|path| idx::is_idx(path)).cloned().collect(),
    };
    let found = match (files, listed.is_empty()) {
        (_, false) => idx::read(&listed)?,
        ([folder], true) if folder.is_dir() => folder::read(folder, wanted)?,
        _ => bail!(
            "{} hold no pictures: give IDX files, whose names end in idx3-ubyte and idx1-ubyte (also with .gz), or one folder",
            listing(files)
        ),
    };
    split(found, wanted).with_context(|| format!("in the pictures of {}", listing(files)))
}

fn listing(files: &[PathBuf]) -> String {
    let names: Vec<String> = files.iter().take(4).map(|path| path.display().to_string()).collect();
    if files.len() > names.len() { format!("{} and more", names.join(", ")) } else { names.join(", ") }
}

fn split(found: Found, wanted: &Wanted) -> Result<ImageSet> {
    let Found { mut train, test, mut places, classes, mut set_aside } = found;
    ensure!(!train.is_empty(), "there is no picture to train on{}", first_reason(&set_aside));
    let classes = named(classes, &train, &test, &wanted.classes)?;
    let own_test = !test.is_empty();
    let mut held_out = test;
    if !own_test {
        // By their hash, of every class, and equal pictures on one side.
        let lots: Vec<u64> = (0..train.len()).map(|i| hash::fold(wanted.seed, hash::bytes(train.picture(i)))).collect();
        let mut out = vec![false; train.len()];
        for class in 0..classes.len() as u32 {
            let members: Vec<usize> = (0..train.len()).filter(|&i| train.label(i) == class).collect();
            let of_class: Vec<u64> = members.iter().map(|&i| lots[i]).collect();
            members.iter().zip(held_out_lots(&of_class, wanted.held_out)).for_each(|(&i, held)| out[i] = held);
        }
        held_out = train.clone();
        held_out.retain(&out);
        let kept: Vec<bool> = out.iter().map(|out| !out).collect();
        train.retain(&kept);
        places = places.into_iter().zip(&kept).filter_map(|(place, kept)| kept.then_some(place)).collect();
    }
    let reasons = strange(&train, &held_out, &classes);
    let keep: Vec<bool> = reasons.iter().map(Option::is_none).collect();
    for (place, reason) in places.into_iter().zip(reasons) {
        set_aside.extend(reason.map(|reason| SetAside { picture: place, reason }));
    }
    train.retain(&keep);
    let used = train.len() + held_out.len();
    ensure!(
        set_aside.len() <= used,
        "{} pictures cannot be used and {used} can; something is wrong with all of them{}",
        set_aside.len(),
        first_reason(&set_aside)
    );
    if let Some(limit) = wanted.limit {
        train.retain(&few::few(&train, limit, wanted.seed));
    }
    Ok(ImageSet { train, held_out, classes, own_test, set_aside })
}

pub(crate) fn first_reason(set_aside: &[SetAside]) -> String {
    set_aside.first().map_or(String::new(), |one| format!("; {}: {}", one.picture, one.reason))
}

/// The classes by the names that were asked for, where the data has none; else those must be the data's own.
fn named(classes: Vec<String>, train: &Images, test: &Images, wanted: &[String]) -> Result<Vec<String>> {
    if !classes.is_empty() {
        return Ok(classes);
    }
    let most = train.labels.iter().chain(&test.labels).max().map_or(0, |most| *most as usize + 1);
    ensure!(most <= MOST_CLASSES, "a label is {}, and there can be {MOST_CLASSES} classes", most - 1);
    ensure!(
        wanted.is_empty() || wanted.len() >= most,
        "`classify.labels` names {} classes and the labels go up to {}",
        wanted.len(),
        most - 1
    );
    Ok(if wanted.is_empty() { (0..most).map(|class| class.to_string()).collect() } else { wanted.to_vec() })
}

/// Why pictures to train on should not be: what is held out would be known, and of two labels for one picture one is wrong.
fn strange(train: &Images, held_out: &Images, classes: &[String]) -> Vec<Option<String>> {
    let key = |picture: &[u8]| *blake3::hash(picture).as_bytes();
    let known: HashMap<[u8; 32], ()> = (0..held_out.len()).map(|i| (key(held_out.picture(i)), ())).collect();
    let keys: Vec<[u8; 32]> = (0..train.len()).map(|i| key(train.picture(i))).collect();
    let mut labels: HashMap<[u8; 32], (u32, Option<u32>)> = HashMap::new();
    for (i, key) in keys.iter().enumerate() {
        let (first, other) = labels.entry(*key).or_insert((train.label(i), None));
        if train.label(i) != *first {
            *other = Some(train.label(i));
        }
    }
    let name = |label: u32| &classes[label as usize];
    let reason = |key: &[u8; 32]| {
        if known.contains_key(key) {
            return Some("the same picture is held out".to_owned());
        }
        let (first, other) = labels.get(key)?;
        other.map(|other| format!("the same picture is labelled {:?} and {:?}", name(*first), name(other)))
    };
    keys.iter().map(reason).collect()
}

/// The files of a folder, sorted.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let all = std::fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut paths = all.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
