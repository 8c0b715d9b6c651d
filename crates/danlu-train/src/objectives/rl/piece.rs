//! A piece of an update, before its answers are drawn and after.

use super::Report;
use super::answers::{Drawn, Row};
use super::losses::Known;

/// Answers of an update that go through the model together; `K` is what an objective knows beside what all know.
pub enum Piece<K> {
    /// Before they are drawn: the row of the run that they begin at.
    Asked(u64),
    Answered(Box<Answered<K>>),
}

/// Answers and what is known of them.
pub struct Answered<K> {
    pub(super) row: Row,
    pub known: Known,
    /// Log-probabilities as the answers were drawn.
    drawn: Vec<f32>,
    /// By what the mean over this piece's tokens is the piece's share of the update's loss.
    pub(super) scale: f64,
    pub(super) more: K,
}

impl<K> Piece<K> {
    /// Of `answers`, which lie in `row`; `total` is how many tokens the answers of the whole update have.
    pub(super) fn new(answers: &[&Drawn], row: Row, known: Known, total: usize, more: K) -> Self {
        let drawn = row.spread(answers.iter().map(|one| &one.log_probs[..]));
        let tokens: usize = answers.iter().map(|one| one.answer_len()).sum();
        let scale = total as f64 / tokens as f64;
        Self::Answered(Box::new(Answered { row, known, drawn, scale, more }))
    }

    pub(super) fn answered(&self) -> &Answered<K> {
        match self {
            Self::Answered(answered) => answered,
            Self::Asked(_) => unreachable!("an update's answers are drawn before its loss"),
        }
    }
}

impl<K> Answered<K> {
    /// Tokens of the answers.
    pub(super) fn tokens(&self) -> usize {
        self.row.spans.iter().map(ExactSizeIterator::len).sum()
    }

    /// How far the trainer's log-probabilities are from those that answers were drawn with: the mean and the largest difference.
    pub(super) fn gap(&self, trained: &[f32]) -> Report {
        let apart = self.drawn.iter().zip(trained).map(|(a, b)| f64::from((a - b).abs()));
        let (sum, largest) = apart.fold((0.0, 0.0), |(sum, largest): (f64, f64), gap| (sum + gap, largest.max(gap)));
        vec![("gap", sum / self.tokens().max(1) as f64), ("gap_largest", largest)]
    }
}
