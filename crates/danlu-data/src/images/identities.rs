//! Pictures by who or what is in them: identities to learn from, and others, which training never sees, to be recognized.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use super::{Augment, Found, Images, Scale, SetAside, Wanted, folder, strange};
use crate::chat::held_out_lots;
use crate::hash;
use crate::sampler::{mix, shuffled};
use crate::scenes::{Options, Pair, Scenes, Stamps, View};

/// Pairs that are asked about: as many as of Labeled Faces in the Wild.
const PAIRS: usize = 6000;
/// The most bytes of pictures that are made for pairs; larger pictures make fewer.
const MOST_MADE: usize = 256 << 20;
/// Pictures that are made for the mean and the deviation of all that will be.
const SCALED: usize = 1024;
/// Another thread is worth waking for so many pictures.
const AT_ONCE: usize = 8;
/// Of views that no run gets to.
const BEYOND: u64 = 1 << 63;
/// What is asked about is drawn from here, so that every run is asked the same.
const HELD_OUT: u64 = 0xda71;

/// Pictures of identities.
pub struct Identities {
    /// Of those to learn, in the order of their labels.
    pub names: Vec<String>,
    pub held_out_names: Vec<String>,
    /// Of those that are held out.
    pub pairs: Pairs,
    pub set_aside: Vec<SetAside>,
    seen: Seen,
    hash: String,
}

/// Where the pictures to learn from are.
enum Seen {
    /// One of each identity, of which others are made.
    Stamps(Box<Scenes>),
    Pictures(Images),
}

/// Pairs of pictures, of which one asks whether they show the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pairs {
    /// Their labels are identities.
    pub pictures: Images,
    /// Places among the pictures.
    pub places: Vec<[usize; 2]>,
}

impl Pairs {
    /// # Panics
    /// When there is no such pair.
    pub fn is_same(&self, pair: usize) -> bool {
        let [a, b] = self.places[pair];
        self.pictures.label(a) == self.pictures.label(b)
    }
}

impl Identities {
    /// Each stamp is an identity: a picture of it is made anew each time that it is wanted, of another size, turned and lit otherwise and on
    /// another background, by `seed` and the position in the run. `share` of them are held out.
    ///
    /// # Errors
    /// When there are too few stamps, or pictures of this size cannot be made.
    pub fn of_stamps(files: &[PathBuf], (height, width): (usize, usize), share: f64, seed: u64) -> Result<Self> {
        let mut stamps = Stamps::read(files, height.max(width))?;
        let set_aside = std::mem::take(&mut stamps.set_aside);
        let (train, held_out) = stamps.divide(share, HELD_OUT);
        ensure!(
            train.len() >= 2 && held_out.len() >= 2,
            "{} stamps are to be learned and {} held out; at least two of each are needed",
            train.len(),
            held_out.len()
        );
        let names = |stamps: &Stamps| -> Vec<String> { (0..stamps.len()).map(|i| stamps.get(i).name.clone()).collect() };
        let (names, held_out_names) = (names(&train), names(&held_out));
        let hash = format!("{} {} {height} {width}", train.hash(), held_out.hash());
        let options = Options { height, width, ..Options::default() };
        let scenes = Scenes::new(train, options.clone(), seed)?;
        let asked = Scenes::new(held_out, options, HELD_OUT)?;
        let count = PAIRS.min(MOST_MADE / (6 * height * width)).max(2);
        let made: Vec<Pair> = (0..count as u64).into_par_iter().map(|index| asked.pair(index)).collect();
        let mut pictures = Images::empty(3, height, width);
        made.iter().for_each(|pair| [&pair.first, &pair.second].into_iter().for_each(|view| push(&mut pictures, view)));
        let pairs = Pairs { pictures, places: (0..count).map(|i| [2 * i, 2 * i + 1]).collect() };
        let hash = blake3::hash(hash.as_bytes()).to_hex().to_string();
        Ok(Self { names, held_out_names, pairs, set_aside, seen: Seen::Stamps(Box::new(scenes)), hash })
    }

    /// A folder for each identity, with pictures of it. Which identities are held out is said by their names.
    ///
    /// # Errors
    /// When there are too few identities, none of those that are held out has two pictures, or as [`super::read`].
    pub fn of_folders(root: &Path, wanted: &Wanted) -> Result<Self> {
        ensure!(root.is_dir(), "{} is no folder with a folder for each identity", root.display());
        let Found { mut train, test, places, classes, mut set_aside } = folder::read(root, wanted)?;
        ensure!(
            test.is_empty(),
            "{} has pictures below `test`; who is recognized must not be known, so that identities are held out and not pictures: put a \
             folder for each identity side by side",
            root.display()
        );
        let lots: Vec<u64> = classes.iter().map(|name| hash::fold(wanted.seed, hash::bytes(name.as_bytes()))).collect();
        let out = held_out_lots(&lots, wanted.held_out);
        let held: Vec<bool> = train.labels.iter().map(|&label| out[label as usize]).collect();
        let mut held_out = train.clone();
        held_out.retain(&held);
        let reasons = strange(&train, &held_out, &classes);
        // Of those that are held out the reason is that they are.
        let keep: Vec<bool> = held.iter().zip(&reasons).map(|(held, reason)| !held && reason.is_none()).collect();
        train.retain(&keep);
        for ((place, reason), held) in places.into_iter().zip(reasons).zip(held) {
            set_aside.extend(reason.filter(|_| !held).map(|reason| SetAside { picture: place, reason }));
        }
        let names = relabel(&mut train, &classes);
        let held_out_names = relabel(&mut held_out, &classes);
        ensure!(
            names.len() >= 2 && held_out_names.len() >= 2,
            "{} holds pictures of {} identities to learn and {} that are held out; at least two of each are needed",
            root.display(),
            names.len(),
            held_out_names.len()
        );
        let asked = drawn(&held_out.labels).with_context(|| format!("in {}", root.display()))?;
        let mut hasher = blake3::Hasher::new();
        train.hash(&mut hasher);
        held_out.hash(&mut hasher);
        let hash = hasher.finalize().to_hex().to_string();
        let pairs = Pairs { pictures: held_out, places: asked };
        Ok(Self { names, held_out_names, pairs, set_aside, seen: Seen::Pictures(train), hash })
    }

    /// Pictures to learn from; where they are made, identities.
    pub fn len(&self) -> usize {
        match &self.seen {
            Seen::Stamps(_) => self.names.len(),
            Seen::Pictures(train) => train.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// BLAKE3 of all that pictures are, or are made of.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// What brings the pictures to learn from to mean 0 and deviation 1.
    pub fn scale(&self) -> Scale {
        match &self.seen {
            Seen::Pictures(train) => Scale::of(train),
            Seen::Stamps(scenes) => {
                let view = |i: usize| scenes.view(i % self.names.len(), BEYOND + i as u64);
                let made: Vec<View> = (0..SCALED).into_par_iter().map(view).collect();
                let Images { height, width, .. } = self.pairs.pictures;
                let mut pictures = Images::empty(3, height, width);
                made.iter().for_each(|view| push(&mut pictures, view));
                Scale::of(&pictures)
            }
        }
    }

    /// The pictures of a run from a position on, changed and scaled, one after the other in `to`, and their labels. Each is a function of its
    /// position.
    pub fn write(&self, position: u64, augment: &Augment, scale: &Scale, to: &mut [f32]) -> Vec<u32> {
        let one = |(position, to): (u64, &mut [f32])| {
            let row = shuffled(position, self.len() as u64, augment.seed) as usize;
            match &self.seen {
                Seen::Pictures(train) => {
                    augment.write(train, row, position, scale, to);
                    train.label(row)
                }
                Seen::Stamps(scenes) => {
                    let view = scenes.view(row, position);
                    let mut picture = Images::empty(3, view.picture.height, view.picture.width);
                    push(&mut picture, &view);
                    augment.write(&picture, 0, position, scale, to);
                    row as u32
                }
            }
        };
        let pictures = to.par_chunks_exact_mut(self.pairs.pictures.each()).enumerate().with_min_len(AT_ONCE);
        pictures.map(|(i, to)| one((position + i as u64, to))).collect()
    }
}

fn push(pictures: &mut Images, view: &View) {
    pictures.push(&view.picture.pixels, view.identity);
}

/// Counts identities anew from 0, those that have pictures; gives their names.
fn relabel(images: &mut Images, names: &[String]) -> Vec<String> {
    let mut present: Vec<u32> = images.labels.clone();
    present.sort_unstable();
    present.dedup();
    images.labels.iter_mut().for_each(|label| *label = present.partition_point(|one| one < label) as u32);
    present.into_iter().map(|label| names[label as usize].clone()).collect()
}

/// Pairs of pictures by their labels, from 0 without a gap: in turn two of one identity and one each of two.
fn drawn(labels: &[u32]) -> Result<Vec<[usize; 2]>> {
    let mut members: Vec<Vec<usize>> = vec![vec![]; labels.iter().max().map_or(0, |most| *most as usize + 1)];
    labels.iter().enumerate().for_each(|(place, &label)| members[label as usize].push(place));
    let several: Vec<&Vec<usize>> = members.iter().filter(|of| of.len() >= 2).collect();
    ensure!(
        !several.is_empty(),
        "none of the {} identities that are held out has two pictures, so that nothing can be found again",
        members.len()
    );
    let pair = |index: usize| {
        let below = |stream: u64, count: usize| (mix(HELD_OUT, index as u64, stream) % count as u64) as usize;
        // The second of two is one of the others: what the first is or comes after moves up by one.
        let other = |stream: u64, count: usize, than: usize| {
            let place = below(stream, count - 1);
            place + usize::from(place >= than)
        };
        if index.is_multiple_of(2) {
            let of = several[below(1, several.len())];
            let first = below(2, of.len());
            [of[first], of[other(3, of.len(), first)]]
        } else {
            let first = below(1, members.len());
            let second = other(2, members.len(), first);
            [(first, 3), (second, 4)].map(|(identity, stream)| members[identity][below(stream, members[identity].len())])
        }
    };
    Ok((0..PAIRS).map(pair).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;

    use image::{Rgba, RgbaImage};

    use super::*;

    fn folders(identities: u8, each: u8) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for identity in 0..identities {
            let folder = dir.path().join(format!("who-{identity}"));
            fs::create_dir(&folder).unwrap();
            for i in 0..each {
                let value = |x: u32, y: u32| Rgba([20 * identity, 10 * i + x as u8, y as u8, 255]);
                RgbaImage::from_fn(8, 8, value).save(folder.join(format!("{i}.png"))).unwrap();
            }
        }
        dir
    }

    fn wanted() -> Wanted {
        Wanted { held_out: 0.3, ..Wanted::default() }
    }

    fn apart(identities: &Identities, all: usize) {
        let (learned, held): (HashSet<&String>, HashSet<&String>) =
            (identities.names.iter().collect(), identities.held_out_names.iter().collect());
        assert!(learned.is_disjoint(&held) && learned.len() + held.len() == all, "{learned:?} {held:?}");
        let same = (0..identities.pairs.places.len()).filter(|&i| identities.pairs.is_same(i)).count();
        assert!((2600..3400).contains(&same) && identities.pairs.places.len() == PAIRS, "{same} pairs of the same");
        assert!(identities.pairs.places.iter().all(|[a, b]| a != b));
    }

    #[test]
    fn folders_of_identities_are_held_out_whole() {
        let dir = folders(12, 4);
        let identities = Identities::of_folders(dir.path(), &wanted()).unwrap();
        apart(&identities, 12);
        assert_eq!(identities.len(), 4 * identities.names.len());
        let again = Identities::of_folders(dir.path(), &wanted()).unwrap();
        assert_eq!((again.hash(), &again.pairs), (identities.hash(), &identities.pairs));
        // Red says whose a picture is: those to learn from have the label of their name, and none is of who is held out.
        let scale = Scale { mean: vec![0.0; 3], deviation: vec![1.0 / 255.0; 3] };
        let mut values = vec![0.0; 3 * 64 * identities.len()];
        let labels = identities.write(0, &Augment::default(), &scale, &mut values);
        for (picture, label) in values.chunks_exact(3 * 64).zip(labels) {
            assert_eq!(identities.names[label as usize], format!("who-{}", picture[0].round() as u32 / 20));
        }
        // What is in two folders says nothing of either.
        fs::copy(dir.path().join("who-0/0.png"), dir.path().join("who-1/twice.png")).unwrap();
        let set_aside = Identities::of_folders(dir.path(), &wanted()).unwrap().set_aside;
        assert!(set_aside.len() <= 2, "{set_aside:?}");
        assert!(Identities::of_folders(folders(12, 1).path(), &wanted()).is_err(), "one picture each");
        assert!(Identities::of_folders(folders(2, 4).path(), &wanted()).is_err(), "two identities");
        assert!(Identities::of_folders(&dir.path().join("nowhere"), &wanted()).is_err());
    }

    #[test]
    fn views_of_stamps_follow_from_their_position() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..20u32 {
            let inside = |x: u32, y: u32| x.abs_diff(16) + y.abs_diff(16) < 12 + i % 4;
            let value = |x, y| Rgba([(12 * i) as u8, 90, (255 - 9 * i) as u8, if inside(x, y) { 255 } else { 0 }]);
            RgbaImage::from_fn(32, 32, value).save(dir.path().join(format!("{i}.png"))).unwrap();
        }
        let of = |seed| Identities::of_stamps(&[dir.path().to_path_buf()], (16, 20), 0.3, seed).unwrap();
        let identities = of(1);
        apart(&identities, 20);
        let (scale, augment) = (identities.scale(), Augment { flip: true, seed: 1, ..Augment::default() });
        let each = 3 * 16 * 20;
        let written = |identities: &Identities, position: u64, count: usize| {
            let mut values = vec![0.0; count * each];
            (identities.write(position, &augment, &scale, &mut values), values)
        };
        let count = identities.len();
        let (labels, values) = written(&identities, 0, 2 * count);
        assert_eq!(labels[..count].iter().collect::<HashSet<_>>().len(), count, "each identity once an epoch");
        let (later, of_later) = written(&identities, 7, 5);
        assert!(later == labels[7..12] && of_later == values[7 * each..12 * each]);
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        assert!(mean.abs() < 0.6 && values.iter().all(|x| x.is_finite()), "{mean}");
        // Another seed makes other pictures, and asks the same.
        let other = of(2);
        assert!(written(&other, 0, count).1 != values[..count * each] && other.pairs == identities.pairs);
    }
}
