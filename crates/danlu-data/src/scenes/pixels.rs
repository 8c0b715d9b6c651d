//! A picture with transparency, to be drawn at any size.

/// Colours times opacity, and opacity, of 255 each; what is transparent is black. Each level has half the size of the one before, so that a
/// small copy is made of means and not of single pixels (mipmaps, Williams 1983).
pub(super) struct Pixels {
    levels: Vec<Level>,
}

struct Level {
    height: usize,
    width: usize,
    rgba: Vec<[u8; 4]>,
}

/// No level is made below this many pixels a side.
const LEAST: usize = 8;
/// A pixel of what is drawn stands for at most this many of the level it is drawn from, along each side.
const STEP: f64 = 1.5;

impl Pixels {
    /// From pixels row after row, their colours times their opacity.
    pub fn new(height: usize, width: usize, rgba: Vec<[u8; 4]>) -> Self {
        let mut levels = vec![Level { height, width, rgba }];
        while let Some(last) = levels.last().filter(|last| last.height.min(last.width) >= 2 * LEAST) {
            let half = last.half();
            levels.push(half);
        }
        Self { levels }
    }

    pub fn height(&self) -> usize {
        self.levels[0].height
    }

    pub fn width(&self) -> usize {
        self.levels[0].width
    }

    pub fn rgba(&self) -> &[[u8; 4]] {
        &self.levels[0].rgba
    }

    /// With half as many pixels a side, until neither has more than `most`, or few.
    pub fn within(self, most: usize) -> Self {
        let mut whole = self;
        while whole.height().max(whole.width()) > most.max(LEAST) {
            let Level { height, width, rgba } = whole.levels[0].half();
            whole = Self::new(height, width, rgba);
        }
        whole
    }

    /// The level from which to draw at `scale` times the size.
    pub fn level(&self, scale: f64) -> usize {
        let (mut level, mut step) = (0, 1.0 / scale);
        while step > STEP && level + 1 < self.levels.len() {
            (level, step) = (level + 1, step / 2.0);
        }
        level
    }

    /// What is at a place, in pixels of the whole picture, between the four nearest of a level; nothing outside.
    pub fn at(&self, level: usize, x: f64, y: f64) -> [f32; 4] {
        let shrink = 1.0 / (1u64 << level) as f64;
        let level = &self.levels[level];
        let (x, y) = (x * shrink - 0.5, y * shrink - 0.5);
        let (left, top) = (x.floor(), y.floor());
        let (right_share, down_share) = ((x - left) as f32, (y - top) as f32);
        let mut sum = [0.0; 4];
        for (down, row_share) in [(0, 1.0 - down_share), (1, down_share)] {
            for (right, share) in [(0, 1.0 - right_share), (1, right_share)] {
                let pixel = level.pixel(top as i64 + down, left as i64 + right);
                let share = share * row_share;
                sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += share * f32::from(value));
            }
        }
        sum
    }
}

impl Level {
    fn pixel(&self, y: i64, x: i64) -> [u8; 4] {
        let (Ok(y), Ok(x)) = (usize::try_from(y), usize::try_from(x)) else { return [0; 4] };
        if y < self.height && x < self.width { self.rgba[y * self.width + x] } else { [0; 4] }
    }

    /// The means of four pixels each; at an odd edge the missing ones are transparent.
    fn half(&self) -> Self {
        let (height, width) = (self.height.div_ceil(2), self.width.div_ceil(2));
        let mut rgba = Vec::with_capacity(height * width);
        for y in 0..height as i64 {
            for x in 0..width as i64 {
                let four = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(dy, dx)| self.pixel(2 * y + dy, 2 * x + dx));
                rgba.push(std::array::from_fn(|c| ((four.iter().map(|pixel| u32::from(pixel[c])).sum::<u32>() + 2) / 4) as u8));
            }
        }
        Self { height, width, rgba }
    }
}
