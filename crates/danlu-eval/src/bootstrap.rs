/// Resamples of the bootstrap. With 1,000 the ends of a 95 % interval stand on 25 values each.
const RESAMPLES: usize = 1000;

/// The 95 % percentile interval of `Σ numerator / Σ denominator` over documents drawn with replacement
/// ([Efron 1979](https://doi.org/10.1214/aos/1176344552)). Deterministic. A single document says nothing about others, so its interval
/// is unbounded above and starts at zero.
pub fn interval(documents: &[(f64, f64)]) -> (f64, f64) {
    if documents.len() < 2 {
        return (0.0, f64::INFINITY);
    }
    resampled(documents.len(), |drawn| ratio(drawn.iter().map(|&i| documents[i])))
}

/// The 95 % interval of the difference between two ratios `after − before` that were measured on the same documents, in the same order: each
/// resample draws documents, not measurements, so that what makes a document hard for both cancels
/// ([Koehn 2004](https://aclanthology.org/W04-3250/)). Fewer than two documents say nothing.
pub fn paired_interval(before: &[(f64, f64)], after: &[(f64, f64)]) -> (f64, f64) {
    let count = before.len().min(after.len());
    if count < 2 {
        return (f64::NEG_INFINITY, f64::INFINITY);
    }
    resampled(count, |drawn| ratio(drawn.iter().map(|&i| after[i])) - ratio(drawn.iter().map(|&i| before[i])))
}

/// The 95 % percentile interval of what `score` gives of the sum of many items' parts, over items drawn with replacement, as for BLEU
/// ([Koehn 2004](https://aclanthology.org/W04-3250/)). Deterministic. Fewer than two items say nothing.
pub fn interval_of_sums<T: Copy + std::iter::Sum>(items: &[T], score: impl Fn(T) -> f64) -> (f64, f64) {
    if items.len() < 2 {
        return (0.0, f64::INFINITY);
    }
    resampled(items.len(), |drawn| score(drawn.iter().map(|&i| items[i]).sum()))
}

/// `Σ numerator / Σ denominator`.
pub fn ratio(pairs: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (above, below) = pairs.fold((0.0, 0.0), |(above, below), (a, b)| (above + a, below + b));
    above / below
}

/// The ends of the middle 95 % of a statistic over draws of `count` indices.
pub(crate) fn resampled(count: usize, statistic: impl Fn(&[usize]) -> f64) -> (f64, f64) {
    let mut random = SplitMix(0x000d_a271);
    let mut drawn = vec![0; count];
    let mut values: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            drawn.iter_mut().for_each(|i| *i = random.below(count));
            statistic(&drawn)
        })
        .collect();
    values.sort_unstable_by(f64::total_cmp);
    (values[RESAMPLES / 40], values[RESAMPLES - 1 - RESAMPLES / 40])
}

/// SplitMix64 ([Steele 2014](https://doi.org/10.1145/2714064.2660195)): enough for drawing indices, and the same everywhere.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The high half of a product is uniform to within n / 2^64.
        ((u128::from(z ^ (z >> 31)) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_covers_the_truth_about_as_often_as_it_says() {
        let mut random = SplitMix(7);
        let trials = 200;
        let covered = (0..trials)
            .filter(|_| {
                // Documents of unequal length whose true ratio is 2.
                let documents: Vec<(f64, f64)> = (0..60)
                    .map(|_| {
                        let length = 50.0 + random.below(1000) as f64;
                        (length * (1.0 + random.below(2001) as f64 / 1000.0), length)
                    })
                    .collect();
                let (low, high) = interval(&documents);
                (low..=high).contains(&2.0)
            })
            .count();
        // Five standard deviations of a binomial around 95 %, and a little for the bootstrap's bias with 60 documents.
        assert!((170..=200).contains(&covered), "{covered} of {trials}");
    }

    #[test]
    fn it_is_deterministic_and_needs_two_documents() {
        let documents = [(1.0, 1.0), (3.0, 1.0), (2.0, 1.0)];
        assert_eq!(interval(&documents), interval(&documents));
        assert_eq!(interval(&documents[..1]), (0.0, f64::INFINITY));
        assert_eq!(interval(&[(2.0, 1.0), (4.0, 2.0)]), (2.0, 2.0));
    }
    #[test]
    fn sums_are_resampled_as_ratios_are() {
        let documents: Vec<(f64, f64)> = (1..40).map(|i| (f64::from(i * 7 % 11), f64::from(i % 5 + 1))).collect();
        #[derive(Clone, Copy)]
        struct Pair((f64, f64));
        impl std::iter::Sum for Pair {
            fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
                Pair(all.fold((0.0, 0.0), |(a, b), Pair((c, d))| (a + c, b + d)))
            }
        }
        let pairs: Vec<Pair> = documents.iter().map(|&pair| Pair(pair)).collect();
        assert_eq!(interval_of_sums(&pairs, |Pair((a, b))| a / b), interval(&documents));
    }

    #[test]
    fn a_paired_interval_sees_what_two_intervals_do_not() {
        let mut random = SplitMix(11);
        // Documents differ by far more than the two models do.
        let before: Vec<(f64, f64)> = (0..100).map(|_| (1.0 + random.below(1000) as f64 / 100.0, 1.0)).collect();
        let after: Vec<(f64, f64)> =
            before.iter().map(|(value, one)| (value - 0.05 - random.below(100) as f64 / 5000.0, *one)).collect();
        let (low, high) = paired_interval(&before, &after);
        assert!(-0.08 < low && low < high && high < -0.05, "{low} to {high}");
        let (alone, other) = (interval(&before), interval(&after));
        assert!(alone.0 < other.1 && other.0 < alone.1, "apart they overlap");
        assert_eq!(paired_interval(&before, &before), (0.0, 0.0));
        assert_eq!(paired_interval(&before[..1], &after[..1]), (f64::NEG_INFINITY, f64::INFINITY));
    }
}
