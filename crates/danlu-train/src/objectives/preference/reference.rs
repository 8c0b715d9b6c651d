//! What the start model thinks of every answer, computed once.

use std::sync::{Mutex, OnceLock, PoisonError};

use danlu_data::preference::Answer;
use danlu_models::Decoder;

use super::packed::Packed;

/// The start model and what it said. A row's answers are read by themselves, so that their log-probabilities are the same bits whichever rows
/// they are trained with, and after a run was interrupted.
pub struct Reference {
    /// Gone when everything is known and nothing new can be asked.
    model: Mutex<Option<Decoder>>,
    known: Vec<OnceLock<Vec<f32>>>,
    keep: bool,
}

impl Reference {
    /// `rows` are all that can be asked for. With `keep` the model stays for other questions.
    pub fn new(model: Decoder, rows: usize, keep: bool) -> Self {
        Self { model: Mutex::new(Some(model)), known: (0..rows).map(|_| OnceLock::new()).collect(), keep }
    }

    /// The log-probability of each answer of a row, in nats.
    pub fn row<'a>(&self, row: usize, answers: impl IntoIterator<Item = &'a Answer>) -> &[f32] {
        if let Some(known) = self.known[row].get() {
            return known;
        }
        let found = self.ask(&Packed::new(answers));
        let found = self.known[row].get_or_init(|| found);
        if !self.keep && self.known.iter().all(|row| row.get().is_some()) {
            self.model.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        found
    }

    /// The log-probability of each answer, in nats, whatever they are.
    pub fn ask(&self, answers: &Packed) -> Vec<f32> {
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        answers.log_probs_of(model.as_ref().expect("the start model stays until every row is known"))
    }
}
