//! Features of pictures that people thought of, to stand beside what a network makes of a picture, or alone. What is usual for each is
//! learned from training pictures and kept with the model.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Images, Scale};
use crate::usual::{standardized, usual};

/// Directions that are told apart, of half a turn: an edge from dark to light counts as one from light to dark.
const BINS: usize = 9;
/// The cells of a block, along each side.
const BLOCK: usize = 2;
/// No direction of a block may have more than this share of its length, so that one strong edge does not hide the others.
const MOST: f32 = 0.2;
/// Added to the length of a block, in deviations of brightness: in a block of one brightness there is noise alone.
const FLOOR: f32 = 0.25;
/// The most features that a picture may have, and the most bytes of a file of them.
const MOST_FEATURES: usize = 1 << 20;
const FILE_LIMIT: u64 = 64 << 20;

/// Which features to make of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureFeatureSpec {
    /// Histograms of oriented gradients.
    pub gradients: bool,
    /// The mean and deviation of each plane, and the mean of each of its cells.
    pub brightness: bool,
    /// The side of a cell, in pixels.
    pub cell: usize,
}

/// Features of pictures of one size, as they were fitted.
///
/// Gradients are those of [Dalal and Triggs (2005)](https://doi.org/10.1109/CVPR.2005.177): in each cell how much brightness changes in each
/// of nine directions, interpolated between directions and between cells, and each block of two by two cells brought to one length
/// ("L2-Hys"), so that what counts is the form of an edge and not the light on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureFeatures {
    channels: usize,
    height: usize,
    width: usize,
    gradients: bool,
    brightness: bool,
    cell: usize,
    /// The mean and the deviation of each feature in training.
    usual: Vec<(f32, f32)>,
}

impl PictureFeatures {
    /// Learns from the training pictures what is usual for each feature; a network reads them by the same `scale`.
    ///
    /// # Errors
    /// When nothing is asked for, or the cells do not fit the pictures.
    pub fn fit(spec: &PictureFeatureSpec, train: &Images, scale: &Scale) -> Result<Self> {
        let PictureFeatureSpec { gradients, brightness, cell } = *spec;
        let Images { channels, height, width, .. } = *train;
        let mut features = Self { channels, height, width, gradients, brightness, cell, usual: vec![] };
        features.check()?;
        ensure!(!train.is_empty(), "there is no picture to fit features on");
        let rows = (0..train.len()).map(|place| {
            let mut values = vec![0.0; train.each()];
            train.write(place, scale, &mut values);
            features.raw(&values).into_iter().map(f64::from).collect::<Vec<f64>>()
        });
        let known = usual(rows, features.count());
        features.usual = known.into_iter().map(|(mean, deviation)| (mean as f32, deviation as f32)).collect();
        Ok(features)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.usual.len()
    }

    pub fn is_empty(&self) -> bool {
        self.usual.is_empty()
    }

    /// Channels, height and width of the pictures.
    pub fn picture(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// The features of a picture as a network reads it, scaled and plane after plane: standardized, and divided by the root of their number,
    /// so that a picture's are of about length one together, as the n-grams of a text are.
    ///
    /// # Panics
    /// When it is no picture of [`PictureFeatures::picture`].
    pub fn of(&self, values: &[f32]) -> Vec<f32> {
        assert_eq!(
            values.len(),
            self.picture().iter().product::<usize>(),
            "the features are of pictures of {:?}",
            self.picture()
        );
        let share = 1.0 / (self.len() as f32).sqrt();
        let usual = self.usual.iter().map(|(mean, deviation)| (f64::from(*mean), f64::from(*deviation)));
        self.raw(values).into_iter().zip(usual).map(|(value, usual)| share * standardized(f64::from(value), usual)).collect()
    }

    /// The features of some pictures, picture after picture.
    ///
    /// # Panics
    /// As [`PictureFeatures::of`], and when there is no such picture.
    pub fn of_all(&self, images: &Images, places: &[usize], scale: &Scale) -> Vec<f32> {
        let mut values = vec![0.0; images.each()];
        let one = |&place: &usize| {
            images.write(place, scale, &mut values);
            self.of(&values)
        };
        places.iter().flat_map(one).collect()
    }

    /// Reads what [`PictureFeatures::save`] wrote.
    ///
    /// # Errors
    /// When the file is missing, too large or damaged.
    pub fn load(path: &Path) -> Result<Self> {
        let text = danlu_files::read_text_bounded(path, FILE_LIMIT)?;
        let describes = || format!("{} does not describe features of pictures", path.display());
        let features: Self = serde_json::from_str(&text).with_context(describes)?;
        features.check().with_context(describes)?;
        let (known, wanted) = (features.len(), features.count());
        ensure!(known == wanted, "{} knows {known} features, and there are {wanted}", path.display());
        let usable = |(mean, deviation): &(f32, f32)| mean.is_finite() && deviation.is_finite() && *deviation > 0.0;
        ensure!(features.usual.iter().all(usable), "{}: a mean or a deviation cannot be used", path.display());
        Ok(features)
    }

    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        danlu_files::write_atomic_bytes(path, &serde_json::to_vec(self)?)
    }

    fn check(&self) -> Result<()> {
        let (sides, cell) = ([self.height, self.width], self.cell);
        ensure!(self.gradients || self.brightness, "no feature is asked for; give `features.gradients` or `features.brightness`");
        ensure!(
            [1, 3].contains(&self.channels) && sides.iter().all(|side| (1..=4096).contains(side)),
            "pictures of {}×{} with {} channels",
            self.height,
            self.width,
            self.channels
        );
        let least = if self.gradients { BLOCK } else { 1 };
        ensure!(
            cell > 0 && sides.iter().all(|side| side / cell >= least),
            "`features.cell` is {cell}, and pictures of {}×{} must have {least} cells along each side at least",
            self.height,
            self.width
        );
        ensure!(self.count() <= MOST_FEATURES, "{} features are more than there may be; raise `features.cell`", self.count());
        Ok(())
    }

    /// Rows and columns of cells; what is left at the right and below is in none.
    fn grid(&self) -> [usize; 2] {
        [self.height / self.cell, self.width / self.cell]
    }

    fn count(&self) -> usize {
        let [rows, columns] = self.grid();
        let gradients = (rows + 1).saturating_sub(BLOCK) * (columns + 1).saturating_sub(BLOCK) * BLOCK * BLOCK * BINS;
        let brightness = self.channels * (2 + rows * columns);
        usize::from(self.gradients) * gradients + usize::from(self.brightness) * brightness
    }

    fn raw(&self, values: &[f32]) -> Vec<f32> {
        let mut all = Vec::with_capacity(self.count());
        if self.gradients {
            self.blocks(&self.histograms(values), &mut all);
        }
        if self.brightness {
            values.chunks_exact(self.height * self.width).for_each(|plane| self.levels(plane, &mut all));
        }
        all
    }

    /// Of each cell how much brightness changes in each direction, `[rows × columns × BINS]`. Of coloured pictures the plane that changes most
    /// counts at each pixel.
    fn histograms(&self, values: &[f32]) -> Vec<f32> {
        let (height, width, [rows, columns]) = (self.height, self.width, self.grid());
        let mut cells = vec![0.0; rows * columns * BINS];
        for y in 0..height {
            let (above, below) = (y.saturating_sub(1), (y + 1).min(height - 1));
            let in_rows = parts((y as f32 + 0.5) / self.cell as f32 - 0.5);
            for x in 0..width {
                let (left, right) = (x.saturating_sub(1), (x + 1).min(width - 1));
                let change = |plane: &[f32]| {
                    let across = plane[y * width + right] - plane[y * width + left];
                    let down = plane[below * width + x] - plane[above * width + x];
                    (across * across + down * down, across, down)
                };
                let planes = values.chunks_exact(height * width).map(change);
                let (square, across, down) = planes.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default();
                if square == 0.0 {
                    continue;
                }
                let turn = (down.atan2(across) / std::f32::consts::PI).rem_euclid(1.0);
                let in_bins = parts(turn * BINS as f32 - 0.5);
                let in_columns = parts((x as f32 + 0.5) / self.cell as f32 - 0.5);
                for (row, of_row) in in_rows.into_iter().filter(|(row, _)| (0..rows as isize).contains(row)) {
                    for (column, of_column) in in_columns.into_iter().filter(|(c, _)| (0..columns as isize).contains(c)) {
                        let cell = (row as usize * columns + column as usize) * BINS;
                        for (bin, of_bin) in in_bins {
                            cells[cell + bin.rem_euclid(BINS as isize) as usize] += square.sqrt() * of_row * of_column * of_bin;
                        }
                    }
                }
            }
        }
        cells
    }

    /// The cells of each block together.
    fn blocks(&self, cells: &[f32], all: &mut Vec<f32>) {
        let [rows, columns] = self.grid();
        for row in 0..=rows - BLOCK {
            for column in 0..=columns - BLOCK {
                let begin = all.len();
                for row in row..row + BLOCK {
                    all.extend_from_slice(&cells[(row * columns + column) * BINS..][..BLOCK * BINS]);
                }
                normalize(&mut all[begin..]);
            }
        }
    }

    fn levels(&self, plane: &[f32], all: &mut Vec<f32>) {
        let mean = plane.iter().sum::<f32>() / plane.len() as f32;
        let variance = plane.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / plane.len() as f32;
        all.extend([mean, variance.sqrt()]);
        let [rows, columns] = self.grid();
        for cell in 0..rows * columns {
            let (top, left) = (cell / columns * self.cell, cell % columns * self.cell);
            let sum: f32 = (top..top + self.cell).flat_map(|y| &plane[y * self.width + left..][..self.cell]).sum();
            all.push(sum / (self.cell * self.cell) as f32);
        }
    }
}

/// The whole places on both sides of a position, with the share that each has of it.
fn parts(position: f32) -> [(isize, f32); 2] {
    let (first, above) = (position.floor(), position - position.floor());
    [(first as isize, 1.0 - above), (first as isize + 1, above)]
}

/// To a length of one, or less where there is little but noise, without one direction that outweighs all others.
fn normalize(block: &mut [f32]) {
    let length = |block: &[f32]| block.iter().map(|x| x * x).sum::<f32>().sqrt();
    let before = length(block);
    let floored = before.hypot(FLOOR);
    block.iter_mut().for_each(|x| *x = (*x / floored).min(MOST));
    let cut = length(block);
    if cut > 0.0 {
        block.iter_mut().for_each(|x| *x *= before / floored / cut);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures of 8×8 whose right half, or whose lower half, is brighter by `step`.
    fn edge(across: bool, step: f32) -> Vec<f32> {
        (0..64).map(|i| if (if across { i % 8 } else { i / 8 }) < 4 { 0.0 } else { step }).collect()
    }

    fn features(gradients: bool, brightness: bool) -> PictureFeatures {
        let count = 36 * usize::from(gradients) + 6 * usize::from(brightness);
        PictureFeatures { channels: 1, height: 8, width: 8, gradients, brightness, cell: 4, usual: vec![(0.0, 1.0); count] }
    }

    #[test]
    fn gradients_say_where_an_edge_points_whatever_the_light() {
        let features = features(true, false);
        // From bin to bin of each of the four cells.
        let bins = |values: &[f32]| -> Vec<f32> {
            let raw = features.raw(values);
            assert_eq!(raw.len(), 36);
            (0..BINS).map(|bin| raw.iter().skip(bin).step_by(BINS).map(|x| x * x).sum()).collect()
        };
        // The middle of the fifth of nine bins is a right angle; no angle at all lies between the last and the first.
        let (across, down) = (bins(&edge(true, 1.0)), bins(&edge(false, 1.0)));
        assert!(down[4] > 0.95 && across[0] > 0.45 && (across[0] - across[8]).abs() < 1e-5, "{down:?} {across:?}");
        for other in [edge(true, -1.0), edge(true, 3.0)] {
            let gap = bins(&other).iter().zip(&across).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(gap < 0.05, "{gap}");
        }
        assert!(bins(&[0.7; 64]).iter().all(|x| *x == 0.0), "one brightness has no edge");
        let faint: f32 = bins(&edge(true, 0.001)).iter().sum();
        assert!(faint < 0.01, "noise is not made as strong as an edge: {faint}");
    }

    #[test]
    fn brightness_is_of_the_plane_and_of_its_cells() {
        let raw = features(false, true).raw(&edge(true, 2.0));
        assert_eq!(raw, [1.0, 1.0, 0.0, 2.0, 0.0, 2.0]);
    }

    #[test]
    fn they_are_standardized_and_survive_the_file() {
        let mut images = Images::empty(3, 9, 8);
        for i in 0..12u32 {
            let picture: Vec<u8> = (0..216u32).map(|at| ((at * (i + 3)) % (50 + 17 * i)) as u8).collect();
            images.push(&picture, 0);
        }
        let scale = Scale::of(&images);
        let spec = PictureFeatureSpec { gradients: true, brightness: true, cell: 4 };
        let features = PictureFeatures::fit(&spec, &images, &scale).unwrap();
        assert_eq!((features.len(), features.picture()), (36 + 3 * 6, [3, 9, 8]));
        let all = features.of_all(&images, &(0..12).collect::<Vec<_>>(), &scale);
        for feature in 0..features.len() {
            let (sum, squares) = all.iter().skip(feature).step_by(54).fold((0.0, 0.0), |(a, b), x| (a + x, b + x * x));
            let squares = squares * 54.0;
            assert!(sum.abs() < 1e-4 && (squares < 1e-4 || (squares - 12.0).abs() < 0.02), "{feature}: {sum} {squares}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("features.json");
        features.save(&path).unwrap();
        assert_eq!(PictureFeatures::load(&path).unwrap(), features);
        let text = std::fs::read_to_string(&path).unwrap();
        let check = |from: &str, to: &str, says: &str| {
            std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
            let error = format!("{:#}", PictureFeatures::load(&path).unwrap_err());
            assert!(error.contains(says), "{error}");
        };
        check("\"cell\":4", "\"cell\":0", "`features.cell` is 0");
        check("\"width\":8", "\"width\":80", "there are");
        check("\"width\":8", "\"width\":99999999999", "pictures of 9×99999999999");
        let none = PictureFeatureSpec { gradients: false, brightness: false, cell: 4 };
        assert!(PictureFeatures::fit(&none, &images, &scale).unwrap_err().to_string().contains("no feature is asked for"));
        let large = PictureFeatureSpec { cell: 5, ..spec };
        assert!(PictureFeatures::fit(&large, &images, &scale).unwrap_err().to_string().contains("2 cells"));
    }
}
