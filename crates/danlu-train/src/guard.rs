//! The gate against divergence: a loss or gradient that is not a number, or a loss far above what the run has been seeing, stops the
//! run before what it did to the weights is kept.

use anyhow::{Result, bail};

use crate::gradients::Squares;

/// Follows the loss: its centre and its usual distance from it, both as exponential means, which single values move little.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LossGuard {
    pub centre: f64,
    pub spread: f64,
}

/// How fast the centre follows.
const FOLLOW: f64 = 0.05;
/// How many times its usual distance, and how many nats, a loss must be above the centre to be a spike.
const SPIKE_SPREADS: f64 = 12.0;
const SPIKE_NATS: f64 = 1.0;

impl LossGuard {
    /// Checks the loss and gradients of update `step` before they are used.
    ///
    /// # Errors
    /// With the step, the loss and the first bad tensor.
    pub fn check(&mut self, step: u64, loss: f64, squares: &Squares) -> Result<()> {
        finite(step, loss, squares)?;
        let limit = self.centre + (SPIKE_SPREADS * self.spread).max(SPIKE_NATS);
        if self.centre > 0.0 && loss > limit {
            let largest = squares.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map_or("none", |(name, _)| name);
            bail!(
                "step {step}: the loss jumped to {loss:.3}; it has been near {:.3}, and {limit:.3} is the limit. The largest gradient is \
                 {largest}'s. This step was not kept. {ADVICE}",
                self.centre
            );
        }
        if self.centre == 0.0 {
            *self = LossGuard { centre: loss, spread: 0.0 };
        } else {
            self.spread += FOLLOW * ((loss - self.centre).abs() - self.spread);
            self.centre += FOLLOW * (loss - self.centre);
        }
        Ok(())
    }
}

/// Checks that the loss and gradients of update `step` are numbers: all that can be asked where a loss may jump.
///
/// # Errors
/// As [`LossGuard::check`].
pub(crate) fn finite(step: u64, loss: f64, squares: &Squares) -> Result<()> {
    if let Some((name, _)) = squares.iter().find(|(_, square)| !square.is_finite()) {
        bail!("step {step}: the gradient of {name} is not finite (loss {loss}). This step was not kept. {ADVICE}");
    }
    if !loss.is_finite() {
        bail!("step {step}: the loss is {loss}, though every gradient is finite. This step was not kept. {ADVICE}");
    }
    Ok(())
}

const ADVICE: &str = "The last checkpoint is good: go on from it with a lower learning rate (`optimizer.rate`, `optimizer.muon_rate`) or \
                      a lower `optimizer.clip`";

#[cfg(test)]
mod tests {
    use super::*;

    fn squares(bad: f64) -> Squares {
        vec![("a".into(), 1.0), ("b".into(), bad), ("c".into(), f64::INFINITY)]
    }

    #[test]
    fn the_first_bad_tensor_is_named() {
        let check = |loss: f64, squares: &Squares, part: &str| {
            let message = LossGuard { centre: 2.0, spread: 0.01 }.check(7, loss, squares).unwrap_err().to_string();
            assert!(message.contains("step 7") && message.contains(part), "{message:?} lacks {part:?}");
        };
        check(2.0, &squares(f64::NAN), "gradient of b ");
        check(f64::NAN, &vec![("a".into(), 1.0)], "loss is NaN");
        check(3.5, &vec![("a".into(), 1.0), ("b".into(), 5.0)], "b's");
    }

    #[test]
    fn noise_and_falling_losses_pass() {
        let mut guard = LossGuard::default();
        for step in 0..1000 {
            let noise = [0.3, -0.2, 0.5, -0.4][step % 4];
            guard.check(step as u64, 8.0 * (-(step as f64) / 200.0).exp() + 2.0 + noise, &vec![]).unwrap();
        }
    }
}
