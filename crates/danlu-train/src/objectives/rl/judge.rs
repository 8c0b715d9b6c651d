//! Questions are answered and the answers judged.

use anyhow::{Context, Result};
use danlu_data::prompts::Reference;
use danlu_data::tokenizer::Tokenizer;
use danlu_engine::{Completion, Prompt, Rollout, rollout};
use danlu_models::Decoder;
use danlu_rewards::{Answer, Rewards, Score};

use super::answers::Drawn;

/// A question as the model reads it.
#[derive(Debug, Clone)]
pub struct Question {
    pub ids: Vec<u32>,
    pub reference: Reference,
}

/// What answers are drawn and judged by.
pub struct Judge {
    pub rewards: Rewards,
    pub tokenizer: Tokenizer,
    /// Tokens that end an answer.
    pub ends: Vec<u32>,
}

impl Judge {
    /// `spec.samples` answers to each question, which is known to the draws by its number; in the order of questions. The model has no
    /// autodiff, and `spec.ends` is not looked at.
    ///
    /// # Errors
    /// When the model cannot answer, or an answer cannot be judged.
    pub fn answers(&self, model: &Decoder, questions: &[(u64, &Question)], spec: &Rollout) -> Result<Vec<Drawn>> {
        let prompt = |&(index, question): &(u64, &Question)| Prompt { index, ids: question.ids.clone() };
        let prompts: Vec<Prompt> = questions.iter().map(prompt).collect();
        let spec = Rollout { ends: self.ends.clone(), ..spec.clone() };
        let completions = rollout(model, &prompts, &spec).context("answers could not be drawn")?;
        let texts = completions.iter().map(|one| self.decoded(&one.tokens, one.ended)).collect::<Result<Vec<String>>>()?;
        let answers: Vec<Answer> = completions
            .iter()
            .zip(&texts)
            .map(|(one, text)| {
                let reference = &questions[one.prompt].1.reference;
                Answer { text, tokens: one.tokens.len(), ended: one.ended, reference }
            })
            .collect();
        let scores = self.rewards.score(&answers)?;
        let drawn = |(one, score): (Completion, Score)| {
            let Completion { prompt, tokens, log_probs, ended, .. } = one;
            let mut ids = questions[prompt].1.ids.clone();
            let prompt = ids.len();
            ids.extend(tokens);
            Drawn { ids, prompt, log_probs, ended, score }
        };
        Ok(completions.into_iter().zip(scores).map(drawn).collect())
    }

    /// An answer's text, without the token that ended it.
    ///
    /// # Errors
    /// When the tokenizer cannot decode it.
    pub fn text(&self, drawn: &Drawn) -> Result<String> {
        self.decoded(&drawn.ids[drawn.prompt..], drawn.ended)
    }

    fn decoded(&self, tokens: &[u32], ended: bool) -> Result<String> {
        self.tokenizer.decode_text(&tokens[..tokens.len() - usize::from(ended)])
    }
}
