//! Stronger changes of a picture than a move or a mirror, after RandAugment ([Cubuk et al. 2019](https://arxiv.org/abs/1909.13719)): some
//! operations are drawn from a list, each with a strength, and what they do to places is one matrix, so that values are interpolated once.

use super::augment::{Change, Scale};
use super::{Augment, Images};

/// How far the operations go at a magnitude of one: degrees, shares of a side, shares of a value.
const TURN: f64 = 30.0;
const SHEAR: f64 = 0.3;
const ZOOM: f64 = 0.3;
const ENHANCE: f64 = 0.9;
/// The shares of a picture that a rectangle may have, and its height over its width (Zhong 2017).
const ERASED: [f64; 2] = [0.02, 0.2];
const ASPECT: [f64; 2] = [0.5, 2.0];

/// What a picture goes through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Warp {
    /// Where the value of a place comes from: `[right, down]` of the place, from the picture's middle, is multiplied by these rows.
    from: [[f64; 2]; 2],
    /// Of the difference from the plane's mean.
    contrast: f64,
    brightness: f64,
    /// Top, left, height and width of what is erased.
    erased: Option<[usize; 4]>,
}

const NOTHING: Warp = Warp { from: [[1.0, 0.0], [0.0, 1.0]], contrast: 1.0, brightness: 1.0, erased: None };

impl Warp {
    /// What `augment` draws at a position for pictures of a size; none where it draws nothing.
    pub(super) fn drawn(augment: &Augment, position: u64, height: usize, width: usize) -> Option<Self> {
        // From 0 to below 1, from streams that nothing else is drawn from.
        let draw = |stream: u64| (augment.draw(position, stream) >> 11) as f64 / (1u64 << 53) as f64;
        let between = |stream: u64, [low, high]: [f64; 2]| low + (high - low) * draw(stream);
        let mut warp = NOTHING;
        for operation in 0..augment.operations as u64 {
            let strength = augment.magnitude * between(101 + 2 * operation, [-1.0, 1.0]);
            match (7.0 * draw(100 + 2 * operation)) as u32 {
                0 => {
                    let (sin, cos) = (TURN * strength).to_radians().sin_cos();
                    warp.then([[cos, sin], [-sin, cos]]);
                }
                1 => warp.then([[1.0, SHEAR * strength], [0.0, 1.0]]),
                2 => warp.then([[1.0, 0.0], [SHEAR * strength, 1.0]]),
                3 => {
                    let scale = 1.0 / (1.0 + ZOOM * strength);
                    warp.then([[scale, 0.0], [0.0, scale]]);
                }
                4 => warp.contrast *= 1.0 + ENHANCE * strength,
                5 => warp.brightness *= 1.0 + ENHANCE * strength,
                // As likely as each of the others, so that some pictures are seen as they are.
                _ => {}
            }
        }
        if draw(80) < augment.erase {
            let (area, aspect) = (between(81, ERASED) * (height * width) as f64, between(82, ASPECT));
            let side = |length: f64, most: usize| (length.round() as usize).clamp(1, most.max(1));
            let (rows, columns) = (side((area * aspect).sqrt(), height), side((area / aspect).sqrt(), width));
            let start = |stream: u64, free: usize| (draw(stream) * (free + 1) as f64) as usize;
            warp.erased = Some([start(83, height - rows), start(84, width - columns), rows, columns]);
        }
        (warp != NOTHING).then_some(warp)
    }

    /// Another operation on places: it takes over where those before it lead.
    fn then(&mut self, next: [[f64; 2]; 2]) {
        let before = self.from;
        self.from = std::array::from_fn(|i| std::array::from_fn(|j| next[i][0] * before[0][j] + next[i][1] * before[1][j]));
    }

    /// Writes picture `index`, moved and mirrored by `change` too. What comes in from outside is black; what is erased has the mean of all
    /// pictures, which is zero once scaled.
    pub(super) fn write(&self, images: &Images, index: usize, change: Change, scale: &Scale, to: &mut [f32]) {
        let (height, width) = (images.height, images.width);
        let middle = [(width as f64 - 1.0) / 2.0, (height as f64 - 1.0) / 2.0];
        let planes = images.picture(index).chunks_exact(height * width).zip(to.chunks_exact_mut(height * width));
        for (channel, (from, to)) in planes.enumerate() {
            let mean = from.iter().map(|x| f64::from(*x)).sum::<f64>() / from.len() as f64;
            let pixel = |row: f64, column: f64| {
                let inside = row >= 0.0 && column >= 0.0 && row < height as f64 && column < width as f64;
                if inside { f64::from(from[row as usize * width + column as usize]) } else { 0.0 }
            };
            for (y, row) in to.chunks_exact_mut(width).enumerate() {
                for (x, to) in row.iter_mut().enumerate() {
                    let right = x as f64 - change.right as f64 - middle[0];
                    let right = if change.mirror { -right } else { right };
                    let down = y as f64 - change.down as f64 - middle[1];
                    let [column, line] = [0, 1].map(|i| self.from[i][0] * right + self.from[i][1] * down + middle[i]);
                    let (left, top) = (column.floor(), line.floor());
                    let (across, along) = (column - left, line - top);
                    let between = |row: f64| pixel(row, left) * (1.0 - across) + pixel(row, left + 1.0) * across;
                    let value = between(top) * (1.0 - along) + between(top + 1.0) * along;
                    let value = (mean + (value - mean) * self.contrast) * self.brightness;
                    *to = ((value.clamp(0.0, 255.0) / 255.0 - scale.mean[channel]) / scale.deviation[channel]) as f32;
                }
            }
            if let Some([top, left, rows, columns]) = self.erased {
                to.chunks_exact_mut(width).skip(top).take(rows).for_each(|row| row[left..left + columns].fill(0.0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> (Images, Scale) {
        let mut images = Images::empty(1, 3, 3);
        images.push(&[10, 20, 30, 40, 50, 60, 70, 80, 90], 0);
        (images, Scale { mean: vec![0.0], deviation: vec![1.0 / 255.0] })
    }

    fn written(warp: Warp, change: Change) -> [i32; 9] {
        let (images, scale) = picture();
        let mut to = [0.0; 9];
        warp.write(&images, 0, change, &scale, &mut to);
        to.map(|x| x.round() as i32)
    }

    #[test]
    fn each_part_does_what_it_says() {
        let still = Change::default();
        assert_eq!(written(NOTHING, still), [10, 20, 30, 40, 50, 60, 70, 80, 90]);
        // As the plain way of moving and mirroring has it.
        let change = Change { down: 1, right: -1, mirror: true };
        let (images, scale) = picture();
        let mut plain = [0.0; 9];
        crate::images::augment::write(&images, 0, change, &scale, &mut plain);
        assert_eq!(written(NOTHING, change), plain.map(|x| x.round() as i32));
        // A quarter turn clockwise: what was the first column, from below, is the first row.
        let turned = Warp { from: [[0.0, 1.0], [-1.0, 0.0]], ..NOTHING };
        assert_eq!(written(turned, still), [70, 40, 10, 80, 50, 20, 90, 60, 30]);
        // Half of the way between two values, and black beyond the edge.
        let wide = Warp { from: [[0.5, 0.0], [0.0, 1.0]], ..NOTHING };
        assert_eq!(written(wide, still)[..3], [15, 20, 25]);
        let small = Warp { from: [[3.0, 0.0], [0.0, 3.0]], ..NOTHING };
        assert_eq!(written(small, still), [0, 0, 0, 0, 50, 0, 0, 0, 0]);
        assert_eq!(written(Warp { contrast: 0.0, ..NOTHING }, still), [50; 9]);
        assert_eq!(written(Warp { brightness: 2.0, ..NOTHING }, still)[6..], [140, 160, 180]);
        assert_eq!(written(Warp { erased: Some([1, 0, 2, 2]), ..NOTHING }, still), [10, 20, 30, 0, 0, 60, 0, 0, 90]);
    }

    #[test]
    fn what_is_drawn_follows_from_seed_and_position() {
        let strong = Augment { operations: 2, magnitude: 1.0, erase: 0.5, seed: 3, ..Augment::default() };
        let drawn = |augment: &Augment, position| Warp::drawn(augment, position, 20, 30);
        let all: Vec<Option<Warp>> = (0..400).map(|position| drawn(&strong, position)).collect();
        assert_eq!(all[7], drawn(&strong, 7));
        assert_ne!(all, (0..400).map(|position| drawn(&Augment { seed: 4, ..strong }, position)).collect::<Vec<_>>());
        let erased: Vec<[usize; 4]> = all.iter().filter_map(|warp| warp.and_then(|warp| warp.erased)).collect();
        assert!((140..260).contains(&erased.len()), "half are erased: {}", erased.len());
        for [top, left, rows, columns] in erased {
            assert!(top + rows <= 20 && left + columns <= 30 && rows * columns <= 160, "{top} {left} {rows} {columns}");
        }
        let share = |holds: &dyn Fn(&Warp) -> bool| all.iter().flatten().filter(|warp| holds(warp)).count();
        // Two draws from seven: each operation is in about a quarter of all.
        assert!((50..160).contains(&share(&|warp| warp.contrast != 1.0)));
        assert!((50..160).contains(&share(&|warp| warp.brightness != 1.0)));
        assert!(share(&|warp| warp.from != NOTHING.from) > 200);
        assert!(all.iter().flatten().all(|warp| (0.0..=4.0).contains(&warp.contrast) && (0.0..=4.0).contains(&warp.brightness)));
        assert_eq!(drawn(&Augment { magnitude: 0.0, erase: 0.0, ..strong }, 5), None);
        assert_eq!(drawn(&Augment::default(), 5), None);
    }
}
