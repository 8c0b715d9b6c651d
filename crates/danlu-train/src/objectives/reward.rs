//! Learning what people would prefer: a score for any answer, from pairs of a better and a worse one.

use std::time::Instant;

use anyhow::{Result, ensure};
use burn::tensor::Tensor;
use danlu_data::preference::{Answer, EncodedPair};
use danlu_data::sampler::shuffled;
use danlu_data::tokenizer::Tokenizer;
use danlu_eval::{Measure, brier, calibration_error, interval};
use danlu_models::{Batch, RewardModel};

use super::preference::{PREFERENCE_ACCURACY, bradley_terry, numbers, shown};
use super::{Loss, Objective, Sample, Shown};
use crate::auto::Plan;

/// Bradley and Terry's model of preference ([Ouyang et al. 2022](https://arxiv.org/abs/2203.02155)): the better answer is preferred with the
/// probability `σ(reward of the better − reward of the worse)`.
pub struct Reward {
    train: Vec<EncodedPair>,
    held_out: Vec<EncodedPair>,
    center: f64,
    tokenizer: Tokenizer,
    seed: u64,
    micro_rows: usize,
    recompute: bool,
}

/// Rows of one piece.
#[derive(Debug, Clone)]
pub struct RewardBatch {
    rows: Vec<usize>,
    /// Of each row the chosen answer and the rejected one, each after its prompt.
    answers: Batch,
}

impl Reward {
    /// # Errors
    /// When there is nothing to learn from or to measure with.
    pub fn new(plan: &Plan, train: Vec<EncodedPair>, held_out: Vec<EncodedPair>, tokenizer: Tokenizer) -> Result<Self> {
        ensure!(!train.is_empty(), "there is no pair to learn from");
        ensure!(!held_out.is_empty(), "no pair is held out to measure with; raise `data.held_out` or give more");
        let recipe = &plan.recipe;
        Ok(Self {
            train,
            held_out,
            center: recipe.preference.center,
            tokenizer,
            seed: recipe.seed,
            micro_rows: plan.micro_rows,
            recompute: recipe.batch.recompute,
        })
    }

    /// The pair at a position of the run.
    pub fn row(&self, position: u64) -> usize {
        shuffled(position, self.train.len() as u64, self.seed) as usize
    }
}

/// What is read of each pair, a chosen answer before its rejected one.
fn answers<'a>(pairs: impl Iterator<Item = &'a EncodedPair>) -> Vec<&'a Answer> {
    pairs.flat_map(|pair| [&pair.chosen, &pair.rejected]).collect()
}

/// The scores of each pair, `[pairs]` twice.
fn sides(scores: Tensor<1>) -> [Tensor<1>; 2] {
    let pairs = scores.dims()[0] / 2;
    let both = scores.reshape([pairs, 2]);
    [0, 1].map(|side| both.clone().narrow(1, side, 1).reshape([pairs]))
}

fn mean(x: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = x.len().max(1) as f64;
    x.sum::<f64>() / count
}

impl Objective for Reward {
    type Model = RewardModel;
    type Batch = RewardBatch;

    fn batch(&self, position: u64) -> Result<RewardBatch> {
        let rows: Vec<usize> = (position..position + self.micro_rows as u64).map(|position| self.row(position)).collect();
        let all = answers(rows.iter().map(|&row| &self.train[row]));
        let texts: Vec<&[u32]> = all.iter().map(|answer| &answer.ids[..]).collect();
        Ok(RewardBatch { answers: Batch::documents(&texts).sharing(), rows })
    }

    fn targets(&self, batch: &RewardBatch) -> usize {
        batch.rows.len()
    }

    fn loss(&self, model: &RewardModel, batch: &RewardBatch) -> Loss {
        let [chosen, rejected] = sides(model.scores(&batch.answers, self.recompute));
        let margins: Vec<f32> = batch.rows.iter().map(|&row| self.train[row].margin).collect();
        let (better, worse) = (numbers(chosen.clone()), numbers(rejected.clone()));
        let right = better.iter().zip(&worse).filter(|(better, worse)| better > worse).count();
        let report = vec![
            ("accuracy", right as f64 / better.len() as f64),
            ("margin", mean(better.iter().zip(&worse).map(|(better, worse)| better - worse))),
            ("reward_chosen", mean(better.iter().copied())),
            ("reward_rejected", mean(worse.iter().copied())),
        ];
        Loss { value: bradley_terry(chosen, rejected, &margins, self.center).mean(), report }
    }

    fn masks(&self) -> bool {
        true
    }

    /// The last token of each answer is where it is scored.
    fn show(&self, batch: &RewardBatch) -> Result<Shown> {
        let answers = answers(std::iter::once(&self.train[batch.rows[0]]));
        shown(&self.tokenizer, answers, |answer, i| i + 1 == answer.ids.len())
    }

    fn held_out_tokens(&self) -> u64 {
        self.held_out.iter().map(|pair| pair.tokens() as u64).sum()
    }

    /// The share of held-out pairs whose better answer gets the larger reward, a tie counting half; and, of the probabilities that the rewards
    /// stand for, the Brier score (of "the better answer is preferred") and the expected calibration error (of the answer found likelier).
    fn measure(&self, model: &RewardModel, tokens: u64) -> Result<Measure> {
        let begun = Instant::now();
        let every = (self.held_out_tokens() / tokens.max(1)).max(1) as usize;
        let taken: Vec<&EncodedPair> = self.held_out.iter().step_by(every).collect();
        let texts: Vec<&[u32]> = answers(taken.iter().copied()).iter().map(|answer| &answer.ids[..]).collect();
        let scores = model.score(&texts)?;
        let margins: Vec<f64> = scores.as_chunks().0.iter().map(|[better, worse]| f64::from(better - worse)).collect();
        let probability = |margin: f64| 1.0 / (1.0 + (-margin).exp());
        let hit = |margin: f64| if margin == 0.0 { 0.5 } else { f64::from(margin > 0.0) };
        let hits: Vec<(f64, f64)> = margins.iter().map(|&margin| (hit(margin), 1.0)).collect();
        let likelier: Vec<(f64, bool)> = margins.iter().map(|&margin| (probability(margin.abs()), margin > 0.0)).collect();
        let better: Vec<(f64, bool)> = margins.iter().map(|&margin| (probability(margin), true)).collect();
        let (low, high) = interval(&hits);
        Ok(Measure {
            unit: PREFERENCE_ACCURACY,
            value: mean(hits.iter().map(|hit| hit.0)),
            low,
            high,
            items: taken.len() as u64,
            tokens: taken.iter().map(|pair| pair.tokens() as u64).sum(),
            bytes: 0,
            seconds: begun.elapsed().as_secs_f64(),
            others: vec![
                ("brier", brier(&better)),
                ("calibration_error", calibration_error(&likelier)),
                ("margin", mean(margins.iter().copied())),
                // ln(1 + e^-m) without overflow.
                ("held_out_loss", mean(margins.iter().map(|&m| (-m).max(0.0) + (-m.abs()).exp().ln_1p()))),
            ],
        })
    }

    /// A reward model writes nothing.
    fn samples(&self, _: &RewardModel, _: u64) -> Result<Vec<Sample>> {
        Ok(vec![])
    }
}
