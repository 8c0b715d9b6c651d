//! From bytes to what a network reads, changed a little each time.

use rayon::prelude::*;

use super::Images;
use super::operations::Warp;
use crate::sampler::mix;

/// What brings the values of each channel to mean 0 and deviation 1, as shares of full brightness.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    pub mean: Vec<f64>,
    pub deviation: Vec<f64>,
}

impl Scale {
    /// Of all pictures.
    pub fn of(images: &Images) -> Self {
        let plane = images.height * images.width;
        let mut sums = vec![(0u64, 0u64); images.channels];
        for index in 0..images.len() {
            for ((sum, squares), plane) in sums.iter_mut().zip(images.picture(index).chunks_exact(plane)) {
                let (mut one, mut two) = (0u64, 0u64);
                for &pixel in plane {
                    one += u64::from(pixel);
                    two += u64::from(pixel) * u64::from(pixel);
                }
                *sum += one;
                *squares += two;
            }
        }
        let count = (images.len() * plane).max(1) as f64;
        let means: Vec<f64> = sums.iter().map(|(sum, _)| *sum as f64 / count).collect();
        let variance = |((_, squares), mean): (&(u64, u64), &f64)| *squares as f64 / count - mean * mean;
        // Pictures of one brightness have no deviation, and stay what they are.
        let deviation = sums.iter().zip(&means).map(|pair| variance(pair).max(1.0).sqrt() / 255.0).collect();
        Self { mean: means.iter().map(|mean| mean / 255.0).collect(), deviation }
    }

    /// Whether its numbers can be used for pictures with so many channels.
    pub fn fits(&self, channels: usize) -> bool {
        let finite = self.mean.iter().chain(&self.deviation).all(|x| x.is_finite());
        self.mean.len() == channels && self.deviation.len() == channels && finite && self.deviation.iter().all(|x| *x > 0.0)
    }

    /// What each byte of a channel becomes.
    fn table(&self, channel: usize) -> [f32; 256] {
        let (mean, deviation) = (self.mean[channel], self.deviation[channel]);
        std::array::from_fn(|byte| ((byte as f64 / 255.0 - mean) / deviation) as f32)
    }
}

/// How a picture is changed each time that it is seen: a function of the seed and the position in the run, so that a run that goes on sees
/// what one that was never stopped does.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Augment {
    /// Pixels that it moves by at most, up or down and left or right; what comes in is black. A random crop of the padded picture.
    pub shift: usize,
    /// Whether half of the pictures are mirrored.
    pub flip: bool,
    /// Operations that are drawn for each picture: turned, sheared, scaled, of another contrast or brightness, or none of these.
    pub operations: usize,
    /// How strong each is at most, from 0 to 1.
    pub magnitude: f64,
    /// The share of pictures of which a rectangle is erased ([Zhong et al. 2017](https://arxiv.org/abs/1708.04896)).
    pub erase: f64,
    pub seed: u64,
}

/// A change: by how much it moves down and to the right, and whether it is mirrored first.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Change {
    pub(super) down: isize,
    pub(super) right: isize,
    pub(super) mirror: bool,
}

impl Augment {
    /// Whether a picture is the same each time that it is seen.
    pub fn is_still(&self) -> bool {
        self.shift == 0 && !self.flip && self.operations == 0 && self.erase == 0.0
    }

    fn change(&self, position: u64) -> Change {
        let draw = |stream: u64| self.draw(position, stream);
        let moved = |random: u64| {
            let range = 2 * self.shift as u64 + 1;
            (random % range) as isize - self.shift as isize
        };
        Change { down: moved(draw(11)), right: moved(draw(12)), mirror: self.flip && draw(13) & 1 == 1 }
    }

    /// From streams of their own: the order of the data is drawn from another.
    pub(super) fn draw(&self, position: u64, stream: u64) -> u64 {
        mix(self.seed, position, stream)
    }

    /// Writes picture `index` as it is seen at `position` of the run.
    ///
    /// # Panics
    /// When there is no such picture, or `to` has not its size.
    pub fn write(&self, images: &Images, index: usize, position: u64, scale: &Scale, to: &mut [f32]) {
        let change = self.change(position);
        match Warp::drawn(self, position, images.height, images.width) {
            None => write(images, index, change, scale, to),
            Some(warp) => {
                assert_eq!(to.len(), images.each(), "a picture has as many values");
                warp.write(images, index, change, scale, to);
            }
        }
    }
}

/// Another thread is worth waking for so many values.
const TOGETHER: usize = 1 << 16;

impl Augment {
    /// The pictures `rows` as they are seen from `position` of the run on, one after the other. Threads share them out, which changes nothing:
    /// each is a function of its position.
    ///
    /// # Panics
    /// When there is no such picture.
    pub fn write_all(&self, images: &Images, rows: &[usize], position: u64, scale: &Scale) -> Vec<f32> {
        let each = images.each();
        let mut values = vec![0.0; rows.len() * each];
        let pictures =
            values.par_chunks_exact_mut(each.max(1)).zip(rows).enumerate().with_min_len(TOGETHER.div_ceil(each.max(1)));
        pictures.for_each(|(i, (to, &row))| self.write(images, row, position + i as u64, scale, to));
        values
    }
}

impl Images {
    /// Writes a picture as it is.
    ///
    /// # Panics
    /// As [`Augment::write`].
    pub fn write(&self, index: usize, scale: &Scale, to: &mut [f32]) {
        write(self, index, Change::default(), scale, to);
    }
}

pub(super) fn write(images: &Images, index: usize, change: Change, scale: &Scale, to: &mut [f32]) {
    assert_eq!(to.len(), images.each(), "a picture has as many values");
    let (height, width) = (images.height, images.width);
    let planes = images.picture(index).chunks_exact(height * width).zip(to.chunks_exact_mut(height * width));
    for (channel, (from, to)) in planes.enumerate() {
        let table = scale.table(channel);
        for (y, row) in to.chunks_exact_mut(width).enumerate() {
            let source = y.checked_add_signed(-change.down).filter(|y| *y < height);
            let Some(source) = source.map(|y| &from[y * width..][..width]) else {
                row.fill(table[0]);
                continue;
            };
            for (x, to) in row.iter_mut().enumerate() {
                let x = x.checked_add_signed(-change.right).filter(|x| *x < width);
                let x = x.map(|x| if change.mirror { width - 1 - x } else { x });
                *to = table[x.map_or(0, |x| usize::from(source[x]))];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_drawn_from_the_position_and_do_what_they_say() {
        let mut images = Images::empty(1, 2, 3);
        images.push(&[1, 2, 3, 4, 5, 6], 0);
        // One grey value is one, so that what is written is what the picture has.
        let scale = Scale { mean: vec![0.0], deviation: vec![1.0 / 255.0] };
        let written = |down, right, mirror| {
            let mut to = [9.0; 6];
            write(&images, 0, Change { down, right, mirror }, &scale, &mut to);
            to.map(|x| x.round() as i32)
        };
        assert_eq!(written(0, 0, false), [1, 2, 3, 4, 5, 6]);
        assert_eq!(written(0, 0, true), [3, 2, 1, 6, 5, 4]);
        assert_eq!(written(1, 0, false), [0, 0, 0, 1, 2, 3]);
        assert_eq!(written(-1, 1, false), [0, 4, 5, 0, 0, 0]);
        assert_eq!(written(0, -2, true), [1, 0, 0, 4, 0, 0]);
        let augment = Augment { shift: 2, flip: true, seed: 7, ..Augment::default() };
        let all: Vec<Change> = (0..400).map(|position| augment.change(position)).collect();
        assert_eq!(all[37], augment.change(37));
        assert!((140..260).contains(&all.iter().filter(|change| change.mirror).count()), "half are mirrored");
        for shift in -2..=2 {
            assert!(all.iter().any(|change| change.down == shift) && all.iter().any(|change| change.right == shift));
        }
        assert_eq!(Augment::default().change(5), Change::default());
        // Many at once are what each is alone: of so many that threads share them out.
        let rows = vec![0; 60_000];
        let values = augment.write_all(&images, &rows, 3, &scale);
        for (i, picture) in values.chunks_exact(6).enumerate() {
            let mut alone = [0.0; 6];
            augment.write(&images, 0, 3 + i as u64, &scale, &mut alone);
            assert_eq!(picture, alone);
        }
    }

    #[test]
    fn scaled_pictures_have_mean_zero_and_deviation_one() {
        let mut images = Images::empty(2, 1, 2);
        images.push(&[0, 100, 7, 7], 0);
        images.push(&[50, 250, 7, 7], 0);
        let scale = Scale::of(&images);
        assert!(scale.fits(2) && !scale.fits(1));
        let mut values = [0.0; 8];
        let (first, second) = values.split_at_mut(4);
        images.write(0, &scale, first);
        images.write(1, &scale, second);
        let of_first: Vec<f64> = [0, 1, 4, 5].iter().map(|&i| f64::from(values[i])).collect();
        let mean = of_first.iter().sum::<f64>() / 4.0;
        let variance = of_first.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 4.0;
        assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5, "{mean} {variance}");
        assert!([2, 3, 6, 7].iter().all(|&i| values[i].abs() < 1e-5), "a channel of one brightness is zero: {values:?}");
    }
}
