//! A folder for each class, with pictures in PNG or JPEG.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use image::imageops::FilterType;
use image::{DynamicImage, ImageReader, Limits};
use rayon::prelude::*;

use super::{Found, Images, MOST_BYTES, MOST_CLASSES, SetAside, Wanted, entries};

/// A file may have this many bytes, a picture this many rows and columns and, decoded, this many bytes.
const MOST_FILE: u64 = 64 << 20;
const MOST_SIDE: u32 = 16_384;
const MOST_DECODED: u64 = 256 << 20;

/// Ends of names that pictures have.
const ENDS: [&str; 3] = ["png", "jpg", "jpeg"];

/// Reads the folders of `root`, or those in its `train` and `test`.
pub(super) fn read(root: &Path, wanted: &Wanted) -> Result<Found> {
    let (train, test) = (root.join("train"), root.join("test"));
    let (train, test) = if train.is_dir() { (train, test.is_dir().then_some(test)) } else { (root.to_path_buf(), None) };
    let classes = classes(&train, &wanted.classes)?;
    let files = listed(&train, &classes)?;
    let tests = test.as_deref().map_or(Ok(vec![]), |test| listed(test, &classes))?;
    ensure!(!files.is_empty(), "{} holds no folder with pictures ({}) in it", train.display(), ENDS.join(", "));
    // What is left open is what the first picture that can be decoded has.
    let (mut size, mut channels) = (wanted.size, wanted.channels);
    if size.is_none() || channels.is_none() {
        let first = files.iter().find_map(|(path, _)| decode(path).ok());
        let first = first.with_context(|| format!("no picture below {} can be decoded", train.display()))?;
        size = size.or(Some((first.height() as usize, first.width() as usize)));
        channels = channels.or(Some(if first.color().has_color() { 3 } else { 1 }));
    }
    let ((height, width), channels) = (size.unwrap_or_default(), channels.unwrap_or(1));
    let all = (files.len() + tests.len()) as u64 * (channels * height * width) as u64;
    ensure!(
        all <= MOST_BYTES,
        "{} pictures of {height}×{width} with {channels} channels are {all} bytes, more than the {MOST_BYTES} that are kept in memory; \
         make them smaller with `image.size`",
        files.len() + tests.len()
    );
    let mut found = Found {
        train: Images::empty(channels, height, width),
        test: Images::empty(channels, height, width),
        places: vec![],
        classes,
        set_aside: vec![],
    };
    for (files, is_test) in [(files, false), (tests, true)] {
        let read: Vec<Result<Vec<u8>>> = files.par_iter().map(|(path, _)| pixels(path, channels, height, width)).collect();
        for ((path, label), read) in files.into_iter().zip(read) {
            match read {
                Err(error) => {
                    let (picture, reason) = (path.display().to_string(), format!("{error:#}"));
                    found.set_aside.push(SetAside { picture, reason });
                }
                Ok(pixels) if is_test => found.test.push(&pixels, label),
                Ok(pixels) => {
                    found.train.push(&pixels, label);
                    found.places.push(path.display().to_string());
                }
            }
        }
    }
    Ok(found)
}

/// The names of the folders, or those that are wanted.
fn classes(root: &Path, wanted: &[String]) -> Result<Vec<String>> {
    let folders = entries(root)?.into_iter().filter(|path| path.is_dir());
    let names = folders.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
    let names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    ensure!(names.len() <= MOST_CLASSES, "{} has {} folders; there can be {MOST_CLASSES} classes", root.display(), names.len());
    if wanted.is_empty() {
        return Ok(names);
    }
    if let Some(other) = names.iter().find(|name| !wanted.contains(name)) {
        return Err(anyhow!("{} has the folder {other:?}, which `classify.labels` does not name", root.display()));
    }
    Ok(wanted.to_vec())
}

/// The pictures of each class, with its place.
fn listed(root: &Path, classes: &[String]) -> Result<Vec<(PathBuf, u32)>> {
    let mut all = vec![];
    for (label, class) in (0..).zip(classes) {
        let folder = root.join(class);
        if folder.is_dir() {
            let of_picture = |path: &PathBuf| {
                let end = path.extension().map(|end| end.to_string_lossy().to_lowercase());
                path.is_file() && end.is_some_and(|end| ENDS.contains(&end.as_str()))
            };
            all.extend(entries(&folder)?.into_iter().filter(of_picture).map(|path| (path, label)));
        }
    }
    Ok(all)
}

/// Decodes a picture of a bounded size: what its header asks for is known before anything is allocated.
pub(crate) fn decode(path: &Path) -> Result<DynamicImage> {
    let bytes = danlu_files::read_bounded(path, MOST_FILE)?;
    let reader = || ImageReader::new(Cursor::new(&bytes[..])).with_guessed_format();
    let (width, height) = reader()?.into_dimensions().context("it is no picture in PNG or JPEG")?;
    let most = u64::from(width) * u64::from(height) * 4;
    ensure!(
        width <= MOST_SIDE && height <= MOST_SIDE && most <= MOST_DECODED,
        "it says that it is {width}×{height}, more than a picture may have here ({MOST_SIDE} a side, {} MB decoded)",
        MOST_DECODED >> 20
    );
    ensure!(width > 0 && height > 0, "it is empty: {width}×{height}");
    // The decoder of JPEG paints what is missing at the end grey, and says nothing. No marker is inside of what a scan has, so a picture
    // that is whole ends its last one.
    let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xff, marker]);
    ensure!(!bytes.starts_with(&[0xff, 0xd8]) || last(0xd9) > last(0xda), "it is cut off: its data has no end");
    // The decoders get the same limits, for what else their files make them allocate.
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(MOST_SIDE), Some(MOST_SIDE));
    limits.max_alloc = Some(MOST_DECODED);
    let mut reader = reader()?;
    reader.limits(limits);
    reader.decode().context("it cannot be decoded")
}

/// The planes of a picture, brought to a size: the largest part of its middle that has the wanted shape. What is transparent is black.
pub(crate) fn pixels(path: &Path, channels: usize, height: usize, width: usize) -> Result<Vec<u8>> {
    let picture = decode(path)?;
    let picture = if (picture.height() as usize, picture.width() as usize) == (height, width) {
        picture
    } else {
        picture.resize_to_fill(width as u32, height as u32, FilterType::Triangle)
    };
    let picture = picture.to_rgba8();
    let mut planes = vec![0; channels * height * width];
    for (place, pixel) in picture.pixels().enumerate() {
        let [red, green, blue, alpha] = pixel.0.map(u32::from);
        let shown = |value: u32| (value * alpha + 127) / 255;
        if channels == 1 {
            // The brightness of ITU-R BT.601.
            planes[place] = shown((299 * red + 587 * green + 114 * blue + 500) / 1000) as u8;
        } else {
            for (channel, value) in [red, green, blue].into_iter().enumerate() {
                planes[channel * height * width + place] = shown(value) as u8;
            }
        }
    }
    Ok(planes)
}
