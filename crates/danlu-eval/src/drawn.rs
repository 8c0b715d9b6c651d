//! How near drawn pictures come to real ones, by what a classifier makes of both: the Fréchet distance, and precision and recall.

use anyhow::{Result, ensure};

/// What a network makes of each picture: rows of `width` numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    values: Vec<f32>,
    width: usize,
}

/// The shares of [`Features::precision_and_recall`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coverage {
    /// Of drawn pictures, those that lie among real ones: quality.
    pub precision: f64,
    /// Of real pictures, those that lie among drawn ones: diversity.
    pub recall: f64,
}

/// Jacobi's rotations go over the whole matrix so often at most; some ten are enough for 16 digits.
const SWEEPS: usize = 60;

impl Features {
    /// # Errors
    /// When there are fewer than two rows, they are not of one width, or a value is no number.
    pub fn new(values: Vec<f32>, width: usize) -> Result<Self> {
        ensure!(width > 0 && values.len().is_multiple_of(width), "{} features are no rows of {width}", values.len());
        ensure!(values.len() >= 2 * width, "a spread is of two pictures at least");
        ensure!(values.iter().all(|x| x.is_finite()), "a feature of a picture is not a number");
        Ok(Self { values, width })
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Whether there are none, which [`Features::new`] does not let be.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.width)
    }

    /// The mean and the covariance, by one picture less than there are.
    fn moments(&self) -> (Vec<f64>, Vec<f64>) {
        let (count, width) = (self.len() as f64, self.width);
        let mut mean = vec![0.0; width];
        self.rows().for_each(|row| mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / count));
        let mut covariance = vec![0.0; width * width];
        let mut centred = vec![0.0; width];
        for row in self.rows() {
            centred.iter_mut().zip(row).zip(&mean).for_each(|((to, x), mean)| *to = f64::from(*x) - mean);
            for (sums, &a) in covariance.chunks_exact_mut(width).zip(&centred) {
                sums.iter_mut().zip(&centred).for_each(|(sum, &b)| *sum += a * b);
            }
        }
        covariance.iter_mut().for_each(|x| *x /= count - 1.0);
        (mean, covariance)
    }

    /// The Fréchet distance between normal distributions with the means and covariances of both
    /// ([Heusel et al. 2017](https://arxiv.org/abs/1706.08500), eq. 6): ‖μ₁ - μ₂‖² + tr(Σ₁ + Σ₂ - 2 (Σ₁Σ₂)^½). It is zero for the same pictures
    /// and grows with what is wrong in either: quality or diversity. It depends on the network and on the numbers of pictures, so that only
    /// distances by the same network, of equally many pictures, can be compared.
    ///
    /// # Panics
    /// When the two have other widths.
    pub fn frechet_distance(&self, other: &Self) -> f64 {
        assert_eq!(self.width, other.width, "features of one network are of one width");
        let ((mean, one), (other_mean, two)) = (self.moments(), other.moments());
        let apart: f64 = mean.iter().zip(&other_mean).map(|(a, b)| (a - b).powi(2)).sum();
        apart + spread_apart(&one, &two, self.width)
    }

    /// Precision and recall ([Kynkäänniemi et al. 2019](https://arxiv.org/abs/1904.06991)): a picture lies among others when it is no farther from
    /// one of them than that one's `nearest`-th neighbour of its own kind (they take 3).
    ///
    /// # Panics
    /// When the two have other widths.
    pub fn precision_and_recall(real: &Self, drawn: &Self, nearest: usize) -> Coverage {
        assert_eq!(real.width, drawn.width, "features of one network are of one width");
        Coverage { precision: drawn.share_among(real, nearest), recall: real.share_among(drawn, nearest) }
    }

    /// The share of these pictures that lie among the others.
    fn share_among(&self, others: &Self, nearest: usize) -> f64 {
        let radii = others.radii(nearest);
        let among = |row: &&[f32]| others.rows().zip(&radii).any(|(other, radius)| square_distance(row, other) <= *radius);
        self.rows().filter(among).count() as f64 / self.len() as f64
    }

    /// The square of the distance from each picture to its `nearest`-th neighbour.
    fn radii(&self, nearest: usize) -> Vec<f32> {
        let radius = |(place, row): (usize, &[f32])| {
            let others = self.rows().enumerate().filter(|(other, _)| *other != place);
            let mut all: Vec<f32> = others.map(|(_, other)| square_distance(row, other)).collect();
            let wanted = nearest.clamp(1, all.len()) - 1;
            *all.select_nth_unstable_by(wanted, f32::total_cmp).1
        };
        self.rows().enumerate().map(radius).collect()
    }
}

fn square_distance(a: &[f32], b: &[f32]) -> f32 {
    // Eight sums side by side, which fit a vector of the processor.
    let mut sums = [0.0f32; 8];
    let (a_eights, b_eights) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a_eights.0.iter().zip(b_eights.0) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += (a - b) * (a - b);
        }
    }
    let rest: f32 = a_eights.1.iter().zip(b_eights.1).map(|(a, b)| (a - b) * (a - b)).sum();
    sums.iter().sum::<f32>() + rest
}

/// tr(A + B - 2 (AB)^½) of two covariances. AB has the eigenvalues of A^½ B A^½, which is symmetric, so that no root of a matrix without
/// symmetry is needed.
fn spread_apart(a: &[f64], b: &[f64], width: usize) -> f64 {
    let trace = |matrix: &[f64]| (0..width).map(|i| matrix[i * width + i]).sum::<f64>();
    let (values, vectors) = eigen(a.to_vec(), width);
    // Rounding may leave an eigenvalue of a covariance a little below zero.
    let roots: Vec<f64> = values.iter().map(|value| value.max(0.0).sqrt()).collect();
    let scaled: Vec<f64> = vectors.iter().enumerate().map(|(at, x)| x * roots[at % width]).collect();
    let root = product(&scaled, &transposed(&vectors, width), width);
    let both = product(&product(&root, b, width), &root, width);
    let common: f64 = eigen(both, width).0.iter().map(|value| value.max(0.0).sqrt()).sum();
    trace(a) + trace(b) - 2.0 * common
}

fn product(a: &[f64], b: &[f64], width: usize) -> Vec<f64> {
    let mut out = vec![0.0; width * width];
    for (out, a) in out.chunks_exact_mut(width).zip(a.chunks_exact(width)) {
        for (&a, b) in a.iter().zip(b.chunks_exact(width)) {
            out.iter_mut().zip(b).for_each(|(out, b)| *out += a * b);
        }
    }
    out
}

fn transposed(matrix: &[f64], width: usize) -> Vec<f64> {
    (0..width * width).map(|at| matrix[at % width * width + at / width]).collect()
}

/// The eigenvalues of a symmetric matrix, and its eigenvectors as columns in their order, by Jacobi's rotations (1846; Golub and Van Loan,
/// "Matrix Computations", 8.5): slower than others and exact to the last digits, also of small values.
fn eigen(mut a: Vec<f64>, width: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors: Vec<f64> = (0..width * width).map(|at| f64::from(u8::from(at / width == at % width))).collect();
    let size: f64 = a.iter().map(|x| x * x).sum();
    for _ in 0..SWEEPS {
        let beside: f64 = (0..width * width).filter(|at| at / width != at % width).map(|at| a[at] * a[at]).sum();
        if beside <= 1e-30 * size {
            break;
        }
        for p in 0..width {
            for q in p + 1..width {
                rotate(&mut a, &mut vectors, width, p, q);
            }
        }
    }
    ((0..width).map(|i| a[i * width + i]).collect(), vectors)
}

/// Turns the plane of `p` and `q` so that the matrix has a zero there.
fn rotate(a: &mut [f64], vectors: &mut [f64], width: usize, p: usize, q: usize) {
    let beside = a[p * width + q];
    if beside == 0.0 {
        return;
    }
    let slope = (a[q * width + q] - a[p * width + p]) / (2.0 * beside);
    let tangent = slope.signum() / (slope.abs() + slope.hypot(1.0));
    let cosine = 1.0 / tangent.hypot(1.0);
    let sine = tangent * cosine;
    let turn = |one: &mut f64, other: &mut f64| (*one, *other) = (cosine * *one - sine * *other, sine * *one + cosine * *other);
    for row in a.chunks_exact_mut(width).chain(vectors.chunks_exact_mut(width)) {
        let (left, right) = row.split_at_mut(q);
        turn(&mut left[p], &mut right[0]);
    }
    let (above, below) = a.split_at_mut(q * width);
    let pairs = above[p * width..][..width].iter_mut().zip(&mut below[..width]);
    pairs.for_each(|(one, other)| turn(one, other));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Repeatable numbers in -1..1.
    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn eigenvectors_make_the_matrix_again() {
        for width in [1, 2, 3, 17] {
            let half: Vec<f64> = numbers(width * width, 3).into_iter().map(f64::from).collect();
            let symmetric = product(&half, &transposed(&half, width), width);
            let (values, vectors) = eigen(symmetric.clone(), width);
            let scaled: Vec<f64> = vectors.iter().enumerate().map(|(at, x)| x * values[at % width]).collect();
            let again = product(&scaled, &transposed(&vectors, width), width);
            assert!(symmetric.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1e-10), "{width}: {symmetric:?} {again:?}");
        }
    }

    /// Where covariances are multiples of each other the distance has a closed form: a set moved by `m` and stretched by `s` is
    /// ‖m‖² + (s - 1)² tr Σ away when it has no mean of its own.
    #[test]
    fn the_distance_is_the_closed_form_s() {
        let width = 6;
        let mut values = numbers(400 * width, 5);
        // Each picture with its opposite, so that the mean is zero; and channels that hang together.
        let opposite: Vec<f32> = values.iter().map(|x| -x).collect();
        values.extend(opposite);
        for row in values.chunks_exact_mut(width) {
            row[1] += 0.5 * row[0];
            row[2] -= row[3];
        }
        let set = Features::new(values.clone(), width).unwrap();
        assert!(set.frechet_distance(&set).abs() < 1e-9);
        let trace: f64 = (0..width).map(|i| set.moments().1[i * width + i]).sum();
        for (moved, stretched) in [(0.0f32, 2.0f32), (0.5, 1.0), (-1.5, 0.25)] {
            let other = Features::new(values.iter().map(|x| stretched * x + moved).collect(), width).unwrap();
            let expected = width as f64 * f64::from(moved).powi(2) + (f64::from(stretched) - 1.0).powi(2) * trace;
            for found in [set.frechet_distance(&other), other.frechet_distance(&set)] {
                assert!((found - expected).abs() < 1e-5 * expected.max(1.0), "{moved} {stretched}: {found} for {expected}");
            }
        }
    }

    /// Diagonal covariances: Σ (σ₁ - σ₂)².
    #[test]
    fn independent_channels_are_apart_by_their_deviations() {
        let corners = |a: f32, b: f32| Features::new(vec![a, b, a, -b, -a, b, -a, -b], 2).unwrap();
        let found = corners(1.0, 2.0).frechet_distance(&corners(3.0, 1.0));
        // Of four pictures the deviation is larger by √(4/3).
        assert!((found - (4.0 + 1.0) * 4.0 / 3.0).abs() < 1e-9, "{found}");
    }

    #[test]
    fn precision_is_of_quality_and_recall_of_diversity() {
        let real = Features::new((0..100).map(|i| i as f32).collect(), 1).unwrap();
        let check = |drawn: Vec<f32>, precision: f64, recall: f64| {
            let drawn = Features::new(drawn, 1).unwrap();
            let found = Features::precision_and_recall(&real, &drawn, 3);
            assert!((found.precision - precision).abs() < 1e-9 && (found.recall - recall).abs() < 1e-9, "{found:?}");
        };
        check((0..100).map(|i| i as f32).collect(), 1.0, 1.0);
        // Good ones of one kind only: four in a place, whose third neighbours are there too.
        check([50.0; 4].to_vec(), 1.0, 0.01);
        // Half of them far from anything.
        check((0..200).map(|i| if i < 100 { i as f32 } else { 1e4 + i as f32 }).collect(), 0.5, 1.0);
        assert!(Features::new(vec![1.0, f32::NAN], 1).is_err() && Features::new(vec![1.0], 1).is_err());
    }
}
