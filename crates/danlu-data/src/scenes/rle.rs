//! Masks as runs, the way COCO keeps them: down each column, column after column, how many pixels are out, then in, then out.
//!
//! A mask costs what its outline is long, and none of these operations makes a picture of it but [`Rle::bitmap`].

use anyhow::{Result, bail, ensure};

/// Which pixels of a picture belong to a thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rle {
    height: u32,
    width: u32,
    /// Runs that are out and in by turns, beginning with out; none is empty but the first. They come to `height × width`.
    counts: Vec<u32>,
}

impl Rle {
    /// From runs as a file has them.
    ///
    /// # Errors
    /// When they do not come to the size of the picture.
    pub fn new(height: u32, width: u32, counts: &[u32]) -> Result<Self> {
        let (pixels, all) = (u64::from(height) * u64::from(width), counts.iter().map(|&n| u64::from(n)).sum::<u64>());
        ensure!(pixels < 1 << 31, "a mask of {height}×{width} has more pixels than are counted");
        ensure!(all == pixels, "the runs of a mask come to {all} pixels, and its picture of {height}×{width} has {pixels}");
        Ok(Self::of_runs(height, width, counts.iter().copied()))
    }

    /// Runs that are known to fit; empty ones are joined to their neighbours.
    pub(super) fn of_runs(height: u32, width: u32, runs: impl Iterator<Item = u32>) -> Self {
        let mut counts: Vec<u32> = vec![];
        for (place, run) in runs.enumerate() {
            // After an empty run that was left out, what follows is of the same side as what the list ends with.
            if counts.len() % 2 == place % 2 {
                if run > 0 || place == 0 {
                    counts.push(run);
                }
            } else if let Some(last) = counts.last_mut() {
                *last += run;
            }
        }
        if counts.is_empty() {
            counts.push(0);
        }
        Self { height, width, counts }
    }

    /// From whether each pixel, by its row and column, is inside.
    pub fn of_bitmap(height: u32, width: u32, inside: impl Fn(u32, u32) -> bool) -> Self {
        let (mut counts, mut run, mut now) = (vec![], 0, false);
        for x in 0..width {
            for y in 0..height {
                if inside(y, x) != now {
                    counts.push(run);
                    (run, now) = (0, !now);
                }
                run += 1;
            }
        }
        counts.push(run);
        Self { height, width, counts }
    }

    /// From COCO's text of runs: five bits a character, the sixth says that more follow; from the third run on the difference to the run
    /// two before.
    ///
    /// # Errors
    /// When it is no such text, or its runs do not come to the size of the picture.
    pub fn of_text(height: u32, width: u32, text: &str) -> Result<Self> {
        let mut counts: Vec<u32> = vec![];
        let (mut value, mut bits) = (0i64, 0);
        for (at, byte) in text.bytes().enumerate() {
            let six = i64::from(byte) - 48;
            ensure!((0..64).contains(&six), "character {at} of a mask's text is no part of one");
            // Seven characters hold what any difference of two runs needs.
            ensure!(bits < 35, "a number in a mask's text goes on for too long, at character {at}");
            value |= (six & 31) << bits;
            bits += 5;
            if six & 32 != 0 {
                continue;
            }
            if six & 16 != 0 {
                value |= -1 << bits;
            }
            let before = if counts.len() > 2 { i64::from(counts[counts.len() - 2]) } else { 0 };
            let Ok(count) = u32::try_from(value + before) else {
                bail!("run {} of a mask's text is {}, which is no length", counts.len(), value + before);
            };
            counts.push(count);
            (value, bits) = (0, 0);
        }
        ensure!(bits == 0, "a mask's text ends in the middle of a number");
        Self::new(height, width, &counts)
    }

    /// What [`of_text`](Self::of_text) reads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (i, &count) in self.counts.iter().enumerate() {
            let mut value = i64::from(count) - if i > 2 { i64::from(self.counts[i - 2]) } else { 0 };
            loop {
                let five = (value & 31) as u8;
                value >>= 5;
                let more = if five & 16 != 0 { value != -1 } else { value != 0 };
                text.push(char::from(48 + five + if more { 32 } else { 0 }));
                if !more {
                    break;
                }
            }
        }
        text
    }

    pub fn height(&self) -> u32 {
        self.height
    }

    pub fn width(&self) -> u32 {
        self.width
    }

    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// Runs that are inside: where each begins, counted down the columns, and how long it is.
    pub fn runs(&self) -> impl Iterator<Item = (u32, u32)> {
        let mut at = 0;
        self.counts.iter().enumerate().filter_map(move |(place, &count)| {
            let begin = at;
            at += count;
            (place % 2 == 1).then_some((begin, count))
        })
    }

    /// Row and column of every pixel inside.
    pub fn pixels(&self) -> impl Iterator<Item = (u32, u32)> {
        let height = self.height;
        self.runs().flat_map(move |(begin, count)| (begin..begin + count).map(move |at| (at % height, at / height)))
    }

    /// Whether each pixel is inside, row after row.
    pub fn bitmap(&self) -> Vec<bool> {
        let mut all = vec![false; self.height as usize * self.width as usize];
        for (y, x) in self.pixels() {
            all[y as usize * self.width as usize + x as usize] = true;
        }
        all
    }

    /// Pixels inside.
    pub fn area(&self) -> u32 {
        self.counts.iter().skip(1).step_by(2).sum()
    }

    /// The smallest box round the pixels inside, as x and y of its corner, width and height; zeros of an empty mask.
    pub fn bbox(&self) -> [f64; 4] {
        let (mut left, mut top, mut right, mut bottom) = (self.width, self.height, 0, 0);
        for (begin, count) in self.runs() {
            let last = begin + count - 1;
            let (first_column, last_column) = (begin / self.height, last / self.height);
            left = left.min(first_column);
            right = right.max(last_column + 1);
            let (first, end) =
                if first_column == last_column { (begin % self.height, last % self.height + 1) } else { (0, self.height) };
            top = top.min(first);
            bottom = bottom.max(end);
        }
        if right == 0 {
            return [0.0; 4];
        }
        [left, top, right - left, bottom - top].map(f64::from)
    }

    /// Pixels inside both, and inside either.
    ///
    /// # Panics
    /// When they are of pictures of different sizes.
    pub fn overlap(&self, other: &Self) -> (u32, u32) {
        assert_eq!((self.height, self.width), (other.height, other.width), "masks of one picture");
        let mut both = 0;
        let (mut a, mut b) = (self.runs().peekable(), other.runs().peekable());
        while let (Some(&(a_at, a_long)), Some(&(b_at, b_long))) = (a.peek(), b.peek()) {
            let (a_end, b_end) = (a_at + a_long, b_at + b_long);
            both += a_end.min(b_end).saturating_sub(a_at.max(b_at));
            if a_end <= b_end {
                a.next();
            } else {
                b.next();
            }
        }
        (both, self.area() + other.area() - both)
    }

    /// The pixels inside either.
    ///
    /// # Panics
    /// When they are of pictures of different sizes.
    pub fn union(&self, other: &Self) -> Self {
        assert_eq!((self.height, self.width), (other.height, other.width), "masks of one picture");
        let mut runs: Vec<(u32, u32)> = self.runs().chain(other.runs()).collect();
        runs.sort_unstable();
        let (mut counts, mut end) = (vec![], 0);
        for (begin, count) in runs {
            if begin > end || counts.is_empty() {
                counts.extend([begin - end, count]);
                end = begin + count;
            } else if let Some(last) = counts.last_mut().filter(|_| begin + count > end) {
                *last += begin + count - end;
                end = begin + count;
            }
        }
        counts.push(self.height * self.width - end);
        Self::of_runs(self.height, self.width, counts.into_iter())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(height: u32, width: u32, pixels: &[u8]) -> Rle {
        Rle::of_bitmap(height, width, |y, x| pixels[(y * width + x) as usize] > 0)
    }

    #[test]
    fn runs_go_down_the_columns() {
        let mask = of(2, 3, &[0, 1, 1, 0, 1, 0]);
        assert_eq!(mask.counts(), [2, 3, 1]);
        assert_eq!((mask.area(), mask.bbox()), (3, [1.0, 0.0, 2.0, 2.0]));
        assert_eq!(mask.pixels().collect::<Vec<_>>(), [(0, 1), (1, 1), (0, 2)]);
        // The text of pycocotools.
        assert_eq!(mask.text(), "231");
        let empty = of(2, 2, &[0; 4]);
        assert_eq!((empty.counts(), empty.bbox(), empty.text().as_str()), (&[4][..], [0.0; 4], "4"));
        assert_eq!(of(2, 2, &[1; 4]).counts(), [0, 4]);
        assert_eq!(of(1, 4, &[0, 1, 0, 1]).bbox(), [1.0, 0.0, 3.0, 1.0]);
    }

    #[test]
    fn what_a_file_says_of_a_mask_is_not_believed() {
        let says = |result: Result<Rle>, what: &str| {
            let error = format!("{:#}", result.unwrap_err());
            assert!(error.contains(what), "{error}");
        };
        says(Rle::new(2, 2, &[3, 2]), "come to 5 pixels");
        says(Rle::new(2, 2, &[u32::MAX, u32::MAX]), "8589934590 pixels");
        says(Rle::new(u32::MAX, u32::MAX, &[1]), "more pixels than are counted");
        says(Rle::of_text(2, 2, "\u{7f}"), "character 0");
        says(Rle::of_text(2, 2, "oooooooooo"), "too long");
        says(Rle::of_text(2, 2, "o"), "middle of a number");
        // A negative run: -1 is written as "O".
        says(Rle::of_text(2, 2, "O"), "-1, which is no length");
        says(Rle::of_text(2, 2, ""), "come to 0 pixels");
        assert_eq!(Rle::new(2, 2, &[1, 0, 1, 2, 0]).unwrap(), of(2, 2, &[0, 1, 0, 1]));
        assert_eq!(Rle::new(2, 2, &[0, 0, 4]).unwrap().counts(), [4]);
    }

    proptest! {
        #[test]
        fn a_mask_is_what_it_was_made_from(height in 1u32..9, width in 1u32..9, a in any::<[u8; 64]>(), b in any::<[u8; 64]>()) {
            let bits = |all: &[u8; 64]| -> Vec<u8> { all[..(height * width) as usize].iter().map(|x| x & 1).collect() };
            let (a, b) = (bits(&a), bits(&b));
            let (one, two) = (of(height, width, &a), of(height, width, &b));
            let bitmap: Vec<u8> = one.bitmap().into_iter().map(u8::from).collect();
            prop_assert_eq!(&bitmap, &a);
            prop_assert_eq!(&Rle::of_text(height, width, &one.text()).unwrap(), &one);
            prop_assert_eq!(&Rle::new(height, width, one.counts()).unwrap(), &one);
            let count = |f: &dyn Fn(u8, u8) -> bool| a.iter().zip(&b).filter(|(a, b)| f(**a, **b)).count() as u32;
            prop_assert_eq!(one.area(), count(&|a, _| a > 0));
            prop_assert_eq!(one.overlap(&two), (count(&|a, b| a & b > 0), count(&|a, b| a | b > 0)));
            let either: Vec<u8> = a.iter().zip(&b).map(|(a, b)| a | b).collect();
            prop_assert_eq!(one.union(&two), of(height, width, &either));
            // The box holds all of the mask and touches it on every side.
            let [left, top, wide, high] = one.bbox();
            let rows: Vec<u32> = one.pixels().map(|(y, _)| y).collect();
            let columns: Vec<u32> = one.pixels().map(|(_, x)| x).collect();
            if let (Some(&y0), Some(&y1), Some(&x0), Some(&x1)) =
                (rows.iter().min(), rows.iter().max(), columns.iter().min(), columns.iter().max())
            {
                prop_assert_eq!([left, top, wide, high], [x0, y0, x1 - x0 + 1, y1 - y0 + 1].map(f64::from));
            }
        }

        #[test]
        fn no_text_makes_the_reader_fall(text in "[0-o]{0,12}|\\PC{0,6}", height in 0u32..5, width in 0u32..5) {
            if let Ok(mask) = Rle::of_text(height, width, &text) {
                prop_assert_eq!(Rle::of_text(height, width, &mask.text()).unwrap(), mask);
            }
        }
    }
}
