//! Numbers brought to mean 0 and deviation 1 by what they were in training.

/// Standardized numbers beyond this are cut: one odd example should not decide.
const FARTHEST: f64 = 5.0;

/// The mean and the deviation of each of the `width` numbers of a row. The rows are gone through twice and need not all be in memory.
pub(crate) fn usual<R: AsRef<[f64]>>(rows: impl Iterator<Item = R> + Clone, width: usize) -> Vec<(f64, f64)> {
    let mut count = 0.0f64;
    let (mut means, mut variances) = (vec![0.0f64; width], vec![0.0f64; width]);
    for row in rows.clone() {
        count += 1.0;
        means.iter_mut().zip(row.as_ref()).for_each(|(mean, value)| *mean += value);
    }
    means.iter_mut().for_each(|mean| *mean /= count.max(1.0));
    for row in rows {
        for ((variance, mean), value) in variances.iter_mut().zip(&means).zip(row.as_ref()) {
            *variance += (value - mean).powi(2);
        }
    }
    // What never varies says nothing, and must not be divided by zero.
    let deviation = |variance: f64| if variance > 1e-12 { variance.sqrt() } else { 1.0 };
    means.into_iter().zip(variances).map(|(mean, sum)| (mean, deviation(sum / count.max(1.0)))).collect()
}

/// A number by its mean and deviation in training.
pub(crate) fn standardized(value: f64, (mean, deviation): (f64, f64)) -> f32 {
    ((value - mean) / deviation).clamp(-FARTHEST, FARTHEST) as f32
}
