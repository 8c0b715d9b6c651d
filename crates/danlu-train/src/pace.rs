//! How long a run is. A budget in minutes becomes steps by measuring: the length is corrected until the learning rate begins to fall,
//! and is final from then on, so that the fall is exact and can be resumed exactly.

use std::collections::VecDeque;

/// Steps that the speed is averaged over.
const WINDOW: usize = 64;
/// The first steps are slow (memory is being faulted in) and are not taken for the speed.
const SKIPPED: u64 = 2;

/// A run may take this many times its budget before measures on the way are left out.
const LATE: f64 = 1.1;

/// Measures steps and what comes between them, and tells how many steps fit in a budget.
#[derive(Debug)]
pub struct Pace {
    /// Seconds of the whole run; none when the budget does not depend on time.
    budget: Option<f64>,
    recent: VecDeque<f64>,
    seen: u64,
    /// Seconds that measurements and checkpoints take for each second of stepping.
    overhead: f64,
}

impl Pace {
    pub fn new(budget: Option<f64>, overhead: f64) -> Self {
        Pace { budget, recent: VecDeque::with_capacity(WINDOW), seen: 0, overhead }
    }

    pub fn step(&mut self, seconds: f64) {
        self.seen += 1;
        if self.seen <= SKIPPED {
            return;
        }
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(seconds);
    }

    /// Seconds per step, when enough steps were seen.
    pub fn seconds_per_step(&self) -> Option<f64> {
        (!self.recent.is_empty()).then(|| self.recent.iter().sum::<f64>() / self.recent.len() as f64)
    }

    /// The length of the run that spends the budget, when the budget is time: after `step` steps and `elapsed` seconds, keeping
    /// `reserve` seconds for what comes after the last step.
    pub fn total(&self, step: u64, elapsed: f64, reserve: f64) -> Option<u64> {
        let left = (self.budget? - elapsed - reserve).max(0.0);
        let more = left / (self.seconds_per_step()? * (1.0 + self.overhead));
        Some(step + more.round() as u64)
    }

    /// Seconds until the end of a run of `total` steps, of which the last took `last` seconds.
    pub fn left(&self, step: u64, total: u64, last: f64, reserve: f64) -> f64 {
        let steps = total.saturating_sub(step) as f64;
        self.seconds_per_step().unwrap_or(last) * steps * (1.0 + self.overhead) + reserve
    }

    /// Whether `seconds` can be spent on something else and the rest of the run still ends in time. The machine may have become slower
    /// after the length was fixed, and a measure is worth being a little late.
    pub fn affords(&self, seconds: f64, step: u64, total: u64, elapsed: f64, reserve: f64) -> bool {
        let steps = total.saturating_sub(step) as f64;
        let rest = self.seconds_per_step().unwrap_or(0.0) * steps + reserve;
        self.budget.is_none_or(|budget| elapsed + seconds + rest <= budget * LATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a budget of 100 seconds on a simulated machine and returns when it ended.
    fn simulate(freeze_at: f64, seconds: impl Fn(u64) -> f64) -> f64 {
        let (mut pace, mut step, mut elapsed, mut total) = (Pace::new(Some(100.0), 0.05), 0, 0.0, 1000);
        while step < total {
            let took = seconds(step);
            pace.step(took);
            elapsed += took * 1.05;
            step += 1;
            if (step as f64) < freeze_at * total as f64 {
                total = pace.total(step, elapsed, 2.0).unwrap_or(total);
            }
        }
        elapsed + 2.0
    }

    #[test]
    fn a_run_ends_in_its_time() {
        let check = |name: &str, seconds: &dyn Fn(u64) -> f64| {
            let end = simulate(0.6, seconds);
            assert!((95.0..105.0).contains(&end), "{name}: ended after {end}");
        };
        check("steady", &|_| 0.1);
        check("slow start", &|step| if step < 2 { 2.0 } else { 0.05 });
        check("noise", &|step| 0.1 + 0.05 * (step as f64 * 1.7).sin());
        check("becomes slower early", &|step| if step < 200 { 0.05 } else { 0.1 });
    }

    #[test]
    fn without_a_time_budget_nothing_is_corrected() {
        let mut pace = Pace::new(None, 0.05);
        (0..10).for_each(|_| pace.step(1.0));
        assert_eq!(pace.total(10, 10.0, 0.0), None);
        assert!(pace.affords(1e9, 10, 20, 10.0, 0.0));
    }
}
