//! Pictures with transparency, from which scenes are put together.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;

use super::pixels::Pixels;
use crate::chat::held_out_lots;
use crate::hash;
use crate::images::{MOST_CLASSES, SetAside, decode, first_reason};

/// What the points of a stamp are called: those of its opaque pixels that are farthest up, right, down and left as it was drawn, wherever they
/// are once it is turned.
pub const POINTS: [&str; 4] = ["top", "right", "bottom", "left"];

/// x and y of each of [`POINTS`], in pixels of the stamp.
pub(super) type Points = [[f64; 2]; 4];

/// A pixel belongs to a stamp from this opacity on.
pub(super) const OPAQUE: u8 = 128;
/// Opaque pixels that a stamp has at least.
const LEAST_OPAQUE: usize = 64;
/// The most stamps, and the most bytes that all may have in memory.
const MOST_STAMPS: usize = 65_536;
const MOST_BYTES: u64 = 2 << 30;
/// Beside emoji, what they are.
const EMOJI: &str = "emoji.json";
const MOST_EMOJI: u64 = 64 << 20;

/// A picture with transparency, cut to what is seen of it.
pub struct Stamp {
    /// The end of its path, from the folder of its class on.
    pub name: String,
    /// Its place among the classes.
    pub class: u32,
    /// Its place among all stamps that were read, whichever side it came to.
    pub identity: u32,
    pub(super) pixels: Pixels,
    pub(super) points: Points,
    lot: u64,
}

/// Stamps in classes.
#[derive(Clone, Default)]
pub struct Stamps {
    pub classes: Vec<String>,
    stamps: Vec<Arc<Stamp>>,
    pub set_aside: Vec<SetAside>,
}

impl Stamps {
    /// Reads the pictures of a folder and those below it, or of a list of files. A class is the first folder below what they have in common;
    /// where `emoji.json` of emoji-datasource is among them, an emoji's category. Larger ones than `most_side` are halved until they are not.
    ///
    /// # Errors
    /// When there are none, or more than half of them cannot be used.
    pub fn read(files: &[PathBuf], most_side: usize) -> Result<Self> {
        let files = match files {
            [folder] if folder.is_dir() => below(folder)?,
            files => files.to_vec(),
        };
        let emoji = files.iter().find(|path| path.file_name().is_some_and(|name| name == EMOJI));
        let categories = emoji.map(|path| categories(path)).transpose()?;
        let is_png = |path: &&PathBuf| path.extension().is_some_and(|end| end.eq_ignore_ascii_case("png"));
        let pictures: Vec<&PathBuf> = files.iter().filter(is_png).collect();
        ensure!(!pictures.is_empty(), "there is no picture with transparency (png) among {} files", files.len());
        ensure!(pictures.len() <= MOST_STAMPS, "there are {} pictures; {MOST_STAMPS} can be stamps", pictures.len());
        let root = common(&pictures);
        let read: Vec<Result<(Pixels, Points)>> = pictures.par_iter().map(|path| stamp(path, most_side)).collect();
        let bytes: u64 = read.iter().flatten().map(|(pixels, _)| pixels.rgba().len() as u64 * 16 / 3).sum();
        ensure!(bytes <= MOST_BYTES, "the stamps have {bytes} bytes; {MOST_BYTES} are kept in memory: make them smaller");

        let (mut found, mut set_aside, mut seen) = (vec![], vec![], HashMap::new());
        for (path, read) in pictures.into_iter().zip(read) {
            let name = path.strip_prefix(&root).unwrap_or(path).display().to_string();
            let kept = read.and_then(|(pixels, points)| {
                let key = blake3::hash(pixels.rgba().as_flattened());
                if let Some(first) = seen.get(&key) {
                    bail!("it is the same picture as {first}");
                }
                let class = class(path, &root, categories.as_ref())?;
                seen.insert(key, name.clone());
                Ok((class, pixels, points))
            });
            match kept {
                Ok((class, pixels, points)) => found.push((name, class, pixels, points)),
                Err(error) => set_aside.push(SetAside { picture: name, reason: format!("{error:#}") }),
            }
        }
        let (bad, good) = (set_aside.len(), found.len());
        ensure!(bad <= good, "{bad} stamps cannot be used and {good} can{}", first_reason(&set_aside));
        let mut classes: Vec<String> = found.iter().map(|(_, class, ..)| class.clone()).collect();
        classes.sort_unstable();
        classes.dedup();
        ensure!(classes.len() <= MOST_CLASSES, "there are {} classes; there can be {MOST_CLASSES}", classes.len());
        let stamps = (0..).zip(found).map(|(identity, (name, class, pixels, points))| {
            let class = classes.partition_point(|one| *one < class) as u32;
            let lot = hash::bytes(pixels.rgba().as_flattened());
            Arc::new(Stamp { name, class, identity, pixels, points, lot })
        });
        let stamps = stamps.collect();
        Ok(Self { classes, stamps, set_aside })
    }

    /// Those to learn from, and those that are never seen then: of every class about `share`, by their pixels. For what is asked of things that
    /// were never seen before, such as whether two pictures show the same one.
    pub fn divide(&self, share: f64, seed: u64) -> (Self, Self) {
        let (mut train, mut held_out) = (self.clone(), self.clone());
        let mut out = vec![false; self.len()];
        for class in 0..self.classes.len() as u32 {
            let members: Vec<usize> = (0..self.len()).filter(|&i| self.stamps[i].class == class).collect();
            let lots: Vec<u64> = members.iter().map(|&i| hash::fold(seed, self.stamps[i].lot)).collect();
            members.iter().zip(held_out_lots(&lots, share)).for_each(|(&i, held)| out[i] = held);
        }
        let side =
            |held: bool| self.stamps.iter().zip(&out).filter(move |(_, out)| **out == held).map(|(stamp, _)| stamp.clone());
        (train.stamps, held_out.stamps) = (side(false).collect(), side(true).collect());
        (train, held_out)
    }

    pub fn len(&self) -> usize {
        self.stamps.len()
    }

    pub fn is_empty(&self) -> bool {
        self.stamps.is_empty()
    }

    /// # Panics
    /// When there is no such stamp.
    pub fn get(&self, index: usize) -> &Stamp {
        &self.stamps[index]
    }

    /// BLAKE3 of all stamps and classes.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for stamp in &self.stamps {
            let (height, width) = (stamp.pixels.height() as u64, stamp.pixels.width() as u64);
            for number in [height, width, u64::from(stamp.class), u64::from(stamp.identity)] {
                hasher.update(&number.to_le_bytes());
            }
            hasher.update(stamp.pixels.rgba().as_flattened());
        }
        for class in &self.classes {
            hasher.update(class.as_bytes()).update(b"\n");
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// The files below a folder, sorted.
fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut walk = ignore::WalkBuilder::new(folder);
    walk.standard_filters(false).follow_links(false).sort_by_file_path(Path::cmp);
    let mut files = vec![];
    for entry in walk.build() {
        let entry = entry.with_context(|| format!("cannot read the folder {}", folder.display()))?;
        if entry.file_type().is_some_and(|kind| kind.is_file()) {
            files.push(entry.into_path());
        }
        ensure!(files.len() <= 4 * MOST_STAMPS, "{} holds more files than can be stamps", folder.display());
    }
    Ok(files)
}

/// The deepest folder that holds all of them.
fn common(files: &[&PathBuf]) -> PathBuf {
    let mut root = files[0].parent().unwrap_or(Path::new("")).to_path_buf();
    while !files.iter().all(|file| file.starts_with(&root)) {
        root.pop();
    }
    root
}

fn class(path: &Path, root: &Path, categories: Option<&BTreeMap<String, String>>) -> Result<String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Some(categories) = categories {
        return categories.get(&*name).cloned().with_context(|| format!("{EMOJI} does not say what it is"));
    }
    let inside = path.strip_prefix(root).unwrap_or(path);
    let folder = inside.parent().and_then(|parent| parent.components().next());
    // Pictures in no folder of their own are one class, by the name of what holds them.
    let folder = folder.map_or(root.file_name().unwrap_or_default(), |part| part.as_os_str());
    Ok(folder.to_string_lossy().into_owned())
}

/// Of each emoji's picture its category.
fn categories(path: &Path) -> Result<BTreeMap<String, String>> {
    #[derive(serde::Deserialize)]
    struct Emoji {
        image: String,
        category: String,
        #[serde(default)]
        skin_variations: BTreeMap<String, Variation>,
    }
    #[derive(serde::Deserialize)]
    struct Variation {
        image: String,
    }
    let json = danlu_files::read_bounded(path, MOST_EMOJI)?;
    let all: Vec<Emoji> = serde_json::from_slice(&json).with_context(|| format!("{} is no list of emoji", path.display()))?;
    let named = all.into_iter().flat_map(|Emoji { image, category, skin_variations }| {
        let variations = skin_variations.into_values().map(|variation| variation.image);
        variations.chain([image]).map(move |image| (image, category.clone()))
    });
    Ok(named.collect())
}

/// The pixels of a stamp, cut to what is seen, and its points.
fn stamp(path: &Path, most_side: usize) -> Result<(Pixels, Points)> {
    let picture = decode(path)?;
    ensure!(picture.color().has_alpha(), "it has no transparency");
    let picture = picture.to_rgba8();
    let (height, width) = (picture.height() as usize, picture.width() as usize);
    let premultiplied = picture.pixels().map(|pixel| {
        let [red, green, blue, alpha] = pixel.0.map(u32::from);
        let [red, green, blue] = [red, green, blue].map(|value| ((value * alpha + 127) / 255) as u8);
        [red, green, blue, alpha as u8]
    });
    let whole = Pixels::new(height, width, premultiplied.collect()).within(most_side);
    let pixels = cut(&whole).context("nothing of it is seen")?;
    let opaque = pixels.rgba().iter().filter(|pixel| pixel[3] >= OPAQUE).count();
    ensure!(opaque >= LEAST_OPAQUE, "{opaque} of its pixels are opaque, and a stamp has at least {LEAST_OPAQUE}");
    let points = points(&pixels);
    Ok((pixels, points))
}

/// The part in which something is seen; none of nothing.
fn cut(whole: &Pixels) -> Option<Pixels> {
    let width = whole.width();
    let seen = || whole.rgba().iter().enumerate().filter(|(_, pixel)| pixel[3] > 0).map(|(at, _)| (at / width, at % width));
    let (top, bottom) = (seen().map(|(y, _)| y).min()?, seen().map(|(y, _)| y).max()?);
    let (left, right) = (seen().map(|(_, x)| x).min()?, seen().map(|(_, x)| x).max()?);
    let rows = (top..=bottom).flat_map(|y| whole.rgba()[y * width + left..=y * width + right].iter().copied());
    Some(Pixels::new(bottom - top + 1, right - left + 1, rows.collect()))
}

/// Of the pixels that are farthest in each direction the middle one.
fn points(pixels: &Pixels) -> Points {
    let width = pixels.width();
    let opaque: Vec<[i64; 2]> = (pixels.rgba().iter().enumerate().filter(|(_, pixel)| pixel[3] >= OPAQUE))
        .map(|(at, _)| [(at % width) as i64, (at / width) as i64])
        .collect();
    [(1, -1), (0, 1), (1, 1), (0, -1)].map(|(axis, sign): (usize, i64)| {
        let far = opaque.iter().map(|at| sign * at[axis]).max().unwrap_or(0);
        let mut edge: Vec<[i64; 2]> = opaque.iter().filter(|at| sign * at[axis] == far).copied().collect();
        edge.sort_unstable();
        edge.get(edge.len() / 2).map_or([0.0; 2], |at| at.map(|x| x as f64 + 0.5))
    })
}
