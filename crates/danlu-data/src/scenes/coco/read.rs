use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rayon::prelude::*;

use super::record::{Annotation, Counts, File, Image, Segmentation};
use super::{Class, Dataset, Entry};
use crate::images::{MOST_CLASSES, SetAside, decode, first_reason};
use crate::scenes::{Instance, Keypoint, Rle, Visibility};

/// A file of instances may have this many bytes; COCO's own has 470 million.
const MOST_FILE: u64 = 2 << 30;
/// A picture may have this many rows and columns.
const MOST_SIDE: u32 = 16_384;
/// How far a box or a point may go over the edge, in pixels: many tools round outwards.
const SLACK: f64 = 1.0;
/// The most points that a class may name.
const MOST_POINTS: usize = 1_000;

/// The files of instances in a folder with the folder of the pictures of each: `instances.json` beside `images`, as [`write`](super::write())
/// leaves it, or COCO's own `annotations/instances_NAME.json` with `NAME` or `images/NAME`.
///
/// # Errors
/// When a folder cannot be read.
pub fn in_folder(root: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let or_root = |folder: PathBuf| if folder.is_dir() { folder } else { root.to_path_buf() };
    let own = root.join("instances.json");
    if own.is_file() {
        return Ok(vec![(own, or_root(root.join("images")))]);
    }
    let annotations = root.join("annotations");
    if !annotations.is_dir() {
        return Ok(vec![]);
    }
    let of_split = |file: PathBuf| {
        let stem = file.file_stem()?.to_str()?;
        let split = stem.strip_prefix("instances_").or_else(|| stem.strip_prefix("person_keypoints_"))?;
        let (plain, inner) = (root.join(split), root.join("images").join(split));
        let images = if plain.is_dir() { plain } else { inner };
        (file.extension()? == "json").then(|| (file.clone(), or_root(images)))
    };
    Ok(crate::images::entries(&annotations)?.into_iter().filter_map(of_split).collect())
}

/// Reads a file of instances and looks at every picture that it names, which is decoded once, so that what is kept can be used.
///
/// # Errors
/// When the file is none of instances, or more of its pictures or records cannot be used than can.
pub fn read(instances: &Path, images: &Path) -> Result<Dataset> {
    let mut dataset = danlu_files::read_bounded(instances, MOST_FILE)
        .and_then(|json| parse(&json))
        .with_context(|| format!("in {}", instances.display()))?;
    let found: Vec<Result<()>> = dataset.pictures.par_iter().map(|entry| look(entry, images)).collect();
    let mut set_aside = vec![];
    dataset.pictures = (dataset.pictures.into_iter().zip(found))
        .filter_map(|(entry, found)| match found {
            Ok(()) => Some(Entry { file: images.join(entry.file), ..entry }),
            Err(error) => {
                set_aside.push(SetAside { picture: entry.file.display().to_string(), reason: format!("{error:#}") });
                None
            }
        })
        .collect();
    let (bad, good) = (set_aside.len(), dataset.pictures.len());
    ensure!(
        bad <= good,
        "of the pictures in {}, {bad} cannot be used and {good} can{}",
        instances.display(),
        first_reason(&set_aside)
    );
    dataset.set_aside.extend(set_aside);
    Ok(dataset)
}

/// Reads the bytes of a file of instances, and no picture.
///
/// # Errors
/// When it is none, or more of its records cannot be used than can.
pub fn parse(json: &[u8]) -> Result<Dataset> {
    let file: File = serde_json::from_slice(json).context("it is no file of instances in COCO's format")?;
    let mut aside = vec![];
    let mut put = |what: String, reason: String| aside.push(SetAside { picture: what, reason });

    let mut classes: Vec<Class> = vec![];
    for (place, record) in file.categories.into_iter().enumerate() {
        // A class that is not understood takes its things with it: that is said once here and once for each.
        match record {
            Ok(record) if classes.iter().any(|class| class.id == record.id) => {
                put(format!("category {}", record.id), "its number is there twice".to_owned());
            }
            Ok(record) if record.keypoints.len() > MOST_POINTS => {
                put(format!("category {}", record.id), format!("it names more than {MOST_POINTS} keypoints"));
            }
            Ok(record) => classes.push(Class { id: record.id, name: record.name, keypoints: record.keypoints }),
            Err(reason) => put(format!("category at place {place}"), reason),
        }
        ensure!(classes.len() <= MOST_CLASSES, "it has more than {MOST_CLASSES} categories");
    }
    classes.sort_by_key(|class| class.id);
    let places: HashMap<u64, u32> = (0..).zip(&classes).map(|(place, class)| (class.id, place)).collect();

    let (mut pictures, mut known): (Vec<Entry>, HashSet<u64>) = (vec![], HashSet::new());
    for (place, record) in file.images.into_iter().enumerate() {
        let what = record.as_ref().map_or_else(|_| format!("image at place {place}"), |image| format!("image {}", image.id));
        match record.map_err(|reason| anyhow!(reason)).and_then(picture) {
            Ok(entry) if known.insert(entry.id) => pictures.push(entry),
            Ok(_) => put(what, "its number is there twice".to_owned()),
            Err(error) => put(what, format!("{error:#}")),
        }
    }
    pictures.sort_by_key(|entry| entry.id);
    let of_id: HashMap<u64, usize> = pictures.iter().enumerate().map(|(place, entry)| (entry.id, place)).collect();

    let (mut used, mut ids) = (0, HashSet::new());
    for (place, record) in file.annotations.into_iter().enumerate() {
        let what = match &record {
            Ok(one) => format!("annotation {} of image {}", one.id, one.image_id),
            Err(_) => format!("annotation at place {place}"),
        };
        let read = record.map_err(|reason| anyhow!(reason)).and_then(|record| {
            let entry = *of_id.get(&record.image_id).with_context(|| format!("there is no image {}", record.image_id))?;
            let class =
                places.get(&record.category_id).with_context(|| format!("there is no category {}", record.category_id))?;
            ensure!(record.id == 0 || ids.insert(record.id), "its number is there twice");
            let (height, width) = (pictures[entry].height, pictures[entry].width);
            Ok((entry, record.id, instance(record, *class, &classes[*class as usize], height, width)?))
        });
        match read {
            Ok((entry, id, instance)) => {
                pictures[entry].instances.push(instance);
                pictures[entry].ids.push(id);
                used += 1;
            }
            Err(error) => put(what, format!("{error:#}")),
        }
    }
    ensure!(!pictures.is_empty(), "it names no picture that can be used{}", first_reason(&aside));
    let (bad, good) = (aside.len(), used + pictures.len());
    ensure!(bad <= good, "{bad} of its records cannot be used and {good} can{}", first_reason(&aside));
    Ok(Dataset { classes, pictures, set_aside: aside })
}

fn picture(record: Image) -> Result<Entry> {
    let Image { id, file_name, height, width } = record;
    let file = PathBuf::from(&file_name);
    let plain = file.components().all(|part| matches!(part, Component::Normal(_)));
    ensure!(plain && !file_name.is_empty(), "its name {file_name:?} is no place below the folder of pictures");
    ensure!(
        (1..=MOST_SIDE).contains(&height) && (1..=MOST_SIDE).contains(&width),
        "it says that it is {width}×{height}; a picture may have 1 to {MOST_SIDE} a side"
    );
    Ok(Entry { id, file, height, width, instances: vec![], ids: vec![] })
}

fn instance(record: Annotation, place: u32, class: &Class, height: u32, width: u32) -> Result<Instance> {
    let mask = match &record.segmentation {
        // Some tools write an empty list for a thing without a mask.
        None => None,
        Some(Segmentation::Polygons(outlines)) if outlines.is_empty() => None,
        Some(Segmentation::Polygons(outlines)) => Some(Rle::of_polygons(height, width, outlines)?),
        Some(Segmentation::Runs { size, counts }) => {
            ensure!(*size == [height, width], "its mask is of {}×{} and its picture of {width}×{height}", size[1], size[0]);
            Some(match counts {
                Counts::Text(text) => Rle::of_text(height, width, text)?,
                Counts::Numbers(counts) => Rle::new(height, width, counts)?,
            })
        }
    };
    ensure!(mask.as_ref().is_none_or(|mask| mask.area() > 0), "its mask has no pixel");
    let bbox = record.bbox.or_else(|| mask.as_ref().map(Rle::bbox)).context("it has neither a box nor a mask")?;
    let [x, y, wide, high] = bbox;
    ensure!(wide > 0.0 && high > 0.0, "its box is {wide} wide and {high} high");
    ensure!(
        x >= -SLACK && y >= -SLACK && x + wide <= f64::from(width) + SLACK && y + high <= f64::from(height) + SLACK,
        "its box {bbox:?} is outside its picture of {width}×{height}"
    );
    let area = record.area.unwrap_or_else(|| mask.as_ref().map_or(wide * high, |mask| f64::from(mask.area())));
    ensure!(area >= 0.0, "its area is {area}");
    ensure!(record.iscrowd < 2, "`iscrowd` is {}, and is 0 or 1", record.iscrowd);
    let keypoints = keypoints(&record.keypoints, class, height, width)?;
    Ok(Instance { class: place, bbox, area, mask, keypoints, crowd: record.iscrowd == 1, identity: record.identity })
}

fn keypoints(numbers: &[f64], class: &Class, height: u32, width: u32) -> Result<Vec<Keypoint>> {
    ensure!(
        numbers.is_empty() || numbers.len() == 3 * class.keypoints.len(),
        "it has {} numbers for keypoints, and {:?} has {} of three each",
        numbers.len(),
        class.name,
        class.keypoints.len()
    );
    let point = |(place, &[x, y, known]): (usize, &[f64; 3])| {
        let visibility = match known {
            0.0 => return Ok(Keypoint::default()),
            1.0 => Visibility::Hidden,
            2.0 => Visibility::Visible,
            other => bail!("keypoint {place} has the visibility {other}, and is 0, 1 or 2"),
        };
        let inside = |at: f64, end: u32| (-SLACK..=f64::from(end) + SLACK).contains(&at);
        ensure!(inside(x, width) && inside(y, height), "keypoint {place} at {x}, {y} is outside its picture of {width}×{height}");
        Ok(Keypoint { x, y, visibility })
    };
    numbers.as_chunks::<3>().0.iter().enumerate().map(point).collect()
}

/// Whether the file of a picture holds what the record says.
fn look(entry: &Entry, images: &Path) -> Result<()> {
    let path = images.join(&entry.file);
    ensure!(path.is_file(), "the file is missing");
    let picture = decode(&path)?;
    ensure!(
        (picture.height(), picture.width()) == (entry.height, entry.width),
        "its record says {}×{}, and the file has {}×{}",
        entry.width,
        entry.height,
        picture.width(),
        picture.height()
    );
    Ok(())
}
