//! Learning from preferences: directly, without a reward model between.

mod losses;
mod measure;
mod packed;
mod reference;
mod rows;

use std::sync::Arc;

use anyhow::{Context, Result};
use burn::module::Module;
use burn::tensor::Tensor;
use danlu_data::preference::Answer;
use danlu_data::sampler::shuffled;
use danlu_data::tokenizer::Tokenizer;
use danlu_engine::{Generator, Sampling};
use danlu_eval::Measure;
use danlu_models::{Decoder, DecoderConfig};

pub use losses::{Answers, bradley_terry, judged, pairs};
pub use measure::PREFERENCE_ACCURACY;
pub use packed::Packed;
use reference::Reference;
pub use rows::Preferences;
pub(super) use rows::shown;

use super::{Loss, Objective, Report, Sample, Shown};
use crate::auto::Plan;
use crate::recipe::{PreferenceLoss, PreferenceSpec, SampleSpec};

/// Held-out prompts that samples answer.
const PROMPTS: usize = 3;

/// The objective of dpo and its relatives.
pub struct Preference {
    train: Preferences,
    held_out: Preferences,
    spec: PreferenceSpec,
    /// Rows are those of `train`, then those of `held_out`.
    reference: Option<Reference>,
    tokenizer: Tokenizer,
    config: DecoderConfig,
    sample: SampleSpec,
    seed: u64,
    rows: u64,
    micro_rows: usize,
    recompute: bool,
}

/// Rows of one piece.
#[derive(Debug, Clone)]
pub struct PreferenceBatch {
    rows: Vec<usize>,
    answers: Packed,
    /// For kto, each row's prompt with the answer of the row before.
    mismatched: Option<Packed>,
}

impl Preference {
    /// `start` is the model before the first step, without autodiff, for losses that compare with it.
    ///
    /// # Errors
    /// When the examples are not of the kind that the loss learns from, or there are none.
    pub fn new(
        plan: &Plan,
        train: Preferences,
        held_out: Preferences,
        start: Option<Decoder>,
        tokenizer: Tokenizer,
        config: DecoderConfig,
    ) -> Result<Self> {
        let recipe = &plan.recipe;
        let spec = recipe.preference.clone();
        train.check(&held_out, spec.loss, plan.rows)?;
        let reference = match spec.loss.needs_reference() {
            true => {
                let start = start.context("the loss compares with the start model, and there is none")?;
                Some(Reference::new(start, train.len() + held_out.len(), spec.loss == PreferenceLoss::Kto))
            }
            false => None,
        };
        Ok(Self {
            train,
            held_out,
            spec,
            reference,
            tokenizer,
            config,
            sample: recipe.sample.clone(),
            seed: recipe.seed,
            rows: plan.rows as u64,
            micro_rows: plan.micro_rows,
            recompute: recipe.batch.recompute,
        })
    }

    /// The example at a position of the run.
    pub fn row(&self, position: u64) -> usize {
        shuffled(position, self.train.len() as u64, self.seed) as usize
    }

    /// The row of the same update whose answer stands beside the prompt of `position` where kto wants one of another.
    fn other(&self, position: u64) -> usize {
        let begin = position / self.rows * self.rows;
        self.row(begin + (position - begin + self.rows - 1) % self.rows)
    }

    /// What the start model says of rows; nothing for losses that do without.
    fn start(&self, rows: impl Iterator<Item = usize>) -> Vec<f32> {
        let Some(reference) = &self.reference else { return vec![] };
        rows.flat_map(|row| reference.row(row, self.train.answers(row)).to_vec()).collect()
    }

    /// The mean of how much likelier the model finds answers to other prompts than the start model does, in nats.
    fn divergence(&self, model: &Decoder, batch: &PreferenceBatch) -> f64 {
        let (Some(mismatched), Some(reference)) = (&batch.mismatched, &self.reference) else { return 0.0 };
        let (now, then) = (mismatched.log_probs_of(&model.valid()), reference.ask(mismatched));
        let sum: f64 = now.iter().zip(&then).map(|(&now, &then)| f64::from(now) - f64::from(then)).sum();
        sum / now.len() as f64
    }

    /// Losses of the rows of a batch, `[rows]`, and what is worth knowing.
    fn losses(&self, model: &Decoder, batch: &PreferenceBatch) -> (Tensor<1>, Report) {
        let policy = batch.answers.log_probs(model, self.recompute);
        let (reference, lengths) = (self.start(batch.rows.iter().copied()), batch.answers.lengths());
        match &self.train {
            Preferences::Pairs(_) => {
                let side = |i: usize| Answers {
                    policy: policy.clone().reshape([batch.rows.len(), 2]).narrow(1, i, 1).reshape([batch.rows.len()]),
                    reference: reference.iter().skip(i).step_by(2).copied().collect(),
                    lengths: lengths.iter().skip(i).step_by(2).copied().collect(),
                };
                let (chosen, rejected) = (side(0), side(1));
                (pairs(&self.spec, &chosen, &rejected), self.report_pairs(&chosen, &rejected))
            }
            Preferences::Judged(rows) => {
                let good: Vec<bool> = batch.rows.iter().map(|&row| rows[row].good).collect();
                let answers = Answers { policy, reference, lengths };
                let kl = self.divergence(model, batch);
                (judged(&self.spec, &answers, &good, kl), self.report_judged(&answers, &good, kl))
            }
        }
    }

    fn report_pairs(&self, chosen: &Answers, rejected: &Answers) -> Report {
        let (better, worse) = (numbers(chosen.rewards(&self.spec)), numbers(rejected.rewards(&self.spec)));
        let right = better.iter().zip(&worse).filter(|(better, worse)| better > worse).count();
        vec![
            ("accuracy", right as f64 / better.len() as f64),
            ("margin", mean(&better) - mean(&worse)),
            ("reward_chosen", mean(&better)),
            ("reward_rejected", mean(&worse)),
            ("log_prob_chosen", mean(&numbers(chosen.policy.clone()))),
            ("log_prob_rejected", mean(&numbers(rejected.policy.clone()))),
        ]
    }

    fn report_judged(&self, answers: &Answers, good: &[bool], kl: f64) -> Report {
        let rewards = numbers(answers.rewards(&self.spec));
        let right = rewards.iter().zip(good).filter(|(reward, good)| (**reward > 0.0) == **good).count();
        let signed: Vec<f64> = rewards.iter().zip(good).map(|(&reward, &good)| if good { reward } else { -reward }).collect();
        vec![("accuracy", right as f64 / good.len() as f64), ("margin", mean(&signed)), ("kl", kl)]
    }
}

pub(super) fn numbers(x: Tensor<1>) -> Vec<f64> {
    x.inner().into_data().iter::<f64>().collect()
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len().max(1) as f64
}

impl Objective for Preference {
    type Model = Decoder;
    type Batch = PreferenceBatch;

    fn batch(&self, position: u64) -> Result<PreferenceBatch> {
        let positions = position..position + self.micro_rows as u64;
        let rows: Vec<usize> = positions.clone().map(|position| self.row(position)).collect();
        let mismatched = match &self.train {
            Preferences::Judged(judged) => {
                let one = |position| {
                    let (asked, said) = (&judged[self.row(position)].answer, &judged[self.other(position)].answer);
                    let mut ids = asked.ids[..asked.prompt].to_vec();
                    ids.extend_from_slice(&said.ids[said.prompt..]);
                    // Together they may be longer than either; what is over is left out, as it is only measured.
                    ids.truncate((self.config.context() + 1).max(asked.prompt + 1));
                    Answer { ids, prompt: asked.prompt }
                };
                Some(Packed::new(&positions.map(one).collect::<Vec<_>>()))
            }
            Preferences::Pairs(_) => None,
        };
        let answers = Packed::new(rows.iter().flat_map(|&row| self.train.answers(row)));
        Ok(PreferenceBatch { rows, answers, mismatched })
    }

    fn targets(&self, batch: &PreferenceBatch) -> usize {
        batch.rows.len()
    }

    fn loss(&self, model: &Decoder, batch: &PreferenceBatch) -> Loss {
        let (losses, report) = self.losses(model, batch);
        Loss { value: losses.mean(), report }
    }

    fn masks(&self) -> bool {
        true
    }

    fn show(&self, batch: &PreferenceBatch) -> Result<Shown> {
        shown(&self.tokenizer, self.train.answers(batch.rows[0]), |answer, i| i >= answer.prompt)
    }

    fn held_out_tokens(&self) -> u64 {
        self.held_out.all_tokens()
    }

    fn measure(&self, model: &Decoder, tokens: u64) -> Result<Measure> {
        self.measured(&model.valid(), tokens)
    }

    fn samples(&self, model: &Decoder, draw: u64) -> Result<Vec<Sample>> {
        let generator = Generator::new(Arc::new(model.valid()), self.tokenizer.clone()).with_config(&self.config);
        let count = PROMPTS.min(self.held_out.len());
        let one = |i: usize| {
            let answer = self.held_out.answers(i * self.held_out.len() / count)[0];
            let prompt = &answer.ids[..answer.prompt];
            let sampling = Sampling {
                temperature: self.sample.temperature as f32,
                top_p: self.sample.top_p as f32,
                max_tokens: self.sample.tokens,
                seed: self.seed ^ (draw << 16) ^ i as u64,
                ..Sampling::default()
            };
            let mut text = String::new();
            generator.generate_from(prompt, &sampling, |piece| {
                text.push_str(piece);
                std::ops::ControlFlow::Continue(())
            })?;
            Ok(Sample { prompt: self.tokenizer.decode(prompt)?, text })
        };
        (0..count).map(one).collect::<Result<_>>().context("a sample could not be written")
    }
}
