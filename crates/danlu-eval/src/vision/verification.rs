//! Whether two things are one: how often the same is accepted, and others with it.

use anyhow::{Result, ensure};

use crate::bootstrap::resampled;

/// The receiver operating characteristic: what a threshold on a score accepts.
#[derive(Clone, Debug, PartialEq)]
pub struct Roc {
    /// From the threshold that accepts nothing to the one that accepts all, one for each score that is there.
    points: Vec<RocPoint>,
}

/// Of pairs whose score is the threshold or more, the shares that are accepted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RocPoint {
    pub threshold: f64,
    /// Of different things.
    pub false_accept: f64,
    /// Of the same thing.
    pub true_accept: f64,
}

impl Roc {
    /// From pairs of a score, higher for what is more alike, and whether it is the same thing.
    ///
    /// # Errors
    /// When there is no pair of the same or none of different things, or a score is no number.
    pub fn of(pairs: &[(f64, bool)]) -> Result<Self> {
        let same = pairs.iter().filter(|(_, same)| *same).count();
        let different = pairs.len() - same;
        ensure!(same > 0 && different > 0, "{same} pairs of the same and {different} of different things: both are needed");
        ensure!(pairs.iter().all(|(score, _)| !score.is_nan()), "a score is no number");
        let sorted = sorted(pairs);
        let mut points = vec![RocPoint { threshold: f64::INFINITY, false_accept: 0.0, true_accept: 0.0 }];
        let (mut of_same, mut of_different) = (0, 0);
        // Equal scores are accepted together.
        for equal in sorted.chunk_by(|a, b| a.0 == b.0) {
            let right = equal.iter().filter(|(_, same)| *same).count();
            (of_same, of_different) = (of_same + right, of_different + equal.len() - right);
            points.push(RocPoint {
                threshold: equal[0].0,
                false_accept: of_different as f64 / different as f64,
                true_accept: of_same as f64 / same as f64,
            });
        }
        Ok(Self { points })
    }

    pub fn points(&self) -> &[RocPoint] {
        &self.points
    }

    /// The area under the curve: how often a pair of the same thing has the higher score than one of different things, equal ones by half
    /// ([Hanley and McNeil 1982](https://doi.org/10.1148/radiology.143.1.7063747)).
    pub fn area(&self) -> f64 {
        let trapezoid =
            |pair: &[RocPoint]| (pair[1].false_accept - pair[0].false_accept) * (pair[1].true_accept + pair[0].true_accept) / 2.0;
        self.points.windows(2).map(trapezoid).sum()
    }

    /// The equal error rate: where as large a share of the same is refused as of others is accepted, on the line between the two points that
    /// it lies between.
    pub fn equal_error(&self) -> f64 {
        let gap = |point: &RocPoint| point.false_accept + point.true_accept - 1.0;
        // The gap grows from -1 to 1, by something at every point.
        let above = self.points.partition_point(|point| gap(point) < 0.0);
        let (before, after) = (&self.points[above - 1], &self.points[above]);
        let share = -gap(before) / (gap(after) - gap(before));
        before.false_accept + share * (after.false_accept - before.false_accept)
    }

    /// The threshold that accepts most of the same, and no more than a share `most_false` of others.
    pub fn at_false_accept(&self, most_false: f64) -> RocPoint {
        let within = self.points.partition_point(|point| point.false_accept <= most_false);
        self.points[within.max(1) - 1]
    }
}

/// The 95 % interval of [`Roc::area`] over pairs drawn with replacement, deterministic. Fewer than two pairs say nothing, and draws that have
/// pairs of one kind only count as one half.
pub fn area_interval(pairs: &[(f64, bool)]) -> (f64, f64) {
    if pairs.len() < 2 {
        return (0.0, 1.0);
    }
    let sorted = sorted(pairs);
    // The pairs are sorted once; a draw says how often each of them counts.
    resampled(sorted.len(), |drawn| {
        let mut times = vec![0u32; sorted.len()];
        drawn.iter().for_each(|&i| times[i] += 1);
        let (mut same, mut others, mut above, mut first) = (0.0, 0.0, 0.0, 0);
        for equal in sorted.chunk_by(|a, b| a.0 == b.0) {
            let times = &times[first..first + equal.len()];
            let of =
                |kind: bool| equal.iter().zip(times).filter(|(pair, _)| pair.1 == kind).map(|(_, &n)| f64::from(n)).sum::<f64>();
            let (right, wrong) = (of(true), of(false));
            above += wrong * (same + right / 2.0);
            (same, others, first) = (same + right, others + wrong, first + equal.len());
        }
        if same * others > 0.0 { above / (same * others) } else { 0.5 }
    })
}

/// The threshold that judges most pairs rightly when scores from it on are taken for the same: halfway between two scores, and the highest of
/// those that are equally good.
pub fn best_threshold(pairs: &[(f64, bool)]) -> f64 {
    let sorted = sorted(pairs);
    // Where nothing is accepted, all pairs of different things are judged rightly.
    let mut right = sorted.iter().filter(|pair| !pair.1).count();
    let (mut best, mut threshold) = (right, f64::INFINITY);
    let mut groups = sorted.chunk_by(|a, b| a.0 == b.0).peekable();
    while let Some(equal) = groups.next() {
        let same = equal.iter().filter(|pair| pair.1).count();
        right = right + same - (equal.len() - same);
        if right > best {
            let below = groups.peek().map_or(equal[0].0, |below| below[0].0);
            (best, threshold) = (right, f64::midpoint(equal[0].0, below));
        }
    }
    threshold
}

/// The share of pairs that are judged rightly by a threshold that was chosen on others, as for Labeled Faces in the Wild
/// ([Huang et al. 2007](http://vis-www.cs.umass.edu/lfw/)): the pairs are dealt out into so many folds, and each fold is judged by the best
/// threshold of all others.
///
/// # Panics
/// When there are fewer than two folds.
pub fn accuracy_by_folds(pairs: &[(f64, bool)], folds: usize) -> f64 {
    assert!(folds >= 2, "with {folds} folds there are no other pairs to choose a threshold on");
    let of = |fold: usize, inside: bool| -> Vec<(f64, bool)> {
        pairs.iter().enumerate().filter(|(i, _)| (i % folds == fold) == inside).map(|(_, pair)| *pair).collect()
    };
    let right = |fold: usize| {
        let threshold = best_threshold(&of(fold, false));
        of(fold, true).into_iter().filter(|(score, same)| (*score >= threshold) == *same).count()
    };
    (0..folds).map(right).sum::<usize>() as f64 / pairs.len().max(1) as f64
}

/// From the highest score down.
fn sorted(pairs: &[(f64, bool)]) -> Vec<(f64, bool)> {
    let mut sorted = pairs.to_vec();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    sorted
}
