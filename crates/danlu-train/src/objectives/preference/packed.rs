//! Answers in one row of tokens, and their log-probabilities.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use danlu_data::preference::Answer;
use danlu_models::{Batch, Decoder};
use danlu_ops::IGNORE;

/// Prompts with their answers, one after the other, none seeing another.
#[derive(Debug, Clone)]
pub struct Packed {
    batch: Batch,
    /// The tokens that predict each answer.
    spans: Vec<Range<usize>>,
}

impl Packed {
    /// # Panics
    /// When an answer has no token: what encodes answers leaves those out.
    pub fn new<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> Self {
        let (mut ids, mut targets, mut starts, mut spans) = (vec![], vec![], vec![], vec![]);
        for answer in answers {
            let begin = ids.len();
            starts.push(begin as u32);
            // The last token is only predicted.
            let [read @ .., _] = &answer.ids[..] else { panic!("an answer without tokens cannot be read") };
            ids.extend_from_slice(read);
            targets.extend((1..answer.ids.len()).map(|i| if i < answer.prompt { IGNORE } else { answer.ids[i] }));
            spans.push(begin + answer.prompt - 1..ids.len());
        }
        let tokens = ids.len();
        Self { batch: Batch::new(ids, targets, 1, tokens, starts).sharing(), spans }
    }

    pub fn tokens(&self) -> usize {
        self.batch.ids.len()
    }

    /// Tokens of each answer.
    pub fn lengths(&self) -> Vec<f32> {
        self.spans.iter().map(|span| span.len() as f32).collect()
    }

    /// The log-probability of each answer after its prompt, in nats, `[answers]`.
    pub fn log_probs(&self, model: &Decoder, recompute: bool) -> Tensor<1> {
        let tokens = model.log_probs(&self.batch, recompute);
        let sums = self.sums(&tokens.device()).matmul(tokens.reshape([self.tokens(), 1]));
        sums.reshape([self.spans.len()])
    }

    /// The same as numbers. Give it a model without autodiff.
    pub fn log_probs_of(&self, model: &Decoder) -> Vec<f32> {
        let nll = model.token_nll(&self.batch);
        self.spans.iter().map(|span| -nll[span.clone()].iter().map(|&x| f64::from(x)).sum::<f64>() as f32).collect()
    }

    /// One where a token belongs to an answer, `[answers, tokens]`.
    fn sums(&self, device: &Device) -> Tensor<2> {
        let tokens = self.tokens();
        let mut belongs = vec![0f32; self.spans.len() * tokens];
        for (row, span) in belongs.chunks_exact_mut(tokens).zip(&self.spans) {
            row[span.clone()].fill(1.0);
        }
        Tensor::from_data(TensorData::new(belongs, [self.spans.len(), tokens]), device)
    }
}
