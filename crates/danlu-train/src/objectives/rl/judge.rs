//! Questions are answered and the answers judged.

use anyhow::{Context, Result, ensure};
use danlu_data::prompts::Reference;
use danlu_data::tokenizer::Tokenizer;
use danlu_engine::{Completion, Prompt, Rollout, rollout};
use danlu_models::Decoder;
use danlu_rewards::{Answer, Rewards, RewardsSpec, Score};

use super::answers::Drawn;
use super::scorer::Scorer;

/// A question as the model reads it.
#[derive(Debug, Clone)]
pub struct Question {
    pub ids: Vec<u32>,
    pub reference: Reference,
}

/// What answers are drawn and judged by.
pub struct Judge {
    rewards: Rewards,
    scorer: Option<Scorer>,
    /// The most tokens of an answer.
    most: usize,
    pub tokenizer: Tokenizer,
    /// Tokens that end an answer.
    pub ends: Vec<u32>,
}

impl Judge {
    /// `scorer` is the reward model that `spec` names, where it names one.
    ///
    /// # Errors
    /// As [`Rewards::new`], and when the one is there without the other.
    pub fn new(spec: &RewardsSpec, most: usize, tokenizer: Tokenizer, ends: Vec<u32>, scorer: Option<Scorer>) -> Result<Self> {
        ensure!(
            spec.model.is_some() == scorer.is_some(),
            "what `rewards.model` names and the reward model that was read belong together, and one is there without the other"
        );
        Ok(Self { rewards: Rewards::new(spec, most)?, scorer, most, tokenizer, ends })
    }

    /// What answers are judged by, as in logs, in the order of [`Score::each`].
    pub fn names(&self) -> Vec<&'static str> {
        self.rewards.names().into_iter().chain(self.scorer.as_ref().map(|_| Scorer::NAME)).collect()
    }

    /// Whether answers to a question can be judged.
    ///
    /// # Errors
    /// Names the question, by what it cannot be judged, and why.
    pub fn accepts(&self, question: &Question) -> Result<()> {
        let scored = |scorer: &Scorer| scorer.accepts(question.ids.len(), self.most);
        let accepted = self.rewards.accepts(&question.reference).and_then(|()| self.scorer.as_ref().map_or(Ok(()), scored));
        accepted.with_context(|| format!("in the question {:?}", self.tokenizer.decode(&question.ids).unwrap_or_default()))
    }

    /// `spec.samples` answers to each question, which is known to the draws by its number; in the order of questions. The model has no
    /// autodiff, and `spec.ends` is not looked at.
    ///
    /// # Errors
    /// When the model cannot answer, or an answer cannot be judged.
    pub fn answers(&self, model: &Decoder, questions: &[(u64, &Question)], spec: &Rollout) -> Result<Vec<Drawn>> {
        let prompt = |&(index, question): &(u64, &Question)| Prompt { index, ids: question.ids.clone() };
        let prompts: Vec<Prompt> = questions.iter().map(prompt).collect();
        let spec = Rollout { ends: self.ends.clone(), ..spec.clone() };
        // Keys and values, and all that is as wide as the answers are many, are not what learning needs room for.
        let completions =
            danlu_ops::releasing_buffers(|| rollout(model, &prompts, &spec)).context("answers could not be drawn")?;
        let texts = completions.iter().map(|one| self.decoded(&one.tokens, one.ended)).collect::<Result<Vec<String>>>()?;
        let answers: Vec<Answer> = completions
            .iter()
            .zip(&texts)
            .map(|(one, text)| {
                let reference = &questions[one.prompt].1.reference;
                Answer { text, tokens: one.tokens.len(), ended: one.ended, reference }
            })
            .collect();
        let mut scores = self.rewards.score(&answers)?;
        if let Some(scorer) = &self.scorer {
            let text = |one: &Completion| {
                let written = &one.tokens[..one.tokens.len() - usize::from(one.ended)];
                [&questions[one.prompt].1.ids[..], written].concat()
            };
            let worths = scorer.worths(completions.iter().map(text).collect())?;
            for (score, worth) in scores.iter_mut().zip(worths) {
                score.total += scorer.weight() * worth;
                score.each.push(worth);
            }
        }
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
