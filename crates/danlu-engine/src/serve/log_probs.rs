use danlu_ops::kernels::{Isa, simd};

/// Log-probabilities at one place of a text, in nats, in the model's own distribution: temperature 1, no penalties or restrictions.
#[derive(Clone, Debug, PartialEq)]
pub struct LogProbs {
    /// Of the token that was drawn.
    pub token: f32,
    /// The likeliest tokens, likeliest first.
    pub top: Vec<(u32, f32)>,
}

impl LogProbs {
    /// Overwrites the logits.
    pub(super) fn new(logits: &mut [f32], token: u32, top: usize) -> Self {
        let isa = Isa::current();
        let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        let mut likeliest: Vec<u32> = (0..logits.len() as u32).collect();
        if (1..likeliest.len()).contains(&top) {
            likeliest.select_nth_unstable_by(top - 1, by_logit);
        }
        likeliest.truncate(top);
        likeliest.sort_unstable_by(by_logit);
        let (chosen, tops) = (logits[token as usize], likeliest.iter().map(|t| logits[*t as usize]).collect::<Vec<f32>>());
        let largest = simd::row_max(isa, logits);
        let total = largest + simd::exp_sum(isa, logits, largest).ln();
        Self { token: chosen - total, top: likeliest.into_iter().zip(tops).map(|(t, logit)| (t, logit - total)).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_logarithms_of_probabilities_in_order() {
        let p = [0.1_f32, 0.4, 0.2, 0.05, 0.25];
        for top in 0..=5 {
            let mut logits = p.map(|p| p.ln() + 2.0);
            let got = LogProbs::new(&mut logits, 2, top);
            assert!((got.token - 0.2_f32.ln()).abs() < 1e-6);
            assert_eq!(got.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 4, 2, 0, 3][..top]);
            assert!(got.top.iter().all(|(t, log)| (log - p[*t as usize].ln()).abs() < 1e-6));
        }
    }
}
