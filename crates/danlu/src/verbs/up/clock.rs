//! Whose share of the time is how much.

use std::time::Instant;

use super::Until;

/// Parts of the time. Most goes to pretraining: what a small model can say it learns there, and to answer takes little more. Conversations and
/// preferences there are few of, and reading them again and again is not worth the time.
fn parts(stage: Until) -> f64 {
    match stage {
        Until::Pretrain => 16.0,
        Until::Tune => 2.0,
        Until::Align => 1.0,
    }
}

/// For measuring the family on the same items, where there is one.
const MEASURING: f64 = 1.0;
/// Seconds for what follows a training: export, reading back, picture.
const AFTER_TRAINING: f64 = 1.5;

/// The time that all stages have together.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    began: Instant,
    minutes: f64,
    until: Until,
}

impl Clock {
    pub fn start(minutes: f64, until: Until) -> Self {
        Self { began: Instant::now(), minutes, until }
    }

    /// Minutes that a stage may train, of those that are left. Where the stages before it were done by an earlier call, more seems to be left
    /// than there is, so it is never more than its share of the whole.
    pub fn minutes(&self, stage: Until) -> f64 {
        self.at(stage, self.began.elapsed().as_secs_f64() / 60.0)
    }

    fn at(&self, stage: Until, spent: f64) -> f64 {
        let nominal = self.nominal(stage);
        let left = (self.minutes - spent) * parts(stage) / self.remaining(stage) - AFTER_TRAINING / 60.0;
        // With a tiny budget a training still gets a part of its share; the whole then takes a little longer than asked.
        left.min(nominal).max(nominal * 0.25).max(0.01)
    }

    /// A stage's share of the whole, in minutes.
    pub fn nominal(&self, stage: Until) -> f64 {
        self.minutes * parts(stage) / self.remaining(Until::Pretrain)
    }

    /// Parts of all that is to do from this stage on.
    fn remaining(&self, from: Until) -> f64 {
        let stages =
            [Until::Pretrain, Until::Tune, Until::Align].into_iter().filter(|&stage| stage >= from && stage <= self.until);
        let measuring = if self.until > Until::Pretrain { MEASURING } else { 0.0 };
        stages.map(parts).sum::<f64>() + measuring
    }

    pub fn elapsed(&self) -> std::time::Duration {
        self.began.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGES: [Until; 3] = [Until::Pretrain, Until::Tune, Until::Align];

    /// When a whole ends whose trainings keep to their times, in minutes; what is around a training takes `around` seconds.
    fn end(minutes: f64, until: Until, around: f64) -> f64 {
        let clock = Clock::start(minutes, until);
        let mut spent = 0.02 * minutes;
        for stage in STAGES.into_iter().filter(|&stage| stage <= until) {
            spent += clock.at(stage, spent) + around / 60.0;
        }
        spent
    }

    #[test]
    fn the_whole_ends_in_its_time() {
        for minutes in [1.0, 5.0, 60.0] {
            for until in STAGES {
                // Without and with the time that measuring the family takes.
                for around in [0.5, 3.0] {
                    let share = end(minutes, until, around) / minutes;
                    assert!((0.85..1.15).contains(&share), "{minutes} minutes until {until:?}, {around} s around: {share}");
                }
            }
        }
    }

    #[test]
    fn most_of_it_is_pretraining_and_all_of_it_where_nothing_follows() {
        let clock = Clock::start(5.0, Until::Align);
        assert!((clock.nominal(Until::Pretrain) - 4.0).abs() < 1e-9);
        assert!((Clock::start(5.0, Until::Pretrain).nominal(Until::Pretrain) - 5.0).abs() < 1e-9);
        // What earlier calls did makes no stage longer than its share.
        assert!(clock.at(Until::Align, 0.0) <= clock.nominal(Until::Align));
        // A stage that began late still trains.
        assert!(clock.at(Until::Tune, 9.0) > 0.0);
    }
}
