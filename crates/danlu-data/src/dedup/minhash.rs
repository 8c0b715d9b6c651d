//! Signatures whose agreement estimates the Jaccard similarity of two shingle sets: fast similarity sketching (Dahlgaard, Knudsen and
//! Thorup, arXiv 1704.04370). It has the error bounds of MinHash (Broder 1997) at the cost of one hash a shingle instead of one for
//! each signature value.

use crate::hash;

/// Values of a signature. The estimate's standard deviation is √(J(1−J)/256): 0.025 at a similarity of 0.8.
pub(crate) const VALUES: usize = 256;

/// A signature: 16 bits of each minimum, enough that a chance agreement is one in 65,536.
pub(crate) type Signature = [u16; VALUES];

/// Buffers kept between texts.
pub(super) struct Sketcher {
    minima: Box<[u64; VALUES]>,
}

impl Default for Sketcher {
    fn default() -> Self {
        Self { minima: Box::new([u64::MAX; VALUES]) }
    }
}

impl Sketcher {
    /// The signature of a set, which may hold a value more than once.
    ///
    /// In round `i` every element is thrown into one of the bins with a random value, and a bin that no earlier round filled keeps the
    /// least. From round `VALUES` on, round `VALUES + b` throws every element into bin `b`, so that all are filled in the end.
    pub fn sketch(&mut self, shingles: &[u64]) -> Signature {
        let mut signature = [0; VALUES];
        if shingles.is_empty() {
            return signature;
        }
        let mut filled_before = [false; VALUES];
        for round in 0..2 * VALUES as u64 {
            self.minima.fill(u64::MAX);
            // Twice, since a product with keys that differ in few bits would throw an element into neighbouring bins round after round.
            let key = hash::fold(hash::fold(round, 0), round);
            for shingle in shingles {
                let value = hash::fold(*shingle, key);
                // The top bits choose the bin, the others are the value.
                let bin = if round < VALUES as u64 { (value >> 56) as usize } else { round as usize - VALUES };
                let value = value & (u64::MAX >> 8);
                self.minima[bin] = self.minima[bin].min(value);
            }
            let mut all = true;
            for bin in 0..VALUES {
                if !filled_before[bin] && self.minima[bin] != u64::MAX {
                    filled_before[bin] = true;
                    signature[bin] = hash::fold(self.minima[bin], round) as u16;
                }
                all &= filled_before[bin];
            }
            if all {
                break;
            }
        }
        signature
    }
}

/// The estimated Jaccard similarity.
pub(crate) fn similarity(a: &Signature, b: &Signature) -> f64 {
    let equal = a.iter().zip(b).filter(|(a, b)| a == b).count();
    equal as f64 / VALUES as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(size: u64, shared: u64) {
        let jaccard = shared as f64 / (2 * size - shared) as f64;
        let mut sketcher = Sketcher::default();
        let (mut sum, mut squares) = (0.0, 0.0);
        let trials = 300;
        for trial in 0..trials {
            let element = |i: u64| hash::fold(i, trial + 1_000);
            let a: Vec<u64> = (0..size).map(element).collect();
            let b: Vec<u64> = (size - shared..2 * size - shared).map(element).collect();
            let estimate = similarity(&sketcher.sketch(&a), &sketcher.sketch(&b));
            sum += estimate;
            squares += estimate * estimate;
        }
        let mean = sum / trials as f64;
        let deviation = (squares / trials as f64 - mean * mean).max(0.0).sqrt();
        let expected = (jaccard * (1.0 - jaccard) / VALUES as f64).sqrt();
        assert!((mean - jaccard).abs() < 5.0 * expected / (trials as f64).sqrt() + 1e-9, "{size} {shared}: {mean} for {jaccard}");
        // For sets smaller than the signature the values are not independent, and the deviation is the set's own granularity.
        assert!(deviation < 1.2 * expected + 1e-9, "{size} {shared}: deviation {deviation}, MinHash has {expected}");
    }

    #[test]
    fn agreement_estimates_similarity_for_sets_of_every_size() {
        for (size, shared) in [(1, 1), (2, 1), (10, 8), (50, 45), (300, 200), (1_000, 890), (5_000, 500), (20, 0)] {
            check(size, shared);
        }
    }

    #[test]
    fn repeats_do_not_count() {
        let mut sketcher = Sketcher::default();
        assert_eq!(sketcher.sketch(&[1, 2, 3]), sketcher.sketch(&[3, 2, 1, 1, 3]));
    }
}
