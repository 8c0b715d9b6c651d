//! PPO ([Schulman et al. 2017](https://arxiv.org/abs/1707.06347); for language models [Ouyang et al. 2022](https://arxiv.org/abs/2203.02155)):
//! a value head on the model says at every token what the answer will be worth, and what came out better than that becomes likelier.

use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use danlu_eval::Measure;
use danlu_models::{Batch, Decoder};

use super::answers::{Drawn, Row, log_probs, pieces};
use super::grouped::kl_of;
use super::losses::{Known, Ratio, clipped, numbers, value};
use super::piece::Piece;
use super::{Game, Learner, advantage};
use crate::objectives::{Loss, Objective, Report, Sample, Shown};
use crate::recipe::{ObjectiveKind, RlSpec};

/// A decoder with a value head on its last hidden state.
#[derive(Module, Debug)]
pub struct ActorCritic {
    pub decoder: Decoder,
    value: ValueHead,
}

/// What is to be expected, from a hidden state.
#[derive(Module, Debug)]
struct ValueHead {
    /// `[1, hidden]`
    weight: Param<Tensor<2>>,
    /// `[1]`
    bias: Param<Tensor<1>>,
}

impl ActorCritic {
    /// Expects nothing yet: the head's weights are zero.
    pub fn new(decoder: Decoder) -> Self {
        let hidden = decoder.head_weight().dims()[1];
        Self::with_head(decoder, vec![0.0; hidden], 0.0)
    }

    /// With this value head: as many weights as the decoder has channels.
    pub fn with_head(decoder: Decoder, weight: Vec<f32>, bias: f32) -> Self {
        let device: Device = decoder.devices().into_iter().next().unwrap_or_default();
        let shape = [1, weight.len()];
        let value = ValueHead {
            weight: Param::from_data(TensorData::new(weight, shape), &device),
            bias: Param::from_data(TensorData::new(vec![bias], [1]), &device),
        };
        Self { decoder, value }
    }

    /// The log-probability of each target, zero where there is none, and the value before each token, both `[tokens]`.
    pub fn log_probs_and_values(&self, batch: &Batch, recompute: bool) -> [Tensor<1>; 2] {
        let hidden = if recompute { self.decoder.hidden_recomputed(batch) } else { self.decoder.hidden(batch) };
        let values = danlu_ops::linear(hidden.clone(), self.value.weight.val(), Some(self.value.bias.val()));
        let log_probs = danlu_ops::linear_log_probs(hidden, self.decoder.head_weight(), &batch.targets);
        [log_probs, values.reshape([batch.ids.len()])]
    }
}

/// The weight of the divergence from the start model in rewards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KlControl {
    pub weight: f64,
    /// Nats of an answer that it is steered to, if it is.
    pub target: Option<f64>,
    pub horizon: f64,
}

impl KlControl {
    pub fn new(spec: &RlSpec) -> Self {
        Self { weight: spec.kl, target: spec.kl_target, horizon: spec.kl_horizon }
    }

    /// After `answers` answers with a mean divergence of `kl` nats: more where that is too much, less where it is little
    /// ([Ziegler et al. 2019](https://arxiv.org/abs/1909.08593)).
    pub fn follow(&mut self, kl: f64, answers: usize) {
        if let Some(target) = self.target {
            let error = (kl / target - 1.0).clamp(-0.2, 0.2);
            self.weight *= 1.0 + error * answers as f64 / self.horizon;
        }
    }
}

/// The objective.
pub struct Ppo {
    game: Game,
    /// The decoder before the first step, without autodiff.
    start: Option<Decoder>,
    control: Mutex<KlControl>,
}

/// What the trainer makes of each token of a piece before the weights move, and what came out.
pub struct Seen {
    log_probs: Vec<f32>,
    values: Vec<f32>,
    returns: Vec<f32>,
}

impl Learner for Ppo {
    fn new(game: Game, _: ObjectiveKind, start: Option<Decoder>) -> Result<Self> {
        let spec = &game.spec;
        ensure!(spec.kl == 0.0 || start.is_some(), "`rl.kl` compares with the start model, and there is none");
        ensure!(
            spec.kl > 0.0 || spec.kl_target.is_none(),
            "`rl.kl_target` steers `rl.kl`, which is 0; give it a value to begin with"
        );
        let (control, start) = (Mutex::new(KlControl::new(spec)), start.filter(|_| spec.kl > 0.0));
        Ok(Self { game, start, control })
    }

    fn model(decoder: Decoder) -> ActorCritic {
        ActorCritic::new(decoder)
    }

    fn decoder(model: &ActorCritic) -> &Decoder {
        &model.decoder
    }
}

impl Ppo {
    fn control(&self) -> KlControl {
        *self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log-probabilities and values of the model of now, of each token of each answer.
    fn seen(&self, model: &ActorCritic, answers: &[&Drawn]) -> Vec<[Vec<f32>; 2]> {
        let rows = pieces(answers, self.game.piece).into_iter().map(|piece| Row::new(&answers[piece]));
        let one = |row: Row| {
            let [log_probs, values] = model.log_probs_and_values(&row.batch, false).map(numbers);
            row.each(&log_probs).into_iter().zip(row.each(&values)).map(|(a, b)| [a, b]).collect::<Vec<_>>()
        };
        rows.flat_map(one).collect()
    }

    /// The pieces that answers are learned from. `model` has no autodiff.
    pub fn answered(&self, model: &ActorCritic, drawn: &[Drawn]) -> (Vec<Piece<Seen>>, Report) {
        let (game, spec) = (&self.game, &self.game.spec);
        let counts: Vec<&Drawn> = drawn.iter().filter(|one| one.ended || !spec.skip_truncated).collect();
        let seen = self.seen(model, &counts);
        let start = self.start.as_ref().map(|start| log_probs(start, &counts, game.piece)).unwrap_or_default();
        let control = self.control();
        let (mut advantages, mut returns) = (vec![], vec![]);
        for (i, one) in counts.iter().enumerate() {
            let [old, values] = &seen[i];
            let cost = |t: usize| start.get(i).map_or(0.0, |start| control.weight * f64::from(old[t] - start[t]));
            let mut rewards: Vec<f64> = (0..one.answer_len()).map(|t| -cost(t)).collect();
            // What the answer is worth is known at its end.
            rewards[one.answer_len() - 1] += one.score.total;
            let values: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
            let (better, came) = advantage::gae(&rewards, &values, spec.gamma, spec.lambda);
            advantages.extend(better);
            returns.extend(came);
        }
        let total = advantages.len();
        advantage::whiten(&mut advantages);
        let narrow = |numbers: &[f64]| numbers.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let (advantages, returns) = (narrow(&advantages), narrow(&returns));
        let spans = advantage::spans(counts.iter().map(|one| one.answer_len()));

        let made = pieces(&counts, game.piece).into_iter().map(|piece| {
            let answers = &counts[piece.clone()];
            let row = Row::new(answers);
            let of = |numbers: &[f32]| row.spread(spans[piece.clone()].iter().map(|span| &numbers[span.clone()]));
            let side = |which: usize| row.spread(seen[piece.clone()].iter().map(|both| &both[which][..]));
            let known = Known {
                weights: of(&vec![1.0 / total as f32; total]),
                advantages: of(&advantages),
                start: vec![],
                spans: row.spans.clone(),
            };
            let seen = Seen { log_probs: side(0), values: side(1), returns: of(&returns) };
            Piece::new(answers, row, known, total, seen)
        });
        let made = made.collect();
        let mut report = game.report(drawn);
        if self.start.is_some() {
            let kl: Vec<f64> = seen.iter().zip(&start).map(|([old, _], start)| kl_of(old, start)).collect();
            let tokens: usize = counts.iter().map(|one| one.answer_len()).sum();
            let each = advantage::mean(&kl);
            report.push(("kl", kl.iter().sum::<f64>() / tokens.max(1) as f64));
            report.push(("kl_answer", each));
            report.push(("kl_weight", control.weight));
            self.control.lock().unwrap_or_else(PoisonError::into_inner).follow(each, drawn.len());
        }
        (made, report)
    }
}

impl Objective for Ppo {
    type Model = ActorCritic;
    type Batch = Piece<Seen>;

    fn batch(&self, position: u64) -> Result<Piece<Seen>> {
        Ok(Piece::Asked(position))
    }

    fn rollout(&self, model: &ActorCritic, pieces: Vec<Piece<Seen>>, step: u64) -> Result<(Vec<Piece<Seen>>, Report)> {
        let Some(Piece::Asked(position)) = pieces.first() else { return Ok((pieces, vec![])) };
        let model = model.valid();
        let drawn = self.game.draw(&model.decoder, *position, step)?;
        Ok(self.answered(&model, &drawn))
    }

    fn epochs(&self) -> usize {
        self.game.spec.updates(ObjectiveKind::Ppo)
    }

    fn state(&self) -> Vec<f64> {
        vec![self.control().weight]
    }

    fn restore(&self, state: &[f64]) -> Result<()> {
        let [weight] = state else { anyhow::bail!("the checkpoint is of another objective than ppo") };
        self.control.lock().unwrap_or_else(PoisonError::into_inner).weight = *weight;
        Ok(())
    }

    fn targets(&self, batch: &Piece<Seen>) -> usize {
        self.game.targets(batch)
    }

    fn loss(&self, model: &ActorCritic, batch: &Piece<Seen>) -> Loss {
        let (one, spec) = (batch.answered(), &self.game.spec);
        let Seen { log_probs: old, values: before, returns } = &one.more;
        let [policy, values] = model.log_probs_and_values(&one.row.batch, self.game.recompute);
        let (actor, mut report) = clipped(policy, old, &one.known, Ratio::Token, spec.bounds());
        let (critic, held) = value(values, before, returns, &one.known.weights, spec.value_clip);
        let of = |x: &Tensor<1>| f64::from(numbers(x.clone())[0]) * one.scale;
        report.extend([("policy_loss", of(&actor)), ("value_loss", of(&critic)), ("value_clipped", held)]);
        report.extend(one.gap(old));
        Loss { value: (actor + critic * spec.value_weight) * one.scale, report }
    }

    fn masks(&self) -> bool {
        true
    }

    fn show(&self, batch: &Piece<Seen>) -> Result<Shown> {
        self.game.show(batch)
    }

    fn held_out_tokens(&self) -> u64 {
        self.game.held_out_tokens()
    }

    fn measure(&self, model: &ActorCritic, tokens: u64) -> Result<Measure> {
        self.game.measure(&model.decoder.valid(), tokens)
    }

    fn samples(&self, model: &ActorCritic, draw: u64) -> Result<Vec<Sample>> {
        self.game.samples(&model.decoder.valid(), draw)
    }
}
