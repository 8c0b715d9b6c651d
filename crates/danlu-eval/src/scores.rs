use crate::bootstrap::{interval, paired_interval, ratio};
use crate::unit::{Better, Measure, Unit};

/// What a model came to on each item of a set, before anything is averaged.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    pub unit: Unit,
    /// Bits and bytes of each item, or its score and 1: the value of the set is the ratio of their sums.
    pub items: Vec<(f64, f64)>,
    pub tokens: u64,
    /// Of text; zero where bytes say nothing.
    pub bytes: u64,
    pub seconds: f64,
}

/// How a model differs from another on the same items.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    pub value: f64,
    /// The ends of the 95 % interval of the difference.
    pub low: f64,
    pub high: f64,
}

impl Scores {
    pub fn value(&self) -> f64 {
        ratio(self.items.iter().copied())
    }

    /// The value with its interval.
    pub fn measure(&self) -> Measure {
        let (low, high) = interval(&self.items);
        Measure {
            unit: self.unit,
            value: self.value(),
            low,
            high,
            items: self.items.len() as u64,
            tokens: self.tokens,
            bytes: self.bytes,
            seconds: self.seconds,
            others: vec![],
        }
    }

    /// From what `before` came to on the same items to this.
    pub fn change_from(&self, before: &Self) -> Change {
        let (low, high) = paired_interval(&before.items, &self.items);
        Change { value: self.value() - before.value(), low, high }
    }
}

impl Change {
    /// Better by more than the interval's width on that side.
    pub fn is_gain(&self, better: Better) -> bool {
        match better {
            Better::Lower => self.high < 0.0,
            Better::Higher => self.low > 0.0,
        }
    }

    /// How much worse it may be, at the worse end of the interval; below zero when it is better even there.
    pub fn worst_loss(&self, better: Better) -> f64 {
        match better {
            Better::Lower => self.high,
            Better::Higher => -self.low,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::BITS_PER_BYTE;

    #[test]
    fn gains_and_losses_follow_the_unit() {
        let better = Change { value: -0.2, low: -0.3, high: -0.1 };
        assert!(better.is_gain(Better::Lower) && !better.is_gain(Better::Higher));
        assert_eq!((better.worst_loss(Better::Lower), better.worst_loss(Better::Higher)), (-0.1, 0.3));
        let unsure = Change { value: 0.1, low: -0.1, high: 0.3 };
        assert!(!unsure.is_gain(Better::Lower) && !unsure.is_gain(Better::Higher));
    }

    #[test]
    fn a_change_is_of_ratios_of_sums() {
        let scores =
            |items: &[(f64, f64)]| Scores { unit: BITS_PER_BYTE, items: items.to_vec(), tokens: 1, bytes: 1, seconds: 0.0 };
        let (before, after) = (scores(&[(2.0, 1.0), (9.0, 3.0)]), scores(&[(1.0, 1.0), (9.0, 3.0)]));
        assert_eq!(before.value(), 2.75);
        let change = after.change_from(&before);
        assert_eq!(change.value, -0.25);
        assert!(change.low <= -0.25 && change.high >= -0.25, "{change:?}");
    }
}
