//! What a recipe learns to see from: scenes that are made as they are wanted, or the pictures of a folder in COCO's format.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use super::coco::{self, Class, Entry};
use super::fit::Fit;
use super::{Instance, Options, Scene, Scenes, Side, Stamps, Visibility};
use crate::chat::held_out_lots;
use crate::hash;
use crate::images::{MOST_BYTES, SetAside};
use crate::sampler::shuffled;

/// Labelled pictures of one size.
pub struct SceneSet {
    pub classes: Vec<Class>,
    pub height: usize,
    pub width: usize,
    pub set_aside: Vec<SetAside>,
    source: Source,
}

#[allow(clippy::large_enum_variant, reason = "there is one of it in a program")]
enum Source {
    /// With how many make an epoch and how many are measured on.
    Made {
        train: Scenes,
        held_out: Scenes,
        counts: [u64; 2],
    },
    Kept {
        train: Vec<Scene>,
        held_out: Vec<Scene>,
    },
}

/// How a folder is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    pub height: usize,
    pub width: usize,
    /// Each thing whose points are known as a picture of its own, its box and a quarter more, as a finder of poses sees it behind a detector.
    pub alone: bool,
    /// The share that is held out where the folder has no split for it.
    pub held_out: f64,
    pub seed: u64,
}

/// What is held out of made scenes is drawn from here, whatever the seed of the run.
const HELD_OUT: u64 = 0x5ce2e;
/// How much larger than its box the picture of a thing alone is, as in COCO's keypoint benchmarks (Xiao et al. 2018).
const AROUND: f64 = 1.25;

impl SceneSet {
    /// Scenes of stamps, none of which comes twice in training: `counts` say how many make an epoch and how many are measured on.
    ///
    /// # Errors
    /// As [`Scenes::new`].
    pub fn made(stamps: Stamps, options: Options, seed: u64, counts: [u64; 2]) -> Result<Self> {
        let (height, width) = (options.height, options.width);
        let held_out = Scenes::new(stamps.clone(), options.clone(), HELD_OUT)?;
        let train = Scenes::new(stamps, options, seed)?;
        let (classes, set_aside) = (train.classes(), train.stamps().set_aside.clone());
        Ok(Self { classes, height, width, set_aside, source: Source::Made { train, held_out, counts } })
    }

    /// The pictures of files of instances, as [`coco::in_folder`] finds them. Splits whose names begin with `val` or `test` are held out, where
    /// there are others too; else pictures are by their hash.
    ///
    /// # Errors
    /// When a file cannot be used, files have different classes, or there is nothing to learn from.
    pub fn kept(files: Vec<(PathBuf, PathBuf)>, wanted: &Kept) -> Result<Self> {
        let files = of_kind(files, wanted.alone);
        let by_name = files.iter().any(|(path, _)| is_held_out(path)) && !files.iter().all(|(path, _)| is_held_out(path));
        let (mut train, mut held_out, mut classes, mut set_aside) = (vec![], vec![], vec![], vec![]);
        for (path, images) in files {
            let dataset = coco::read(&path, &images)?;
            set_aside.extend(dataset.set_aside);
            if classes.is_empty() {
                classes = dataset.classes;
            } else {
                ensure!(classes == dataset.classes, "{} has other categories than the file before it", path.display());
            }
            let things =
                |entry: &Entry| if wanted.alone { entry.instances.iter().filter(|one| is_asked(one)).count() } else { 1 };
            let bytes = dataset.pictures.iter().map(things).sum::<usize>() as u64 * (3 * wanted.height * wanted.width) as u64;
            ensure!(
                bytes <= MOST_BYTES,
                "the pictures in {} are {bytes} bytes, more than the {MOST_BYTES} that are kept in memory; make them smaller with \
                 `image.size`",
                path.display()
            );
            let read: Vec<Result<(u64, Vec<Scene>)>> = dataset.pictures.par_iter().map(|entry| scenes(entry, wanted)).collect();
            let mut found = vec![];
            for (entry, read) in dataset.pictures.iter().zip(read) {
                match read {
                    Ok(scenes) => found.push(scenes),
                    Err(error) => {
                        set_aside.push(SetAside { picture: entry.file.display().to_string(), reason: format!("{error:#}") });
                    }
                }
            }
            let lots: Vec<u64> = found.iter().map(|(lot, _)| *lot).collect();
            let out = if by_name { vec![is_held_out(&path); lots.len()] } else { held_out_lots(&lots, wanted.held_out) };
            for ((_, scenes), out) in found.into_iter().zip(out) {
                if out { held_out.extend(scenes) } else { train.extend(scenes) }
            }
        }
        let things = |scenes: &[Scene]| scenes.iter().map(|scene| scene.instances.len()).sum::<usize>();
        ensure!(
            things(&train) > 0 && things(&held_out) > 0,
            "there are {} things{} to learn from and {} to measure with: give more pictures, or raise `data.held_out`",
            things(&train),
            if wanted.alone { " whose keypoints are known" } else { "" },
            things(&held_out)
        );
        Ok(Self { classes, height: wanted.height, width: wanted.width, set_aside, source: Source::Kept { train, held_out } })
    }

    /// Pictures of an epoch, and pictures that are held out.
    pub fn count(&self, side: Side) -> u64 {
        match (&self.source, side) {
            (Source::Made { counts: [train, _], .. }, Side::Train) => *train,
            (Source::Made { counts: [_, held_out], .. }, Side::HeldOut) => *held_out,
            (Source::Kept { train, .. }, Side::Train) => train.len() as u64,
            (Source::Kept { held_out, .. }, Side::HeldOut) => held_out.len() as u64,
        }
    }

    /// The picture to learn from at a position of the run.
    pub fn train(&self, position: u64, seed: u64) -> Scene {
        match &self.source {
            Source::Made { train, .. } => train.scene(Side::Train, position),
            Source::Kept { train, .. } => train[shuffled(position, train.len() as u64, seed) as usize].clone(),
        }
    }

    /// [`SceneSet::train`] at each of these positions, in their order; threads share them out.
    pub fn train_all(&self, positions: Range<u64>, seed: u64) -> Vec<Scene> {
        positions.into_par_iter().map(|position| self.train(position, seed)).collect()
    }

    /// # Panics
    /// When there is no such picture.
    pub fn held_out(&self, index: u64) -> Scene {
        match &self.source {
            Source::Made { held_out, .. } => held_out.scene(Side::HeldOut, index),
            Source::Kept { held_out, .. } => held_out[index as usize].clone(),
        }
    }

    /// Whether pictures are made as they are wanted.
    pub fn is_made(&self) -> bool {
        matches!(self.source, Source::Made { .. })
    }

    /// BLAKE3 of everything that decides what is learned and measured, but for the order.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{:?} {} {}", self.classes, self.height, self.width).as_bytes());
        match &self.source {
            Source::Made { train, counts: [_, held_out], .. } => {
                hasher.update(format!("{} {:?} {} {held_out}", train.stamps().hash(), train.options, train.seed).as_bytes());
            }
            Source::Kept { train, held_out } => {
                for scene in train.iter().chain(held_out) {
                    hasher.update(&scene.picture.pixels).update(format!("{:?}", scene.instances).as_bytes());
                }
            }
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// Of COCO's own files those with what is asked for: keypoints of people have files beside those of all things.
fn of_kind(files: Vec<(PathBuf, PathBuf)>, alone: bool) -> Vec<(PathBuf, PathBuf)> {
    let has_points = |path: &Path| name(path).starts_with("person_keypoints_");
    let some = files.iter().any(|(path, _)| has_points(path) == alone);
    files.into_iter().filter(|(path, _)| !some || has_points(path) == alone).collect()
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_held_out(path: &Path) -> bool {
    let name = name(path);
    let split = name.strip_prefix("instances_").or_else(|| name.strip_prefix("person_keypoints_")).unwrap_or(&name);
    split.starts_with("val") || split.starts_with("test")
}

/// Whether a finder of poses learns from a thing.
fn is_asked(instance: &Instance) -> bool {
    !instance.crowd && instance.keypoints.iter().any(|point| point.visibility != Visibility::Unknown)
}

/// A picture, or each of its things alone, in the wanted size, and the lot by which it is held out.
fn scenes(entry: &Entry, wanted: &Kept) -> Result<(u64, Vec<Scene>)> {
    let picture = entry.picture().context("it can no longer be read")?;
    let lot = hash::fold(wanted.seed, hash::bytes(&picture.pixels));
    let (from, to) = ([picture.height, picture.width], [wanted.height, wanted.width]);
    if !wanted.alone {
        return Ok((lot, vec![Fit::whole(from, to).scene(&picture, &entry.instances)]));
    }
    let one = |instance: &Instance| {
        let [x, y, wide, high] = instance.bbox;
        let more = (AROUND - 1.0) / 2.0;
        let part = [x - more * wide, y - more * high, AROUND * wide, AROUND * high];
        Fit::part(part, from, to).scene(&picture, [instance])
    };
    Ok((lot, entry.instances.iter().filter(|one| is_asked(one)).map(one).collect()))
}
