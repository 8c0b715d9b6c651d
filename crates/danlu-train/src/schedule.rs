//! The learning rate over a run, as a share of its peak.

use crate::recipe::{DecayForm, OptimizerSpec, ScheduleKind};

/// The form of a run's learning rate. A pure function of the step, so that a resumed run continues it exactly.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    kind: ScheduleKind,
    form: DecayForm,
    /// Fixed when the run begins, so that correcting the length of a run later does not change its first steps.
    warmup: f64,
    decay: f64,
    floor: f64,
}

/// A run that warms up does so for at least this many steps, however short it is.
const MIN_WARMUP: f64 = 5.0;

impl Schedule {
    /// From the `[optimizer]` table, for a run planned to have `planned` steps.
    pub fn new(spec: &OptimizerSpec, planned: u64) -> Self {
        let warmup = if spec.warmup > 0.0 { (spec.warmup * planned as f64).max(MIN_WARMUP) } else { 0.0 };
        Schedule { kind: spec.schedule, form: spec.decay_form, warmup, decay: spec.decay, floor: spec.floor }
    }

    /// The share of the peak rate that update `step` (from 0) of `total` uses; above 0 unless the floor is 0 and the run is over.
    pub fn at(&self, step: u64, total: u64) -> f64 {
        let (step, total) = (step as f64, total as f64);
        let warmup = self.warmup_steps(total);
        if step < warmup {
            return (step + 1.0) / (warmup + 1.0);
        }
        let start = self.decay_start_at(total);
        if step < start && self.kind != ScheduleKind::InverseSqrt {
            return 1.0;
        }
        // The way reaches one at step `total`, which is never taken: the last update still moves the weights.
        let way = ((step - start) / (total - start).max(1.0)).clamp(0.0, 1.0);
        let left = match (self.kind, self.form) {
            (ScheduleKind::Constant, _) => 1.0,
            (ScheduleKind::InverseSqrt, _) => ((warmup + 1.0) / (step + 1.0)).sqrt(),
            (ScheduleKind::Cosine, _) => 0.5 * (1.0 + (std::f64::consts::PI * way).cos()),
            (ScheduleKind::Wsd, DecayForm::Linear) => 1.0 - way,
            (ScheduleKind::Wsd, DecayForm::Sqrt) => 1.0 - way.sqrt(),
        };
        self.floor + (1.0 - self.floor) * left
    }

    /// The first step whose rate depends on `total`: until then the length of the run may still be corrected without a trace.
    pub fn decay_start(&self, total: u64) -> u64 {
        self.decay_start_at(total as f64).ceil() as u64
    }

    fn warmup_steps(&self, total: f64) -> f64 {
        self.warmup.min(total / 2.0).round()
    }

    fn decay_start_at(&self, total: f64) -> f64 {
        let warmup = self.warmup_steps(total);
        match self.kind {
            ScheduleKind::Wsd => (total * (1.0 - self.decay)).max(warmup).round(),
            ScheduleKind::Cosine => warmup,
            // Neither asks how long the run is.
            ScheduleKind::Constant | ScheduleKind::InverseSqrt => total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind, form: DecayForm, floor: f64) -> Schedule {
        Schedule::new(
            &OptimizerSpec { schedule: kind, decay_form: form, warmup: 0.1, decay: 0.2, floor, ..OptimizerSpec::default() },
            1000,
        )
    }

    #[track_caller]
    fn check(kind: ScheduleKind, form: DecayForm, floor: f64, expected: &[(u64, f64)]) {
        let schedule = schedule(kind, form, floor);
        for &(step, value) in expected {
            let got = schedule.at(step, 1000);
            assert!((got - value).abs() < 1e-2, "{kind:?} {form:?} at {step}: {got}, expected {value}");
        }
    }

    #[test]
    fn each_form_has_its_shape() {
        use DecayForm::{Linear, Sqrt};
        check(ScheduleKind::Wsd, Linear, 0.0, &[(0, 0.01), (50, 0.505), (100, 1.0), (799, 1.0), (900, 0.5), (999, 0.005)]);
        check(ScheduleKind::Wsd, Sqrt, 0.0, &[(799, 1.0), (850, 0.5), (999, 0.0025)]);
        check(ScheduleKind::Wsd, Linear, 0.1, &[(900, 0.55), (1000, 0.1)]);
        check(ScheduleKind::Cosine, Linear, 0.0, &[(100, 1.0), (550, 0.5), (1000, 0.0)]);
        check(ScheduleKind::Constant, Linear, 0.0, &[(0, 0.01), (100, 1.0), (999, 1.0)]);
        check(ScheduleKind::InverseSqrt, Linear, 0.0, &[(0, 0.01), (50, 0.505), (100, 1.0), (403, 0.5), (908, 1.0 / 3.0)]);
    }

    #[test]
    fn every_step_of_every_length_moves_the_weights() {
        for kind in [ScheduleKind::Wsd, ScheduleKind::Cosine, ScheduleKind::Constant, ScheduleKind::InverseSqrt] {
            for total in 1..60 {
                for step in 0..total {
                    let rate = schedule(kind, DecayForm::Linear, 0.0).at(step, total);
                    assert!(rate > 0.0 && rate <= 1.0, "{kind:?} {step}/{total}: {rate}");
                }
            }
        }
    }

    #[test]
    fn before_the_decay_the_length_does_not_matter() {
        for kind in [ScheduleKind::Wsd, ScheduleKind::InverseSqrt] {
            let schedule = schedule(kind, DecayForm::Linear, 0.0);
            for step in 0..schedule.decay_start(800) {
                assert_eq!(schedule.at(step, 800), schedule.at(step, 1000), "{kind:?} {step}");
            }
        }
    }
}
