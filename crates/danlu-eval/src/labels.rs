//! Measures of labels: how often they are right, class by class.

/// Right and wrong guesses of each class, from pairs of (what it is, what was guessed).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// `[is × classes + guessed]`.
    counts: Vec<u64>,
}

impl Confusion {
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// # Panics
    /// When a class is not one of them.
    pub fn add(&mut self, is: usize, guessed: usize) {
        assert!(is < self.classes && guessed < self.classes, "class {is} guessed as {guessed} of {}", self.classes);
        self.counts[is * self.classes + guessed] += 1;
    }

    /// Adds what another of the same classes counted.
    ///
    /// # Panics
    /// When it has other classes.
    pub fn add_all(&mut self, other: &Self) {
        assert_eq!(self.classes, other.classes, "counts of the same classes are added");
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
    }

    pub fn count(&self, is: usize, guessed: usize) -> u64 {
        self.counts[is * self.classes + guessed]
    }

    pub fn accuracy(&self) -> f64 {
        let right: u64 = (0..self.classes).map(|class| self.count(class, class)).sum();
        right as f64 / self.counts.iter().sum::<u64>().max(1) as f64
    }

    /// The harmonic mean of precision and recall of one class; zero when it is neither there nor guessed.
    pub fn f1(&self, class: usize) -> f64 {
        let is: u64 = (0..self.classes).map(|guessed| self.count(class, guessed)).sum();
        let guessed: u64 = (0..self.classes).map(|is| self.count(is, class)).sum();
        2.0 * self.count(class, class) as f64 / (is + guessed).max(1) as f64
    }

    /// The intersection over union of one class, Jaccard's index; zero when it is neither there nor guessed.
    pub fn iou(&self, class: usize) -> f64 {
        let either: u64 = (0..self.classes).map(|other| self.count(class, other) + self.count(other, class)).sum();
        let both = self.count(class, class);
        both as f64 / (either - both).max(1) as f64
    }

    /// The mean of [`iou`](Self::iou) over every class that is there or guessed: of pixels, the measure of semantic segmentation.
    pub fn mean_iou(&self) -> f64 {
        self.mean(Self::iou)
    }

    /// The mean of the F1 of every class that is there or guessed, each counting alike however rare it is.
    pub fn macro_f1(&self) -> f64 {
        self.mean(Self::f1)
    }

    /// The classes that are there or guessed.
    pub fn seen(&self) -> Vec<usize> {
        let seen = |class: &usize| (0..self.classes).any(|other| self.count(*class, other) + self.count(other, *class) > 0);
        (0..self.classes).filter(seen).collect()
    }

    fn mean(&self, of: impl Fn(&Self, usize) -> f64) -> f64 {
        let classes = self.seen();
        classes.iter().map(|class| of(self, *class)).sum::<f64>() / classes.len().max(1) as f64
    }
}

/// Pearson's correlation of pairs; zero when one side does not vary.
pub fn correlation(pairs: &[(f64, f64)]) -> f64 {
    let count = pairs.len().max(1) as f64;
    let (a, b) = pairs.iter().fold((0.0, 0.0), |(a, b), pair| (a + pair.0 / count, b + pair.1 / count));
    let (mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0);
    for (x, y) in pairs {
        aa += (x - a) * (x - a);
        bb += (y - b) * (y - b);
        ab += (x - a) * (y - b);
    }
    if aa * bb > 0.0 { ab / (aa * bb).sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_what_scikit_learn_says() {
        // sklearn.metrics on the same: accuracy 0.7; f1_score of the three classes 0.75, 0.75, 0.5; macro 0.6667.
        let is = [0, 0, 0, 1, 1, 1, 1, 2, 2, 2];
        let guessed = [0, 0, 0, 1, 1, 1, 0, 0, 2, 1];
        let mut confusion = Confusion::new(4);
        is.iter().zip(guessed).for_each(|(is, guessed)| confusion.add(*is, guessed));
        assert!((confusion.accuracy() - 0.7).abs() < 1e-12);
        for (class, f1) in [(0, 0.75), (1, 0.75), (2, 0.5), (3, 0.0)] {
            assert!((confusion.f1(class) - f1).abs() < 1e-12, "{class}: {}", confusion.f1(class));
        }
        // The fourth class is neither there nor guessed.
        assert!((confusion.macro_f1() - 2.0 / 3.0).abs() < 1e-12);
        // jaccard_score of the three: 0.6, 0.6, 1/3.
        for (class, iou) in [(0, 0.6), (1, 0.6), (2, 1.0 / 3.0), (3, 0.0)] {
            assert!((confusion.iou(class) - iou).abs() < 1e-12, "{class}: {}", confusion.iou(class));
        }
        assert!((confusion.mean_iou() - (0.6 + 0.6 + 1.0 / 3.0) / 3.0).abs() < 1e-12);
    }

    #[test]
    fn correlation_is_of_shape_and_not_of_size() {
        assert!((correlation(&[(1.0, 10.0), (2.0, 30.0), (3.0, 50.0)]) - 1.0).abs() < 1e-12);
        assert!((correlation(&[(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]) + 1.0).abs() < 1e-12);
        assert_eq!(correlation(&[(1.0, 3.0), (1.0, 2.0)]), 0.0);
    }
}
