//! What comes between steps: measures, samples, checkpoints and the log. None of it touches the weights.

use std::time::Instant;

use anyhow::Result;
use serde_json::{Map, Value};

use super::{Session, Update};
use crate::events::{Event, Step};
use crate::memory;
use crate::objectives::{Objective, Sample};

/// The log reaches the disk at least this often, in seconds.
const FLUSH: f64 = 2.0;
/// Where in a run's folder the sheets of pictures go that a model draws along the way.
const SHEETS: &str = "samples";

impl<O: Objective> Session<'_, O> {
    /// What is due after this step.
    pub(super) fn now_and_then(&mut self) -> Result<()> {
        let recipe = &self.run.plan.recipe;
        let (step, last) = (self.state.step, self.state.step >= self.state.total);
        let due = |every: u64| every > 0 && step % every == 0;
        if !last {
            let measured = match (recipe.eval.every, &self.measured) {
                (Some(every), _) => due(every),
                (None, _) if recipe.eval.share == 0.0 => false,
                (None, None) => true,
                (None, Some((when, measure))) => {
                    let cost = measure.seconds;
                    let since = self.elapsed() - when;
                    since >= cost / recipe.eval.share
                        && self.pace.affords(cost, step, self.state.total, self.elapsed(), self.reserve())
                }
            };
            if measured {
                self.measure(recipe.eval.tokens, false)?;
            }
            let sample = match recipe.sample.every {
                Some(every) => due(every),
                None => measured && self.measurements.is_multiple_of(2) && self.affordable_sample(),
            };
            if sample {
                self.sample()?;
            }
        }
        let save = match recipe.checkpoint.every {
            Some(every) => due(every),
            None => self.elapsed() - self.saved.1 >= recipe.checkpoint.minutes * 60.0,
        };
        if save {
            self.save()?;
        }
        Ok(())
    }

    /// Samples are for people; they may take as much of the time as measuring may.
    fn affordable_sample(&self) -> bool {
        let share = self.run.plan.recipe.eval.share;
        let taken = self.sample_seconds * (self.measurements / 2) as f64;
        taken <= share * self.elapsed()
            && self.pace.affords(self.sample_seconds, self.state.step, self.state.total, self.elapsed(), self.reserve())
    }

    pub(super) fn measure(&mut self, tokens: u64, last: bool) -> Result<()> {
        let measure = self.run.objective.measure(self.model()?, tokens)?;
        let (step, elapsed) = (self.state.step, self.elapsed());
        let mut row = Map::new();
        row.insert("measure".into(), measure.unit.name.into());
        let numbers = [
            (measure.unit.name, measure.value),
            ("low", measure.low),
            ("high", measure.high),
            ("bytes", measure.bytes as f64),
            ("elapsed", elapsed),
        ];
        write(&mut row, measure.others.iter().copied());
        write(&mut row, numbers);
        self.metrics.row(if last { "final" } else { "held_out" }, step, row)?;
        self.metrics.flush()?;
        self.observer.event(&Event::Measured { step, elapsed, last, measure: &measure });
        self.measured = Some((elapsed, measure));
        self.measurements += 1;
        Ok(())
    }

    pub(super) fn sample(&mut self) -> Result<()> {
        let begun = Instant::now();
        let (step, mut samples) = (self.state.step, self.run.objective.samples(self.model()?, self.state.step)?);
        if let Some(png) = self.run.objective.sheet(self.model()?)? {
            let name = format!("{SHEETS}/step-{step:08}.png");
            danlu_files::write_atomic_bytes(&self.run.folder.join(&name), &png)?;
            samples.push(Sample { prompt: "pictures".into(), text: format!(" → {name} in the run's folder") });
        }
        for sample in &samples {
            let mut row = Map::new();
            row.insert("prompt".into(), sample.prompt.as_str().into());
            row.insert("text".into(), sample.text.as_str().into());
            self.metrics.row("sample", step, row)?;
        }
        self.observer.event(&Event::Sampled { step, samples: &samples });
        let seconds = begun.elapsed().as_secs_f64();
        // The least so far: one slow moment of the machine should not shorten the run.
        self.sample_seconds = if self.sample_seconds > 0.0 { self.sample_seconds.min(seconds) } else { seconds };
        Ok(())
    }

    /// Seconds that the end of the run takes: the last measure, samples and checkpoint.
    pub(super) fn reserve(&self) -> f64 {
        let eval = &self.run.plan.recipe.eval;
        let measure = self
            .measured
            .as_ref()
            .map_or(0.0, |(_, m)| m.seconds * (eval.final_tokens as f64 / eval.tokens.max(1) as f64).min(self.held_out_ratio()));
        measure + self.save_seconds + self.sample_seconds
    }

    /// How many times more text the last measure can have than one on the way: no more than was held out.
    fn held_out_ratio(&self) -> f64 {
        let eval = &self.run.plan.recipe.eval;
        self.run.objective.held_out_tokens() as f64 / eval.tokens.max(1) as f64
    }

    /// Logs and shows a step that waited for its data first and then took so many seconds.
    pub(super) fn report(
        &mut self,
        Update { loss, norm, report }: Update,
        share: f64,
        [data_wait, seconds]: [f64; 2],
    ) -> Result<()> {
        let plan = self.run.plan;
        let per_second = plan.step_tokens() as f64 / seconds.max(1e-9);
        let step = Step {
            step: self.state.step,
            total: self.state.total,
            total_is_final: self.state.frozen,
            loss,
            report,
            rate_share: share,
            gradient_norm: norm,
            seconds,
            data_wait,
            tokens_per_second: per_second,
            // Where the rate was measured on a busy machine a step can reach more; the whole run's share is held to a new measure.
            gemm_share: (per_second * plan.flops_per_token / plan.facts.gemm_rate).min(1.0),
            tokens: self.state.tokens,
            epoch: self.state.tokens as f64 / plan.facts.train_tokens.max(1) as f64,
            elapsed: self.elapsed(),
            left: self.pace.left(self.state.step, self.state.total, data_wait + seconds, self.reserve()),
            memory: memory::resident().0,
        };
        let mut row = Map::new();
        let numbers = [
            ("loss", loss),
            ("gradient_norm", norm),
            ("tokens", step.tokens as f64),
            ("epoch", step.epoch),
            ("seconds", seconds),
            ("data_wait", data_wait),
            ("tokens_per_second", per_second),
            ("gemm_share", step.gemm_share),
            ("elapsed", step.elapsed),
            ("memory", step.memory as f64),
        ];
        write(&mut row, numbers);
        write(&mut row, step.report.iter().copied());
        write(&mut row, self.optimizer.rates(share));
        self.metrics.row("train", step.step, row)?;
        if step.elapsed - self.flushed > FLUSH {
            self.metrics.flush()?;
            self.flushed = step.elapsed;
        }
        self.observer.event(&Event::Step(&step));
        Ok(())
    }
}

fn write(row: &mut Map<String, Value>, numbers: impl IntoIterator<Item = (&'static str, f64)>) {
    row.extend(numbers.into_iter().map(|(key, value)| (key.to_string(), value.into())));
}
