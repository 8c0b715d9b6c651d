//! A trained reward model as a reward. It is no rule of `danlu-rewards`, which knows no tensors, and reads tokens where rules read text.

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use danlu_models::RewardModel;
use danlu_rewards::LearnedSpec;

/// A reward model with how much its word counts.
#[derive(Clone)]
pub struct Scorer {
    model: RewardModel,
    /// The token that ended every answer it learned from.
    end: u32,
    spec: LearnedSpec,
}

impl Scorer {
    /// As in recipes and logs.
    pub const NAME: &'static str = "model";

    /// `model` has no autodiff. It reads what the model that answers reads: with the same tokenizer and template, of which `end` ends turns.
    pub fn new(model: RewardModel, end: u32, spec: &LearnedSpec) -> Self {
        Self { model, end, spec: spec.clone() }
    }

    pub fn weight(&self) -> f64 {
        self.spec.weight
    }

    pub fn parameters(&self) -> u64 {
        self.model.num_params() as u64
    }

    /// Whether answers of up to `most` tokens to a question of `question` tokens can be read.
    ///
    /// # Errors
    /// When they could be longer than the reward model's context.
    pub fn accepts(&self, question: usize, most: usize) -> Result<()> {
        let context = self.model.context();
        // The end of the turn is added to an answer that was cut off.
        ensure!(
            question + most < context,
            "the reward model reads {context} tokens, and the question has {question}, an answer up to {most}, and one ends it: lower \
             `rl.max_tokens`, leave the question out, or use a reward model with a longer context"
        );
        Ok(())
    }

    /// What each answer is worth, before the weight: `texts` are the tokens of a question and its answer, without the token that ended it.
    ///
    /// # Errors
    /// As [`RewardModel::score`].
    pub fn worths(&self, texts: Vec<Vec<u32>>) -> Result<Vec<f64>> {
        let ended: Vec<Vec<u32>> = texts.into_iter().map(|text| text.into_iter().chain([self.end]).collect()).collect();
        let read: Vec<&[u32]> = ended.iter().map(Vec::as_slice).collect();
        let scores = self.model.score(&read).context("the reward model cannot judge the answers")?;
        Ok(scores.into_iter().map(|score| self.spec.form.worth(f64::from(score), self.spec.middle)).collect())
    }
}
