//! Which guess is of which thing, in one picture and one class, as `cocoeval.py` decides it: the surest guess first takes the nearest thing that
//! is left and near enough; things that do not count come last and may take in any number of guesses, which then do not count either.

use danlu_data::scenes::{Instance, Visibility};

use super::detection::{By, Guess};

/// The overlaps that a match needs.
pub(super) const THRESHOLDS: usize = 10;

/// 0.5, 0.55, … 0.95, with the rounding of `numpy.linspace`.
pub(super) fn threshold(index: usize) -> f64 {
    if index + 1 == THRESHOLDS { 0.95 } else { 0.5 + index as f64 * ((0.95 - 0.5) / 9.0) }
}

/// What became of a guess, by threshold.
#[derive(Clone, Copy)]
pub(super) struct Outcome {
    pub score: f64,
    pub matched: [bool; THRESHOLDS],
    /// Neither right nor wrong.
    pub ignored: [bool; THRESHOLDS],
}

/// The things and guesses of a class in a picture, with how near they are to each other.
pub(super) struct Pairing<'a> {
    truths: Vec<&'a Instance>,
    guesses: Vec<&'a Guess>,
    /// `[guess × truths + truth]`.
    overlaps: Vec<f64>,
    areas: Vec<f64>,
    by_points: bool,
}

impl<'a> Pairing<'a> {
    /// The surest `most` guesses; none when neither a thing nor a guess is of the class.
    pub fn new(by: &By, truths: Vec<&'a Instance>, mut guesses: Vec<&'a Guess>, most: usize) -> Option<Self> {
        if truths.is_empty() && guesses.is_empty() {
            return None;
        }
        guesses.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap_or(std::cmp::Ordering::Equal));
        guesses.truncate(most);
        let overlaps = guesses.iter().flat_map(|guess| truths.iter().map(move |truth| by.overlap(guess, truth))).collect();
        let areas = guesses.iter().map(|guess| by.area(guess)).collect();
        Some(Self { truths, guesses, overlaps, areas, by_points: matches!(by, By::Keypoints { .. }) })
    }

    /// What becomes of each guess where only things of an area from `low` to `high` count, and how many things count.
    pub fn judge(&self, (low, high): (f64, f64)) -> (Vec<Outcome>, usize) {
        let outside = |area: f64| area < low || area > high;
        let known = |truth: &Instance| truth.keypoints.iter().any(|point| point.visibility != Visibility::Unknown);
        let unasked = |truth: &Instance| truth.crowd || (self.by_points && !known(truth)) || outside(truth.area);
        let ignored: Vec<bool> = self.truths.iter().map(|truth| unasked(truth)).collect();
        let mut order: Vec<usize> = (0..self.truths.len()).collect();
        order.sort_by_key(|&truth| ignored[truth]);
        let mut outcomes: Vec<Outcome> = (self.guesses.iter().zip(&self.areas))
            .map(|(guess, area)| {
                let ignored = [outside(*area); THRESHOLDS];
                Outcome { score: guess.score, matched: [false; THRESHOLDS], ignored }
            })
            .collect();
        for at in 0..THRESHOLDS {
            let mut taken = vec![false; self.truths.len()];
            for (guess, outcome) in outcomes.iter_mut().enumerate() {
                if let Some(truth) = self.nearest(guess, threshold(at), &order, &ignored, &taken) {
                    taken[truth] = true;
                    outcome.matched[at] = true;
                    outcome.ignored[at] = ignored[truth];
                }
            }
        }
        (outcomes, ignored.iter().filter(|ignored| !**ignored).count())
    }

    fn nearest(&self, guess: usize, threshold: f64, order: &[usize], ignored: &[bool], taken: &[bool]) -> Option<usize> {
        let overlaps = &self.overlaps[guess * self.truths.len()..][..self.truths.len()];
        let (mut best, mut found) = (threshold.min(1.0 - 1e-10), None);
        for &truth in order {
            if taken[truth] && !self.truths[truth].crowd {
                continue;
            }
            // One that counts is found, and from here on none does.
            if found.is_some_and(|found: usize| !ignored[found]) && ignored[truth] {
                break;
            }
            if overlaps[truth] >= best {
                (best, found) = (overlaps[truth], Some(truth));
            }
        }
        found
    }
}
