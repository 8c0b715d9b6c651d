//! Answers to the same question compared with each other: GRPO ([Shao et al. 2024](https://arxiv.org/abs/2402.03300)) with what was found
//! since (Dr. GRPO, DAPO, GSPO), and RLOO ([Ahmadian et al. 2024](https://arxiv.org/abs/2402.14740)). No value head.

use std::sync::OnceLock;

use anyhow::{Result, ensure};
use burn::module::Module;
use danlu_eval::Measure;
use danlu_models::Decoder;

use super::answers::{Drawn, Row, log_probs, pieces};
use super::losses::{Known, Ratio, at_first, clipped, divergence, numbers};
use super::piece::Piece;
use super::{Game, Learner, advantage};
use crate::objectives::{Loss, Objective, Report, Sample, Shown};
use crate::recipe::{LossAverage, ObjectiveKind, RatioOf};

/// The objective of grpo and rloo.
pub struct Grouped {
    game: Game,
    kind: ObjectiveKind,
    /// The model before the first step, without autodiff.
    start: Option<Decoder>,
}

/// Log-probabilities as the trainer computes them before the weights move: kept by the first pass over the piece.
type Old = OnceLock<Vec<f32>>;

impl Learner for Grouped {
    fn new(game: Game, kind: ObjectiveKind, start: Option<Decoder>) -> Result<Self> {
        ensure!(
            game.spec.samples > 1,
            "`rl.samples` is 1, and grpo and rloo compare answers to the same question; give 2 or more, or use ppo"
        );
        ensure!(game.spec.kl == 0.0 || start.is_some(), "`rl.kl` compares with the start model, and there is none");
        ensure!(game.spec.kl_target.is_none(), "`rl.kl_target` is ppo's; here `rl.kl` is fixed");
        let start = start.filter(|_| game.spec.kl > 0.0);
        Ok(Self { game, kind, start })
    }

    fn model(decoder: Decoder) -> Decoder {
        decoder
    }

    fn decoder(model: &Decoder) -> &Decoder {
        model
    }
}

impl Grouped {
    /// What each answer did better than the others of its group. `kl` is each one's divergence from the start model, which rloo counts
    /// as a cost.
    fn advantages(&self, drawn: &[Drawn], kl: &[f64]) -> Vec<f64> {
        let spec = &self.game.spec;
        let rewards = drawn.iter().map(|one| one.score.total);
        if self.kind == ObjectiveKind::Rloo {
            let rewards: Vec<f64> = rewards.zip(kl).map(|(reward, kl)| reward - spec.kl * kl).collect();
            return advantage::leave_one_out(&rewards, spec.samples);
        }
        advantage::grouped(&rewards.collect::<Vec<_>>(), spec.samples, spec.scale)
    }

    /// The share of each token of each answer in the loss.
    fn weights(&self, drawn: &[Drawn]) -> Vec<f64> {
        let spec = &self.game.spec;
        let counts = |one: &Drawn| one.ended || !spec.skip_truncated;
        let tokens: usize = drawn.iter().filter(|one| counts(one)).map(Drawn::answer_len).sum();
        let average = if self.kind == ObjectiveKind::Rloo { LossAverage::Sequence } else { spec.average };
        let weight = |one: &Drawn| match average {
            _ if !counts(one) => 0.0,
            LossAverage::Token => 1.0 / tokens as f64,
            LossAverage::Sequence => 1.0 / (one.answer_len() * drawn.len()) as f64,
            LossAverage::Fixed => 1.0 / (spec.max_tokens * drawn.len()) as f64,
        };
        drawn.iter().map(weight).collect()
    }

    fn ratio(&self) -> Ratio {
        match (self.kind, self.game.spec.ratio) {
            (ObjectiveKind::Rloo, _) => Ratio::Whole,
            (_, RatioOf::Token) => Ratio::Token,
            (_, RatioOf::Sequence) => Ratio::Mean,
        }
    }

    /// Whether the divergence is part of the loss.
    fn diverges(&self) -> bool {
        self.kind != ObjectiveKind::Rloo && self.start.is_some()
    }

    /// The pieces that answers are learned from.
    pub fn answered(&self, drawn: &[Drawn]) -> (Vec<Piece<Old>>, Report) {
        let all: Vec<&Drawn> = drawn.iter().collect();
        let start = self.start.as_ref().map(|start| log_probs(start, &all, self.game.piece)).unwrap_or_default();
        let kl: Vec<f64> = drawn.iter().zip(&start).map(|(one, start)| kl_of(&one.log_probs, start)).collect();
        let (advantages, weights) = (self.advantages(drawn, &kl), self.weights(drawn));
        // An answer that is as good as expected moves nothing, unless it keeps near the start.
        let moves = |i: usize| weights[i] != 0.0 && (advantages[i] != 0.0 || self.diverges());
        let kept: Vec<usize> = (0..drawn.len()).filter(|&i| moves(i)).collect();
        let kept_drawn: Vec<&Drawn> = kept.iter().map(|&i| &drawn[i]).collect();
        let total: usize = kept_drawn.iter().map(|one| one.answer_len()).sum();
        let made = pieces(&kept_drawn, self.game.piece).into_iter().map(|piece| {
            let (indices, answers) = (&kept[piece.clone()], &kept_drawn[piece]);
            let row = Row::new(answers);
            let even = |numbers: &[f64]| {
                let each: Vec<Vec<f32>> = indices.iter().map(|&i| vec![numbers[i] as f32; drawn[i].answer_len()]).collect();
                row.spread(each.iter().map(Vec::as_slice))
            };
            let (weights, advantages) = (even(&weights), even(&advantages));
            let start = if self.diverges() { row.spread(indices.iter().map(|&i| &start[i][..])) } else { vec![] };
            let known = Known { weights, advantages, start, spans: row.spans.clone() };
            Piece::new(answers, row, known, total, Old::new())
        });
        let mut report = self.game.report(drawn);
        if self.start.is_some() {
            let tokens: usize = drawn.iter().map(Drawn::answer_len).sum();
            report.push(("kl", kl.iter().sum::<f64>() / tokens.max(1) as f64));
            report.push(("kl_answer", advantage::mean(&kl)));
        }
        (made.collect(), report)
    }
}

/// The estimate of an answer's divergence from the start model, in nats: the sum of what its tokens became likelier.
pub(super) fn kl_of(now: &[f32], start: &[f32]) -> f64 {
    now.iter().zip(start).map(|(&now, &start)| f64::from(now) - f64::from(start)).sum()
}

impl Objective for Grouped {
    type Model = Decoder;
    type Batch = Piece<Old>;

    fn batch(&self, position: u64) -> Result<Piece<Old>> {
        Ok(Piece::Asked(position))
    }

    fn rollout(&self, model: &Decoder, pieces: Vec<Piece<Old>>, step: u64) -> Result<(Vec<Piece<Old>>, Report)> {
        let Some(Piece::Asked(position)) = pieces.first() else { return Ok((pieces, vec![])) };
        let drawn = self.game.draw(&model.valid(), *position, step)?;
        Ok(self.answered(&drawn))
    }

    fn epochs(&self) -> usize {
        self.game.spec.updates(self.kind)
    }

    fn targets(&self, batch: &Piece<Old>) -> usize {
        self.game.targets(batch)
    }

    fn loss(&self, model: &Decoder, batch: &Piece<Old>) -> Loss {
        let one = batch.answered();
        // The first pass begins with the policy that all is compared with: what the loss asks for there is known before its log-probabilities
        // are, and the divergence from the start model alone is not.
        let first = one.more.get().is_none() && !self.diverges();
        let expected = first.then(|| at_first(&one.known, self.ratio(), self.game.spec.bounds()));
        let policy = match expected {
            Some(expected) => model.log_probs_expecting(&one.row.batch, expected, self.game.recompute),
            None => model.log_probs(&one.row.batch, self.game.recompute),
        };
        let old = one.more.get_or_init(|| numbers(policy.clone()));
        let (mut value, mut report) = clipped(policy.clone(), old, &one.known, self.ratio(), self.game.spec.bounds());
        if self.diverges() {
            value = value + divergence(policy, &one.known) * self.game.spec.kl;
        }
        report.extend(one.gap(old));
        Loss { value: value * one.scale, report }
    }

    fn masks(&self) -> bool {
        true
    }

    fn show(&self, batch: &Piece<Old>) -> Result<Shown> {
        self.game.show(batch)
    }

    fn held_out_tokens(&self) -> u64 {
        self.game.held_out_tokens()
    }

    fn measure(&self, model: &Decoder, tokens: u64) -> Result<Measure> {
        self.game.measure(&model.valid(), tokens)
    }

    fn samples(&self, model: &Decoder, draw: u64) -> Result<Vec<Sample>> {
        self.game.samples(&model.valid(), draw)
    }
}
