//! Whether a model is as sure as it is right.

/// Bins of [`calibration_error`], as in Guo et al.
const BINS: usize = 15;

/// The expected calibration error ([Naeini et al. 2015](https://doi.org/10.1609/aaai.v29i1.9602);
/// [Guo et al. 2017](https://arxiv.org/abs/1706.04599)): how far the share that is right is from the confidence, on average over bins of
/// equal width, by the share of predictions in each. `predictions` are the probability given to what was predicted, and whether it was right.
/// Zero is best; NaN of none.
pub fn calibration_error(predictions: &[(f64, bool)]) -> f64 {
    let mut bins = [(0.0, 0.0); BINS];
    for &(confidence, right) in predictions {
        let bin = ((confidence * BINS as f64) as usize).min(BINS - 1);
        bins[bin].0 += confidence;
        bins[bin].1 += f64::from(right);
    }
    bins.iter().map(|(confidence, right): &(f64, f64)| (confidence - right).abs()).sum::<f64>() / predictions.len() as f64
}

/// The Brier score ([Brier 1950](https://doi.org/10.1175/1520-0493(1950)078%3C0001:VOFEIT%3E2.0.CO;2)): the mean square of how far the
/// probability of an event was from one where it happened and from zero where it did not. Zero is best, always saying a half gives 0.25; NaN of
/// none.
pub fn brier(predictions: &[(f64, bool)]) -> f64 {
    let square = |&(probability, happened): &(f64, bool)| (probability - f64::from(happened)).powi(2);
    predictions.iter().map(square).sum::<f64>() / predictions.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_what_their_definitions_say() {
        // Two bins: 0.9 said of four of which three were right, 0.55 of two of which one was.
        let said = [(0.9, true), (0.9, true), (0.9, false), (0.9, true), (0.55, true), (0.55, false)];
        assert!((calibration_error(&said) - (4.0 * 0.15 + 2.0 * 0.05) / 6.0).abs() < 1e-12);
        assert!((brier(&said) - (3.0 * 0.01 + 0.81 + 0.2025 + 0.3025) / 6.0).abs() < 1e-12);
        assert_eq!((calibration_error(&[(1.0, true), (0.0, false)]), brier(&[(1.0, true), (0.0, false)])), (0.0, 0.0));
        assert_eq!(brier(&[(0.5, true), (0.5, false)]), 0.25);
        assert!(calibration_error(&[]).is_nan());
    }
}
