//! The one trainer: every recipe's step loop, with its gates, measures and checkpoints.

mod between;

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::tensor::{Device, TensorData};
use danlu_eval::Measure;
use danlu_models::names::{self, Unread};
use danlu_models::{names_and_shapes, trained};
use danlu_ops::Scalar;
use danlu_ops::optim::has_int8_moments;

use crate::auto::Plan;
use crate::checkpoint::{self, Checkpoint, Pending, State, Values};
use crate::events::{Event, Observer, Summary};
use crate::gradients::{Gradients, Squares};
use crate::guard::{self, LossGuard};
use crate::memory;
use crate::metrics::Metrics;
use crate::objectives::{Moved, Objective, Report};
use crate::optimizer::Optimizer;
use crate::pace::Pace;
use crate::recipe::MomentsKind;
use crate::schedule::Schedule;
use crate::tune;

/// Updates whose batches are made ahead of time.
const AHEAD: usize = 2;
/// Of the budget: what checkpoints are expected to cost.
const SAVING: f64 = 0.01;

/// What is trained, on what, and where it is kept.
pub struct Run<'a, O: Objective> {
    /// Gets `checkpoints/`, `metrics.jsonl` and `tensorboard/`.
    pub folder: &'a Path,
    pub plan: &'a Plan,
    pub objective: &'a O,
    /// With autodiff.
    pub device: &'a Device,
    /// The identity of the data: a run goes on only with what it began with.
    pub data: &'a str,
    /// Becomes true when the run should save and stop.
    pub stop: &'a AtomicBool,
}

/// What a session leaves.
pub struct Trained<M> {
    pub model: M,
    pub summary: Summary,
}

/// Trains until the budget is spent or `stop` is set; goes on from the newest intact checkpoint when the folder has one. `fresh` makes
/// the initial model; its shape is also what a checkpoint is read into.
///
/// # Errors
/// When the run cannot go on: data or checkpoints that cannot be read, a recipe or data other than the run began with, a parameter
/// without a gradient, a row without loss, a loss that is not a number or jumps. The checkpoints are intact then.
pub fn train<O: Objective>(
    run: &Run<O>,
    fresh: impl FnOnce() -> Result<O::Model>,
    observer: &mut dyn Observer,
) -> Result<Trained<O::Model>> {
    let mut session = Session::open(run, fresh()?, observer)?;
    session.begin()?;
    thread::scope(|scope| {
        let (sender, batches) = sync_channel(AHEAD);
        let first = session.state.position;
        scope.spawn(move || {
            let mut position = first;
            loop {
                let pieces = pieces(run, position);
                position += run.plan.rows as u64;
                // The receiver is gone when the run is over.
                if pieces.is_err() | sender.send(pieces).is_err() {
                    return;
                }
            }
        });
        session.steps(batches)
    })?;
    let trained = session.end()?;
    // What follows holds the model twice to compare what was written with it; the steps' buffers would come on top.
    danlu_ops::release_buffers();
    Ok(trained)
}

/// The batches of the update that begins at row `position`.
fn pieces<O: Objective>(run: &Run<O>, position: u64) -> Result<Vec<O::Batch>> {
    (0..run.plan.rows).step_by(run.plan.micro_rows).map(|row| run.objective.batch(position + row as u64)).collect()
}

struct Session<'a, O: Objective> {
    run: &'a Run<'a, O>,
    observer: &'a mut dyn Observer,
    /// None only while a step moves it.
    model: Option<O::Model>,
    optimizer: Optimizer,
    /// The parameters that checkpoints hold: all, or those that are trained where the others are a model's that is kept elsewhere.
    kept: HashSet<String>,
    schedule: Schedule,
    pace: Pace,
    guard: LossGuard,
    metrics: Metrics,
    state: State,
    /// When this session began, and what had elapsed then.
    start: Instant,
    before: f64,
    flushed: f64,
    saved: (u64, f64),
    save_seconds: f64,
    measured: Option<(f64, Measure)>,
    measurements: u64,
    sample_seconds: f64,
    resumed: bool,
}

impl<'a, O: Objective> Session<'a, O> {
    fn open(run: &'a Run<'a, O>, model: O::Model, observer: &'a mut dyn Observer) -> Result<Self> {
        let start = Instant::now();
        let recipe = &run.plan.recipe;
        let parameters = names_and_shapes(&model);
        let mut factors = tune::rate_factors(&parameters, recipe.tune.rate_decay);
        factors.iter_mut().zip(&parameters).for_each(|(factor, (name, _))| *factor *= run.objective.rate_factor(name));
        ensure!(
            recipe.optimizer.moments == MomentsKind::F32 || has_int8_moments(&run.device.clone().inner()),
            "`optimizer.moments` is \"int8\", but the device {} has no bytes to keep them in; leave the key out",
            danlu_ops::device_name()
        );
        let mut optimizer = Optimizer::new(&recipe.optimizer, &model).with_rate_factors(factors);
        let all = || parameters.into_iter().map(|(name, _)| name);
        let kept: HashSet<String> = if recipe.freezes() { trained(&model).into_iter().collect() } else { all().collect() };
        let found = checkpoint::latest(&run.folder.join("checkpoints"), |folder, reason| {
            observer.event(&Event::Note(&format!("{} is damaged ({reason:#}); trying the one before", folder.display())));
        })?;
        let (recipe_hash, minutes) = (recipe.hash()?, recipe.budget.minutes);
        let resumed = found.is_some();
        let (model, state) = match found {
            Some(Checkpoint { state, model: weights, optimizer: moments, folder }) => {
                ensure!(
                    state.recipe == recipe_hash,
                    "{} was made with another recipe; begin a new run, or give this one its own",
                    folder.display()
                );
                ensure!(state.data == run.data, "{} was trained on other data than is there now", folder.display());
                let weights = weights.into_iter().map(|tensor| -> Result<_> {
                    let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
                    Ok((name, TensorData::new(tensor.into_floats()?, shape)))
                });
                let weights = weights.collect::<Result<_>>()?;
                let model = names::load_named_of(model, weights, |name| kept.contains(name))
                    .with_context(|| format!("{} does not fit the model", folder.display()))?;
                optimizer.load_named(&model, moments, &run.device.clone().inner())?;
                run.objective.restore(&state.objective)?;
                (model, state)
            }
            None => {
                let (planned, total) = (run.plan.steps, run.plan.steps);
                let frozen = minutes.is_none();
                (model, State { planned, total, frozen, recipe: recipe_hash, data: run.data.into(), ..State::default() })
            }
        };
        let overhead = SAVING + if recipe.eval.every.is_none() { recipe.eval.share } else { 0.0 };
        observer.event(&Event::Begin { plan: run.plan, resumed: resumed.then_some(state.step) });
        Ok(Session {
            run,
            observer,
            model: Some(model),
            optimizer,
            kept,
            schedule: Schedule::new(&recipe.optimizer, state.planned),
            pace: Pace::new(minutes.map(|m| m * 60.0), overhead),
            guard: LossGuard { centre: state.loss_centre, spread: state.loss_spread },
            metrics: Metrics::open(run.folder, state.step)?,
            start,
            before: state.elapsed,
            flushed: 0.0,
            saved: (state.step, state.elapsed),
            save_seconds: 0.0,
            measured: None,
            measurements: 0,
            sample_seconds: 0.0,
            resumed,
            state,
        })
    }

    fn model(&self) -> Result<&O::Model> {
        self.model.as_ref().context("the model was lost in a step that failed")
    }

    fn elapsed(&self) -> f64 {
        self.before + self.start.elapsed().as_secs_f64()
    }

    /// The gate before the first step: a person, and the program, look at what the model will see.
    fn begin(&mut self) -> Result<()> {
        if self.state.step >= self.state.total {
            return Ok(());
        }
        let shown = self.run.objective.show(&self.run.objective.batch(self.state.position)?)?;
        self.observer.event(&Event::Shown(&shown));
        ensure!(
            shown.with_loss() > 0,
            "no token of the first row carries loss, so nothing would be learned; the row begins {:?}",
            head(&shown.text)
        );
        if self.run.objective.masks() {
            let all = shown.with_loss() == shown.tokens.len();
            ensure!(
                !all,
                "every token of the first row carries loss, though prompts should not; the row begins {:?}",
                head(&shown.text)
            );
        }
        if !self.resumed {
            self.measure(self.run.plan.recipe.eval.tokens, false)?;
        }
        Ok(())
    }

    fn steps(&mut self, batches: Receiver<Result<Vec<O::Batch>>>) -> Result<()> {
        while self.state.step < self.state.total && !self.run.stop.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let pieces = batches.recv().context("the thread that reads the data is gone")??;
            let waited = asked.elapsed().as_secs_f64();
            let begun = Instant::now();
            let share = self.schedule.at(self.state.step, self.state.total);
            let updated = self.update(pieces, share);
            if updated.is_err() {
                // What led here is worth reading.
                self.metrics.flush()?;
            }
            let updated = updated?;
            let seconds = begun.elapsed().as_secs_f64();
            self.pace.step(waited + seconds);
            self.state.stepping += seconds;
            self.state.waiting += waited;
            self.correct_length();
            self.report(updated, share, [waited, seconds])?;
            self.now_and_then()?;
        }
        Ok(())
    }

    /// One step: the objective completes its pieces with the model of now, and the weights move once for each of its epochs.
    fn update(&mut self, pieces: Vec<O::Batch>, share: f64) -> Result<Update> {
        let objective = self.run.objective;
        let step = self.state.step + 1;
        let (pieces, report) = objective.rollout(self.model()?, pieces, step)?;
        let epochs = objective.epochs().max(1) as u64;
        let mut done = Update::default();
        for epoch in 0..epochs {
            // The optimizer counts its own updates, of which a step has the same number each.
            let update = self.state.step * epochs + epoch + 1;
            done = self.epoch(&pieces, step, update, share)?;
        }
        done.report.extend(report);
        self.state.position += self.run.plan.rows as u64;
        self.state.step = step;
        // What went through the model, whether or not it carried loss.
        self.state.tokens += self.run.plan.step_tokens();
        Ok(done)
    }

    /// One movement of the weights. The pieces' mean losses are weighed by their targets, so that however an update is cut, it is the
    /// gradient of the mean over all its targets.
    fn epoch(&mut self, pieces: &[O::Batch], step: u64, update: u64, share: f64) -> Result<Update> {
        let (objective, model) = (self.run.objective, self.model.take().context("the model was lost in a step that failed")?);
        let rate = self.run.plan.recipe.optimizer.rate.unwrap_or(0.0) * share;
        let (model, moved) = objective.step(model, pieces, rate);
        if let Some(Moved { loss, squares, report }) = moved {
            self.guard.check(step, loss, &squares)?;
            self.model = Some(model);
            let norm = danlu_ops::optim::global_norm(squares.iter().map(|(_, square)| *square));
            return Ok(Update { loss, norm, report });
        }
        let counts: Vec<usize> = pieces.iter().map(|piece| objective.targets(piece)).collect();
        let total: usize = counts.iter().sum();
        let mut gradients = Gradients::new();
        let mut done = Update::default();
        let mut losses = vec![];
        for (piece, &count) in pieces.iter().zip(&counts).filter(|(_, count)| **count > 0) {
            let weight = count as f64 / total as f64;
            let mean = objective.loss(&model, piece);
            losses.push((weight, Scalar::of(mean.value.clone())));
            for (name, value) in mean.report {
                match done.report.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, sum)) => *sum += weight * value,
                    None => done.report.push((name, weight * value)),
                }
            }
            let weighted = if count == total { mean.value } else { mean.value * weight };
            gradients.add(&model, weighted)?;
        }
        // The one moment in which a step waits for its device.
        let (names, squares): (Vec<_>, Vec<_>) = gradients.squares(&model).into_iter().unzip();
        let (weights, losses): (Vec<_>, Vec<_>) = losses.into_iter().unzip();
        let mut read = danlu_ops::read_scalars(losses.into_iter().chain(squares).collect()).into_iter();
        done.loss = weights.iter().zip(read.by_ref()).map(|(weight, loss)| weight * loss).sum();
        let squares: Squares = names.into_iter().zip(read).collect();
        if total > 0 && objective.guards_loss() {
            self.guard.check(step, done.loss, &squares)?;
        } else if total > 0 {
            guard::finite(step, done.loss, &squares)?;
        }
        done.norm = danlu_ops::optim::global_norm(squares.iter().map(|(_, square)| *square));
        let clip = self.run.plan.recipe.optimizer.clip;
        let scale = if clip > 0.0 && done.norm > clip { clip / done.norm } else { 1.0 };
        self.model = Some(self.optimizer.step(model, &mut gradients, update, share, scale));
        Ok(done)
    }

    /// A run in minutes is as long as there is time; final once the rate falls.
    fn correct_length(&mut self) {
        if self.state.frozen {
            return;
        }
        let (step, elapsed) = (self.state.step, self.elapsed());
        if let Some(total) = self.pace.total(step, elapsed, self.reserve()) {
            self.state.total = total.max(step);
        }
        if self.schedule.decay_start(self.state.total) <= step {
            self.state.frozen = true;
            let note = format!("the learning rate falls from here; the run ends at step {}", self.state.total);
            self.observer.event(&Event::Note(&note));
        }
    }

    fn save(&mut self) -> Result<()> {
        let begun = Instant::now();
        let checkpoints = self.run.folder.join("checkpoints");
        let model = pending(self.model()?, &self.kept);
        let moments = self.optimizer.pending(self.model()?);
        self.state.elapsed = self.elapsed();
        (self.state.loss_centre, self.state.loss_spread) = (self.guard.centre, self.guard.spread);
        self.state.objective = self.run.objective.state();
        // The log must reach the disk before the checkpoint does: a log may be cut to a checkpoint's step, never made up.
        self.metrics.flush()?;
        let folder = checkpoint::save(&checkpoints, self.state.clone(), &model, &moments)?;
        let spec = &self.run.plan.recipe.checkpoint;
        checkpoint::retain(&checkpoints, spec.keep, spec.keep_every)?;
        self.save_seconds = begun.elapsed().as_secs_f64();
        self.saved = (self.state.step, self.elapsed());
        self.observer.event(&Event::Saved { step: self.state.step, folder: &folder, seconds: self.save_seconds });
        Ok(())
    }

    fn end(mut self) -> Result<Trained<O::Model>> {
        let recipe = &self.run.plan.recipe;
        let finished = self.state.step >= self.state.total;
        if self.saved.0 != self.state.step {
            self.save()?;
        }
        if finished {
            self.measure(recipe.eval.final_tokens, true)?;
            if recipe.sample.every != Some(0) || !recipe.sample.prompts.is_empty() {
                self.sample()?;
            }
        }
        self.metrics.flush()?;
        let plan = self.run.plan;
        let per_second = self.state.tokens as f64 / self.state.stepping.max(1e-9);
        let summary = Summary {
            step: self.state.step,
            total: self.state.total,
            finished,
            tokens: self.state.tokens,
            elapsed: self.elapsed(),
            tokens_per_second: per_second,
            gemm_share: share(per_second * plan.flops_per_token, plan.facts.gemm_rate, danlu_ops::gemm_rate_again),
            data_wait_share: self.state.waiting / (self.state.waiting + self.state.stepping).max(1e-9),
            peak_memory: memory::resident().1,
            measure: self.measured.take().map(|(_, measure)| measure),
        };
        self.observer.event(&Event::End(&summary));
        let model = self.model.take().context("the model was lost in a step that failed")?;
        Ok(Trained { model, summary })
    }
}

/// The share of the machine's rate of products that was reached. More than was measured for the plan shows that the machine was busy then: the rate
/// is measured `again`, and is no less than what was reached.
fn share(reached: f64, measured: f64, again: impl FnOnce() -> f64) -> f64 {
    let rate = if reached > measured { again().max(reached) } else { measured };
    reached / rate
}

/// What a step did.
#[derive(Default)]
struct Update {
    loss: f64,
    /// Length of the gradient.
    norm: f64,
    report: Report,
}

/// Some of a model's parameters, to be read from its device.
fn pending(model: &impl Module, wanted: &HashSet<String>) -> Vec<Pending<'static>> {
    let one = |Unread { name, shape, read }| {
        let read = Box::new(move || Ok(Values::F32(read()?.try_into_vec()?)));
        Pending { name, shape, bytes: false, read }
    };
    names::unread(model, |name| wanted.contains(name)).into_iter().map(one).collect()
}

/// The beginning of a text, for an error.
fn head(text: &str) -> String {
    text.chars().take(80).collect()
}
