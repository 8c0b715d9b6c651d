//! IDX, the format of MNIST (LeCun et al., <http://yann.lecun.com/exdb/mnist/>): a magic number that says the type and how many
//! dimensions there are, the dimensions as big-endian numbers of 32 bits, and the values.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::MultiGzDecoder;

use super::{Found, Images, MOST_BYTES, entries};

/// The type of values: unsigned bytes. Nothing else holds pictures.
const BYTES: u8 = 8;
/// How names of test sets begin.
const TESTS: [&str; 5] = ["t10k", "test", "valid", "val", "dev"];

/// Whether a file's name says that it is IDX: `train-images-idx3-ubyte`, `test.labels.idx1-ubyte.gz`.
pub(super) fn is_idx(path: &Path) -> bool {
    let name = plain_name(path);
    name.ends_with("-ubyte") || name.ends_with(".idx")
}

/// The IDX files of a folder.
pub(super) fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(folder)?.into_iter().filter(|path| path.is_file() && is_idx(path)).collect())
}

/// The file's name without `.gz`, in small letters.
fn plain_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.strip_suffix(".gz").unwrap_or(&name).to_owned()
}

/// What stands before "images" or "labels" in a file's name, by which the two belong together.
fn part<'a>(name: &'a str, what: &str) -> Option<&'a str> {
    Some(name.split_once(what)?.0.trim_end_matches(['-', '_', '.']))
}

/// Reads pairs of a file of pictures and a file of labels.
pub(super) fn read(files: &[PathBuf]) -> Result<Found> {
    let mut found =
        Found { train: Images::default(), test: Images::default(), places: vec![], classes: vec![], set_aside: vec![] };
    for pictures in files {
        let name = plain_name(pictures);
        let Some(begin) = part(&name, "images") else { continue };
        let labels = files.iter().find(|path| part(&plain_name(path), "labels") == Some(begin));
        let labels = labels.with_context(|| {
            let other = name.replace("images", "labels").replace("idx3", "idx1");
            format!("{} has no labels beside it, which would be called {other}", pictures.display())
        })?;
        let images = pair(pictures, labels)?;
        let is_test = TESTS.iter().any(|test| begin.starts_with(test));
        if !is_test {
            found.places.extend((0..images.len()).map(|i| format!("{}:{i}", pictures.display())));
        }
        let side = if is_test { &mut found.test } else { &mut found.train };
        if side.is_empty() {
            *side = images;
        } else {
            ensure!(same_size(side, &images), "{} holds pictures of another size than the others", pictures.display());
            side.pixels.extend(images.pixels);
            side.labels.extend(images.labels);
        }
    }
    ensure!(
        found.test.is_empty() || found.train.is_empty() || same_size(&found.train, &found.test),
        "the pictures to train on are {}×{} and those of the test set {}×{}",
        found.train.height,
        found.train.width,
        found.test.height,
        found.test.width
    );
    Ok(found)
}

fn same_size(a: &Images, b: &Images) -> bool {
    (a.channels, a.height, a.width) == (b.channels, b.height, b.width)
}

fn pair(pictures: &Path, labels: &Path) -> Result<Images> {
    let (shape, pixels) = values(pictures)?;
    let (count, channels, height, width) = match shape[..] {
        [count, height, width] => (count, 1, height, width),
        [count, channels @ (1 | 3), height, width] => (count, channels, height, width),
        _ => bail!("{} has the dimensions {shape:?}; pictures have a count, a height and a width", pictures.display()),
    };
    ensure!(height > 0 && width > 0, "the pictures of {} are empty: {height}×{width}", pictures.display());
    let (of_labels, labels_read) = values(labels)?;
    ensure!(of_labels.len() == 1, "{} has the dimensions {of_labels:?}; labels have a count", labels.display());
    ensure!(
        of_labels[0] == count,
        "{} holds {count} pictures and {} holds {} labels",
        pictures.display(),
        labels.display(),
        of_labels[0]
    );
    Ok(Images { channels, height, width, pixels, labels: labels_read.into_iter().map(u32::from).collect() })
}

/// The dimensions of a file and its values. No more memory is taken than there are bytes in it, whatever it says of itself.
fn values(path: &Path) -> Result<(Vec<usize>, Vec<u8>)> {
    let file = BufReader::new(File::open(path).with_context(|| format!("cannot open {}", path.display()))?);
    let compressed = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gz"));
    let read = if compressed { parse(MultiGzDecoder::new(file)) } else { parse(file) };
    read.with_context(|| format!("{} cannot be read as IDX", path.display()))
}

pub(super) fn parse(mut file: impl Read) -> Result<(Vec<usize>, Vec<u8>)> {
    let mut four = || -> Result<[u8; 4]> {
        let mut bytes = [0; 4];
        file.read_exact(&mut bytes).context("it ends in its header, or is damaged there")?;
        Ok(bytes)
    };
    let [first, second, kind, dimensions] = four()?;
    ensure!([first, second] == [0, 0], "it does not begin with two zero bytes");
    ensure!(kind == BYTES, "its values are of type {kind:#04x}; bytes (0x08) are read");
    ensure!((1..=4).contains(&dimensions), "it has {dimensions} dimensions; from 1 to 4 are read");
    let shape = (0..dimensions).map(|_| Ok(u32::from_be_bytes(four()?) as usize)).collect::<Result<Vec<_>>>()?;
    let expected = shape.iter().try_fold(1u64, |size, n| size.checked_mul(*n as u64)).filter(|size| *size <= MOST_BYTES);
    let expected = expected.with_context(|| format!("its dimensions {shape:?} are more than {MOST_BYTES} bytes"))?;
    let mut values = vec![];
    file.take(expected + 1).read_to_end(&mut values).context("it is damaged")?;
    let found = values.len() as u64;
    ensure!(found >= expected, "it is cut off: its dimensions {shape:?} are {expected} bytes, and {found} are there");
    ensure!(found == expected, "it is longer than its dimensions {shape:?}, which are {expected} bytes");
    Ok((shape, values))
}
