//! COCO's average precision and recall ([Lin et al. 2014](https://arxiv.org/abs/1405.0312), as `cocoeval.py` of pycocotools computes them).

use anyhow::{Context, Result};
use danlu_data::scenes::Instance;

use super::detection::{By, Guess, Judged};
use super::matching::{Outcome, Pairing, THRESHOLDS};
use crate::bootstrap::resampled;

/// Levels of recall at which precision is read off.
const RECALLS: usize = 101;
/// Areas of small things end, and of large ones begin, at these, in pixels.
const SMALL: f64 = 32.0 * 32.0;
const LARGE: f64 = 96.0 * 96.0;
const ALL: f64 = 1e10;

/// What COCO reports; none of where no thing is that could be found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detection {
    /// The mean over classes and over overlaps of 0.5 to 0.95 by steps of 0.05 of the average precision, which is the mean over 101 levels of
    /// recall of the best precision at that recall or above.
    pub average_precision: Option<f64>,
    /// At an overlap of 0.5 and of 0.75.
    pub at_50: Option<f64>,
    pub at_75: Option<f64>,
    /// Of things below 32×32 pixels, to 96×96, and above.
    pub small: Option<f64>,
    pub medium: Option<f64>,
    pub large: Option<f64>,
    /// The mean share of things that are found by the surest guesses of each picture and class: 1, 10 and 100 of them; by keypoints 20, for
    /// which all three are the same.
    pub recall_of_1: Option<f64>,
    pub recall_of_10: Option<f64>,
    pub recall: Option<f64>,
    pub recall_at_50: Option<f64>,
    pub recall_at_75: Option<f64>,
    pub recall_small: Option<f64>,
    pub recall_medium: Option<f64>,
    pub recall_large: Option<f64>,
    /// `average_precision` of each class.
    pub classes: Vec<Option<f64>>,
}

/// Compares what is seen in pictures with what is there.
///
/// # Errors
/// When a guess or a thing lacks what is compared, or is of no class.
pub fn detection(pictures: &[Judged], classes: usize, by: &By) -> Result<Detection> {
    for (place, picture) in pictures.iter().enumerate() {
        by.check(picture, classes).with_context(|| format!("in picture {place}"))?;
    }
    let most: [usize; 3] = if matches!(by, By::Keypoints { .. }) { [20; 3] } else { [1, 10, 100] };
    let areas = [(0.0, ALL), (0.0, SMALL), (SMALL, LARGE), (LARGE, ALL)];
    // Of each area, then each number of guesses, the curves of the classes.
    let mut curves: Vec<Vec<Vec<Option<Curve>>>> = vec![vec![vec![]; most.len()]; areas.len()];
    for class in 0..classes as u32 {
        let pairings: Vec<Pairing> = pictures.iter().filter_map(|picture| of_class(picture, class, by, most[2])).collect();
        for (area, curves) in areas.iter().zip(&mut curves) {
            let judged: Vec<(Vec<Outcome>, usize)> = pairings.iter().map(|pairing| pairing.judge(*area)).collect();
            let things: usize = judged.iter().map(|(_, things)| things).sum();
            for (most, curves) in most.iter().zip(curves) {
                let all = surest(&judged, *most);
                curves.push(Curve::of(all.iter().map(|(_, outcome)| (1.0, *outcome)), things as f64));
            }
        }
    }
    let precision = |area: usize, at: Option<usize>| mean(curves[area][2].iter().flatten().map(|curve| curve.precision(at)));
    let recall =
        |area: usize, most: usize, at: Option<usize>| mean(curves[area][most].iter().flatten().map(|curve| curve.recall(at)));
    Ok(Detection {
        average_precision: precision(0, None),
        at_50: precision(0, Some(0)),
        at_75: precision(0, Some(5)),
        small: precision(1, None),
        medium: precision(2, None),
        large: precision(3, None),
        recall_of_1: recall(0, 0, None),
        recall_of_10: recall(0, 1, None),
        recall: recall(0, 2, None),
        recall_at_50: recall(0, 2, Some(0)),
        recall_at_75: recall(0, 2, Some(5)),
        recall_small: recall(1, 2, None),
        recall_medium: recall(2, 2, None),
        recall_large: recall(3, 2, None),
        classes: curves[0][2].iter().map(|curve| curve.as_ref().map(|curve| curve.precision(None))).collect(),
    })
}

/// The 95 % interval of [`Detection::average_precision`] over pictures drawn with replacement, deterministic. Fewer than two pictures say nothing.
///
/// # Errors
/// As [`detection`].
pub fn precision_interval(pictures: &[Judged], classes: usize, by: &By) -> Result<(f64, f64)> {
    for (place, picture) in pictures.iter().enumerate() {
        by.check(picture, classes).with_context(|| format!("in picture {place}"))?;
    }
    if pictures.len() < 2 {
        return Ok((0.0, 1.0));
    }
    let most = if matches!(by, By::Keypoints { .. }) { 20 } else { 100 };
    // What becomes of a guess does not depend on other pictures: it is found once, and a draw says how often each picture counts.
    let judged = |class: u32| -> Vec<(Vec<Outcome>, usize)> {
        let one = |picture| of_class(picture, class, by, most).map_or((vec![], 0), |pairing| pairing.judge((0.0, ALL)));
        pictures.iter().map(one).collect()
    };
    let classes: Vec<Vec<(Vec<Outcome>, usize)>> = (0..classes as u32).map(judged).collect();
    let sorted: Vec<Vec<(usize, &Outcome)>> = classes.iter().map(|judged| surest(judged, most)).collect();
    let precisions = |times: &[f64]| -> Vec<Option<f64>> {
        let classes = classes.iter().zip(&sorted).map(|(judged, sorted)| {
            let things = judged.iter().zip(times).map(|((_, things), times)| *things as f64 * times).sum();
            let counted = sorted.iter().filter(|(picture, _)| times[*picture] > 0.0);
            let curve = Curve::of(counted.map(|(picture, outcome)| (times[*picture], *outcome)), things);
            curve.map(|curve| curve.precision(None))
        });
        classes.collect()
    };
    // A class that no picture of a draw has counts as it does in all of them: without it the mean would be of other classes.
    let whole = precisions(&vec![1.0; pictures.len()]);
    let of_draw = |drawn: &[usize]| {
        let mut times = vec![0.0; pictures.len()];
        drawn.iter().for_each(|&picture| times[picture] += 1.0);
        let classes = whole.iter().zip(precisions(&times));
        mean(classes.filter_map(|(whole, drawn)| Some(drawn.unwrap_or((*whole)?)))).unwrap_or(0.0)
    };
    Ok(resampled(pictures.len(), of_draw))
}

/// The surest `most` guesses of each picture, with the picture's place, the surest of all first.
fn surest(pictures: &[(Vec<Outcome>, usize)], most: usize) -> Vec<(usize, &Outcome)> {
    let mut all: Vec<(usize, &Outcome)> = vec![];
    for (place, (outcomes, _)) in pictures.iter().enumerate() {
        all.extend(outcomes.iter().take(most).map(|outcome| (place, outcome)));
    }
    all.sort_by(|a, b| b.1.score.partial_cmp(&a.1.score).unwrap_or(std::cmp::Ordering::Equal));
    all
}

fn of_class<'a>(picture: &'a Judged, class: u32, by: &By, most: usize) -> Option<Pairing<'a>> {
    let truths: Vec<&Instance> = picture.truths.iter().filter(|truth| truth.class == class).collect();
    let guesses: Vec<&Guess> = picture.guesses.iter().filter(|guess| guess.class == class).collect();
    Pairing::new(by, truths, guesses, most)
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u64), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// The means of a class's precision over levels of recall, and its recall, by threshold.
#[derive(Clone)]
struct Curve {
    precisions: [f64; THRESHOLDS],
    recalls: [f64; THRESHOLDS],
}

impl Curve {
    /// Of guesses, the surest first, each with how often it counts, and so many things; none when no thing counts.
    fn of<'a>(outcomes: impl Iterator<Item = (f64, &'a Outcome)> + Clone, things: f64) -> Option<Self> {
        if things == 0.0 {
            return None;
        }
        let mut curve = Self { precisions: [0.0; THRESHOLDS], recalls: [0.0; THRESHOLDS] };
        let mut points: Vec<(f64, f64)> = vec![];
        for at in 0..THRESHOLDS {
            // A guess that does not count leaves both as they were, and is a point of the curve all the same.
            let (mut right, mut wrong) = (0.0, 0.0);
            points.clear();
            for (times, outcome) in outcomes.clone() {
                if !outcome.ignored[at] {
                    if outcome.matched[at] { right += times } else { wrong += times }
                }
                points.push((right / things, right / (wrong + right + f64::EPSILON)));
            }
            let mut best = 0.0;
            for (_, precision) in points.iter_mut().rev() {
                best = f64::max(best, *precision);
                *precision = best;
            }
            let levels = (0..RECALLS).map(|level| if level + 1 == RECALLS { 1.0 } else { level as f64 * 0.01 });
            let reached = levels.map(|level| points.partition_point(|(recall, _)| *recall < level));
            let sum: f64 = reached.map(|place| points.get(place).map_or(0.0, |(_, precision)| *precision)).sum();
            curve.precisions[at] = sum / RECALLS as f64;
            curve.recalls[at] = points.last().map_or(0.0, |(recall, _)| *recall);
        }
        Some(curve)
    }

    /// At a threshold, or the mean over all.
    fn precision(&self, at: Option<usize>) -> f64 {
        at.map_or_else(|| self.precisions.iter().sum::<f64>() / THRESHOLDS as f64, |at| self.precisions[at])
    }

    fn recall(&self, at: Option<usize>) -> f64 {
        at.map_or_else(|| self.recalls.iter().sum::<f64>() / THRESHOLDS as f64, |at| self.recalls[at])
    }
}
