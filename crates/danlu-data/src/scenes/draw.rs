use crate::sampler::mix;

/// Random numbers that follow from where they begin.
pub(super) struct Draw {
    seed: u64,
    index: u64,
    count: u64,
}

/// What is drawn for, each from a stream of its own.
#[derive(Clone, Copy)]
pub(super) enum For {
    Train = 101,
    HeldOut = 102,
    View = 103,
    Pair = 104,
}

impl Draw {
    pub fn new(seed: u64, purpose: For, index: u64) -> Self {
        Self { seed: mix(seed, purpose as u64, 0), index, count: 0 }
    }

    pub fn bits(&mut self) -> u64 {
        self.count += 1;
        mix(self.seed, self.index, self.count)
    }

    /// A whole number below `limit`; 0 where that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.bits()) * limit as u128) >> 64) as usize
    }

    /// From `low` to below `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        let unit = (self.bits() >> 11) as f64 / (1u64 << 53) as f64;
        low + (high - low) * unit
    }

    /// From `low` to below `high`, each doubling as often.
    pub fn scale(&mut self, low: f64, high: f64) -> f64 {
        self.between(low.ln(), high.ln()).exp()
    }

    /// Red, green and blue, from 0 to 255.
    pub fn color(&mut self) -> [f32; 3] {
        std::array::from_fn(|_| self.between(0.0, 255.0) as f32)
    }
}
