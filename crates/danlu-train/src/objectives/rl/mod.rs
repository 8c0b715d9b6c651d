//! Reinforcement learning: the model answers questions, rules say what the answers are worth, and what was better than expected becomes
//! likelier. Answers are drawn with the weights that are trained, by the operations that train them.

mod advantage;
mod answers;
mod grouped;
mod judge;
mod losses;
mod piece;
mod ppo;
mod scorer;

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use danlu_data::sampler::shuffled;
use danlu_engine::{Rollout, Sampling};
use danlu_eval::{Better, Measure, Unit, interval};
use danlu_models::{Decoder, DecoderConfig};

pub use advantage::{gae, grouped, leave_one_out, whiten};
pub use answers::Drawn;
pub use grouped::Grouped;
pub use judge::{Judge, Question};
pub use losses::{Known, Ratio, clipped, divergence, value};
pub use piece::Piece;
pub use ppo::{ActorCritic, KlControl, Ppo};
pub use scorer::Scorer;

use super::{Objective, Report, Sample, Shown};
use crate::auto::{Examples, Plan, resolve_examples};
use crate::outline::Outline;
use crate::recipe::{ObjectiveKind, Recipe, RlSpec, SampleSpec};
use advantage::{deviation, mean};

/// What answers to held-out questions are worth, each drawn once as in training.
pub const REWARD: Unit = Unit { name: "reward", label: "held-out reward", better: Better::Higher };

/// Held-out questions that samples answer.
const SHOWN: usize = 3;
/// Draws of measures are those of no step.
const MEASURING: u64 = u64::MAX;

/// Answers of an update when the recipe does not say.
const ANSWERS: usize = 64;
/// Tokens that go through the model at once when the recipe does not say.
const PIECE: usize = 1024;

/// A plan whose rows are answers to `questions`: an update holds whole groups, in equal pieces.
///
/// # Errors
/// When given values do not fit each other.
pub fn planned(recipe: &Recipe, questions: &[Question], config: &DecoderConfig, gemm_rate: f64) -> Result<Plan> {
    let mut recipe = recipe.clone();
    let asked = questions.iter().map(|one| one.ids.len()).sum::<usize>() / questions.len().max(1);
    let tokens = (asked + recipe.rl.max_tokens).min(config.context());
    let samples = recipe.rl.samples;
    let wanted = recipe.batch.examples.unwrap_or(ANSWERS).next_multiple_of(samples);
    let fit = (recipe.batch.micro_tokens.unwrap_or(PIECE) / tokens).clamp(1, wanted);
    let micro = (1..=fit).rev().find(|rows| wanted.is_multiple_of(*rows)).unwrap_or(1);
    (recipe.batch.examples, recipe.batch.micro_tokens) = (Some(wanted), Some(micro * tokens));
    let examples = Examples { count: (questions.len() * samples) as u64, tokens, usual_batch: wanted };
    resolve_examples(&recipe, Outline::from(config), &examples, config.flops_per_token(tokens), gemm_rate)
}

/// An objective that a [`Game`] is learned by.
pub trait Learner: Objective + Sized {
    /// `start` is the decoder before the first step, without autodiff, where the recipe keeps near to it.
    ///
    /// # Errors
    /// When the recipe does not suit the objective.
    fn new(game: Game, kind: ObjectiveKind, start: Option<Decoder>) -> Result<Self>;

    /// What is trained, around a decoder.
    fn model(decoder: Decoder) -> Self::Model;

    fn decoder(model: &Self::Model) -> &Decoder;
}

/// Everything that answers are drawn and judged by.
pub struct Game {
    train: Vec<Question>,
    held_out: Vec<Question>,
    judge: Judge,
    names: Vec<&'static str>,
    spec: RlSpec,
    sample: SampleSpec,
    seed: u64,
    rows: usize,
    micro_rows: usize,
    /// Tokens that go through the model at once.
    piece: usize,
    recompute: bool,
}

impl Game {
    /// # Errors
    /// When there are no questions on a side, one cannot be judged, or an update would hold parts of groups.
    pub fn new(plan: &Plan, train: Vec<Question>, held_out: Vec<Question>, judge: Judge) -> Result<Self> {
        let recipe = &plan.recipe;
        ensure!(!train.is_empty(), "there is no question to learn from");
        ensure!(!held_out.is_empty(), "no question is held out to measure with; raise `data.held_out` or give more");
        train.iter().chain(&held_out).try_for_each(|question| judge.accepts(question))?;
        let samples = recipe.rl.samples;
        ensure!(
            plan.rows.is_multiple_of(samples),
            "an update of {} answers cannot hold whole groups of {samples}; make `batch.examples` a multiple of `rl.samples`",
            plan.rows
        );
        Ok(Self {
            train,
            held_out,
            names: judge.names(),
            judge,
            spec: recipe.rl.clone(),
            sample: recipe.sample.clone(),
            seed: recipe.seed,
            rows: plan.rows,
            micro_rows: plan.micro_rows,
            piece: plan.micro_rows * plan.row_len,
            recompute: recipe.batch.recompute,
        })
    }

    fn rollout(&self, samples: usize, sampling: Sampling, step: u64) -> Rollout {
        Rollout { samples, max_tokens: self.spec.max_tokens, sampling, seed: self.seed, step, ..Rollout::default() }
    }

    /// As it is trained: from the model's own distribution.
    fn own() -> Sampling {
        Rollout::default().sampling
    }

    fn question(&self, group: u64) -> &Question {
        &self.train[shuffled(group, self.train.len() as u64, self.seed) as usize]
    }

    /// The answers of the update of `step`, whose first row is at `position`; groups follow one another.
    fn draw(&self, model: &Decoder, position: u64, step: u64) -> Result<Vec<Drawn>> {
        let samples = self.spec.samples as u64;
        let groups = position / samples..(position + self.rows as u64) / samples;
        let questions: Vec<(u64, &Question)> = groups.map(|group| (group, self.question(group))).collect();
        self.judge.answers(model, &questions, &self.rollout(self.spec.samples, Self::own(), step))
    }

    /// Every n-th of the held-out questions.
    fn held_out(&self, every: usize) -> Vec<(u64, &Question)> {
        let every = every.max(1);
        self.held_out.iter().step_by(every).enumerate().map(|(index, question)| (index as u64, question)).collect()
    }

    /// What is worth knowing about the answers of an update.
    fn report(&self, drawn: &[Drawn]) -> Report {
        let rewards: Vec<f64> = drawn.iter().map(|one| one.score.total).collect();
        let useful = advantage::useful(&rewards, self.spec.samples);
        let tokens: usize = drawn.iter().map(Drawn::answer_len).sum();
        let share = |count: usize, of: usize| count as f64 / of.max(1) as f64;
        let surprise: f64 = drawn.iter().flat_map(|one| &one.log_probs).map(|&x| -f64::from(x)).sum();
        let mut report = vec![
            ("reward", mean(&rewards)),
            ("reward_deviation", deviation(&rewards)),
            ("answer_tokens", share(tokens, drawn.len())),
            ("ended", share(drawn.iter().filter(|one| one.ended).count(), drawn.len())),
            // The mean surprise of what was drawn is the entropy, in expectation.
            ("entropy", surprise / tokens.max(1) as f64),
            ("useful_groups", share(useful.iter().filter(|useful| **useful).count(), useful.len())),
        ];
        report.extend(self.of_rules(drawn));
        report
    }

    /// The mean of each rule, where there are several.
    fn of_rules(&self, drawn: &[Drawn]) -> Report {
        let mean = |i: usize| drawn.iter().map(|one| one.score.each[i]).sum::<f64>() / drawn.len().max(1) as f64;
        let rules = self.names.iter().enumerate().map(|(i, name)| (*name, mean(i)));
        if self.names.len() > 1 { rules.collect() } else { vec![] }
    }

    /// A question as the model sees it, with a mark where its answer, which is not written yet, will carry loss.
    fn show<K>(&self, piece: &Piece<K>) -> Result<Shown> {
        let Piece::Asked(position) = piece else { bail!("answers are shown as samples") };
        let question = self.question(position / self.spec.samples as u64);
        let tokenizer = &self.judge.tokenizer;
        let token = |&id: &u32| Ok((id, tokenizer.decode(&[id])?, false));
        let mut tokens = question.ids.iter().map(token).collect::<Result<Vec<_>>>()?;
        let end = self.judge.ends.first().copied().unwrap_or_else(|| tokenizer.end_of_text());
        tokens.push((end, "⟨what the model answers⟩".into(), true));
        Ok(Shown { text: tokenizer.decode(&question.ids)? + "⟨what the model answers⟩", tokens, starts: vec![0] })
    }

    fn targets<K>(&self, piece: &Piece<K>) -> usize {
        match piece {
            Piece::Asked(_) => self.micro_rows,
            Piece::Answered(answered) => answered.tokens(),
        }
    }

    fn held_out_tokens(&self) -> u64 {
        self.held_out.iter().map(|one| (one.ids.len() + self.spec.max_tokens) as u64).sum()
    }

    /// Answers held-out questions of about `tokens` tokens, evenly taken and always with the same draws.
    fn measure(&self, model: &Decoder, tokens: u64) -> Result<Measure> {
        let begun = Instant::now();
        let questions = self.held_out((self.held_out_tokens() / tokens.max(1)) as usize);
        let drawn = self.judge.answers(model, &questions, &self.rollout(1, Self::own(), MEASURING))?;
        let pairs: Vec<(f64, f64)> = drawn.iter().map(|one| (one.score.total, 1.0)).collect();
        let (low, high) = interval(&pairs);
        let report = self.report(&drawn).into_iter().filter(|(name, _)| ["answer_tokens", "ended", "entropy"].contains(name));
        Ok(Measure {
            unit: REWARD,
            value: drawn.iter().map(|one| one.score.total).sum::<f64>() / drawn.len() as f64,
            low,
            high,
            items: drawn.len() as u64,
            tokens: drawn.iter().map(|one| one.ids.len() as u64).sum(),
            bytes: 0,
            seconds: begun.elapsed().as_secs_f64(),
            others: report.chain(self.of_rules(&drawn)).collect(),
        })
    }

    fn samples(&self, model: &Decoder, draw: u64) -> Result<Vec<Sample>> {
        let mut questions = self.held_out(self.held_out.len() / SHOWN);
        questions.truncate(SHOWN);
        let (temperature, top_p) = (self.sample.temperature as f32, self.sample.top_p as f32);
        let spec = self.rollout(1, Sampling { temperature, top_p, ..Self::own() }, draw);
        let drawn = self.judge.answers(model, &questions, &spec).context("a sample could not be written")?;
        let prompt = |one: &Drawn| self.judge.tokenizer.decode(&one.ids[..one.prompt]);
        drawn.iter().map(|one| Ok(Sample { prompt: prompt(one)?, text: self.judge.text(one)? })).collect()
    }
}
