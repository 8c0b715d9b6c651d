use super::DataSpec;

impl DataSpec {
    /// The share of the rows that each source has, then each that is read again, by their sizes in tokens; the sum is 1.
    pub fn shares(&self, sources: &[u64], replay: &[u64]) -> Vec<f64> {
        let size = |i: usize, tokens: u64| {
            (tokens.max(1) as f64).powf(1.0 / self.temperature) * self.weights.get(i).copied().unwrap_or(1.0)
        };
        let of_sources: Vec<f64> = sources.iter().enumerate().map(|(i, &tokens)| size(i, tokens)).collect();
        let of_replay: Vec<f64> = replay.iter().map(|&tokens| tokens.max(1) as f64).collect();
        let again = if replay.is_empty() { 0.0 } else { self.replay_share };
        let scaled = |sizes: Vec<f64>, share: f64| {
            let sum: f64 = sizes.iter().sum();
            sizes.into_iter().map(move |size| share * size / sum)
        };
        scaled(of_sources, 1.0 - again).chain(scaled(of_replay, again)).collect()
    }

    /// Whether sources are mixed in other shares than their sizes.
    pub fn is_mixed(&self) -> bool {
        !self.weights.is_empty() || self.temperature != 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_size_weight_temperature_and_replay() {
        let check = |data: &DataSpec, replay: &[u64], expected: &[f64]| {
            let shares = data.shares(&[100, 300], replay);
            assert!(
                shares.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12) && shares.len() == expected.len(),
                "{shares:?}"
            );
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        };
        let plain = DataSpec::default();
        check(&plain, &[], &[0.25, 0.75]);
        check(&plain, &[7], &[0.225, 0.675, 0.1]);
        check(&DataSpec { weights: vec![3.0, 1.0], ..plain.clone() }, &[], &[0.5, 0.5]);
        check(&DataSpec { replay_share: 0.5, ..plain.clone() }, &[10, 30], &[0.125, 0.375, 0.125, 0.375]);
        let even = DataSpec { temperature: 1000.0, ..plain };
        assert!((even.shares(&[100, 300], &[])[0] - 0.5).abs() < 1e-3);
    }
}
