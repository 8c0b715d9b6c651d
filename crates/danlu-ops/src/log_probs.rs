use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use crate::bridge::{Operation, on_cpu, owned, run, values, values_mut};
use crate::buffer::Buffer;
use crate::kernels::{Isa, Mat, MatMut, gemm, simd, simd_fn};
use crate::loss::{carries, check, chunk_tokens, in_chunks, normalizer, plain_nll};
use crate::precision::wide;
use crate::profile::{Part, time};
use crate::rows::{add_scaled, for_each_piece, rows_per_piece, scale};
use crate::{IGNORE, Ids};

/// The log-probability, in nats, of each of `targets` under `softmax(x weightᵀ)`: `x` `[tokens, channels]`, `weight`
/// `[vocabulary, channels]` → `[tokens]`. It is zero, and without gradient, where the target is [`IGNORE`].
///
/// Preference losses and policy gradients give each token a weight that is known only after all log-probabilities are, so unlike
/// [`crate::linear_cross_entropy`] the CPU form computes the logits again in the backward pass. It never holds all of them, and
/// leaves out the tokens without a target.
pub fn linear_log_probs(x: Tensor<2>, weight: Tensor<2>, targets: &Ids) -> Tensor<1> {
    log_probs(x, weight, targets, None)
}

/// [`linear_log_probs`] when the gradient of each is known beforehand but for one factor that all have in common, as in an update of policy
/// gradients that begins with the policy that drew: then the CPU form makes the gradients while it has the logits, and does not compute
/// them again. `expected` is `[tokens]`. Where the gradient turns out to be another, beyond rounding, it is found as it is without.
pub fn linear_log_probs_expecting(x: Tensor<2>, weight: Tensor<2>, targets: &Ids, expected: Vec<f32>) -> Tensor<1> {
    assert_eq!(expected.len(), targets.len(), "one gradient is expected for each token");
    log_probs(x, weight, targets, Some(expected))
}

fn log_probs(x: Tensor<2>, weight: Tensor<2>, targets: &Ids, expected: Option<Vec<f32>>) -> Tensor<1> {
    check(&x, &weight, targets);
    if on_cpu(&x) && on_cpu(&weight) {
        let parameter = weight.is_require_grad();
        let operation = LogProbs { targets: targets.clone(), entropy: false, expected, parameter };
        run::<2, 1>(operation, [x.into_dispatch(), weight.into_dispatch()])
    } else {
        -in_chunks(x, weight, targets, plain_nll)
    }
}

/// [`linear_log_probs`], and the entropy, in nats, of the distribution that each target was drawn from; both `[tokens]`, both with
/// gradients, both zero where the target is [`IGNORE`].
pub fn linear_log_probs_and_entropy(x: Tensor<2>, weight: Tensor<2>, targets: &Ids) -> [Tensor<1>; 2] {
    check(&x, &weight, targets);
    if on_cpu(&x) && on_cpu(&weight) {
        let tokens = targets.len();
        let parameter = weight.is_require_grad();
        let operation = LogProbs { targets: targets.clone(), entropy: true, expected: None, parameter };
        let both = run::<2, 1>(operation, [x.into_dispatch(), weight.into_dispatch()]);
        [both.clone().narrow(0, 0, tokens), both.narrow(0, tokens, tokens)]
    } else {
        let both =
            in_chunks(x, weight, targets, |x, weight, targets| Tensor::stack::<2>(plain_both(x, weight, targets).into(), 0));
        let tokens = targets.len();
        [0, 1].map(|which| both.clone().narrow(0, which, 1).reshape([tokens]))
    }
}

pub(crate) fn plain_both(x: Tensor<2>, weight: Tensor<2>, targets: &Ids) -> [Tensor<1>; 2] {
    let logits = wide(x.clone().matmul(weight.clone().cast(x.dtype()).transpose()));
    let all = logits.clone() - normalizer(logits);
    let entropy = -(all.clone().exp() * all).sum_dim(1).reshape([targets.len()]);
    let carries = carries(targets, &entropy.device());
    [-plain_nll(x, weight, targets), entropy * carries]
}

simd_fn! {
    /// The logarithm of the sum of exponentials of one row of logits, which are spoiled, and the entropy of their softmax if wanted.
    fn normalize(logits: &mut [f32], entropy: bool) -> [f32; 2] {
        let largest = simd::max(logits);
        let mut mean = 0.0;
        if entropy {
            let read = &*logits;
            mean = simd::sum_by(read.len(), |sum, i| {
                let below = read[i] - largest;
                simd::fma::<FMA>(simd::exp::<FMA>(below), below, sum)
            });
        }
        for x in logits.iter_mut() {
            *x = simd::exp::<FMA>(*x - largest);
        }
        let total = simd::sum(logits);
        [total.ln() + largest, total.ln() - mean / total]
    }

    /// One row that [`normalize`] spoiled becomes the gradient of `dy` times its target's log-probability.
    fn spoiled_gradient(logits: &mut [f32], target: usize, dy: f32) {
        let factor = -dy / simd::sum(logits);
        for x in logits.iter_mut() {
            *x *= factor;
        }
        logits[target] += dy;
    }

    /// One row of logits becomes its gradient, where `dy` is that of the target's log-probability and `dh` that of the entropy.
    fn gradient(logits: &mut [f32], normalizer: f32, target: usize, dy: f32, entropy: f32, dh: f32) {
        if dh == 0.0 {
            for x in logits.iter_mut() {
                *x = -dy * simd::exp::<FMA>(*x - normalizer);
            }
        } else {
            for x in logits.iter_mut() {
                let log = *x - normalizer;
                *x = -simd::exp::<FMA>(log) * simd::fma::<FMA>(dh, log + entropy, dy);
            }
        }
        logits[target] += dy;
    }
}

struct LogProbs {
    targets: Ids,
    /// The output is `[2 × tokens]`: log-probabilities, then entropies.
    entropy: bool,
    /// What the gradients of the log-probabilities will be, but for a factor.
    expected: Option<Vec<f32>>,
    /// Whether the weight is a parameter, to whose gradient is added in place.
    parameter: bool,
}

struct Saved {
    x: FlexTensor,
    weight: FlexTensor,
    /// Of each token that has a target: the logarithm of its sum of exponentials, and its entropy.
    normalizers: Vec<[f32; 2]>,
    /// The gradients for the expected ones.
    early: Option<Early>,
}

/// Gradients of the rows of `x` that have a target, and of the weight; each empty where it is not needed.
struct Early {
    rows: Buffer,
    weight: Buffer,
}

/// How far gradients may be from being one factor times the expected ones: what some multiplications in another order may round away.
const ROUNDING: f32 = 16.0 * f32::EPSILON;

impl LogProbs {
    /// The tokens that have a target.
    fn carrying(&self) -> Vec<usize> {
        (0..self.targets.len()).filter(|&i| self.targets[i] != IGNORE).collect()
    }

    /// Calls `body` with the tokens of each chunk, where the chunk begins among those carrying, their rows of `x` and their logits.
    fn chunks(&self, x: &[f32], weight: &[f32], mut body: impl FnMut(&[usize], usize, &[f32], &mut [f32])) {
        let rows = self.carrying();
        let channels = x.len() / self.targets.len().max(1);
        let vocabulary = weight.len() / channels.max(1);
        let most = chunk_tokens(vocabulary, rows.len());
        let (mut gathered, mut logits) = (Buffer::new(most * channels), Buffer::new(most * vocabulary));
        for (i, rows) in rows.chunks(most).enumerate() {
            let gathered = &mut gathered[..rows.len() * channels];
            for (to, &row) in gathered.chunks_exact_mut(channels).zip(rows) {
                to.copy_from_slice(&x[row * channels..][..channels]);
            }
            let logits = &mut logits[..rows.len() * vocabulary];
            let (a, b) = (Mat::row_major(gathered, rows.len(), channels), Mat::row_major(weight, vocabulary, channels));
            time(Part::Gemm, || gemm(MatMut::row_major(logits, rows.len(), vocabulary), a, b.t(), false));
            body(rows, i * most, gathered, logits);
        }
    }

    /// By what all of `dy` is the expected gradient, if it is.
    fn factor(&self, dy: &[f32]) -> Option<f32> {
        let expected = self.expected.as_ref()?;
        let rows = self.carrying();
        let largest = rows.iter().copied().max_by(|&a, &b| expected[a].abs().total_cmp(&expected[b].abs()))?;
        let factor = dy[largest] / expected[largest];
        let alike = |&row: &usize| (dy[row] - factor * expected[row]).abs() <= ROUNDING * dy[row].abs();
        (factor.is_finite() && rows.iter().all(alike)).then_some(factor)
    }

    /// The gradient of the rows of `x` at their places, zeros between them.
    fn spread(&self, some: &[f32], tokens: usize, channels: usize, factor: f32) -> FlexTensor {
        let mut all = Buffer::new(tokens * channels);
        all.fill(0.0);
        for (from, row) in some.chunks_exact(channels.max(1)).zip(self.carrying()) {
            all[row * channels..][..channels].iter_mut().zip(from).for_each(|(to, from)| *to = from * factor);
        }
        all.into_tensor([tokens, channels])
    }
}

/// The weight, `[vocabulary, channels]`, and what the gradient of a chunk's logits is multiplied with.
struct Head<'a> {
    weight: &'a [f32],
    channels: usize,
}

impl Head<'_> {
    /// From the gradient of a chunk's logits that of its rows `x`, which `dx` becomes, and that of the weight, which `dw` becomes, or is
    /// added to it where `more` says so; each unless it is empty.
    fn gradients(&self, logits: &[f32], x: &[f32], dx: &mut [f32], dw: &mut [f32], more: bool) {
        let (rows, vocabulary) = (x.len() / self.channels.max(1), self.weight.len() / self.channels.max(1));
        let logits = Mat::row_major(logits, rows, vocabulary);
        time(Part::Gemm, || {
            if !dx.is_empty() {
                let weight = Mat::row_major(self.weight, vocabulary, self.channels);
                gemm(MatMut::row_major(dx, rows, self.channels), logits, weight, false);
            }
            if !dw.is_empty() {
                let x = Mat::row_major(x, rows, self.channels);
                gemm(MatMut::row_major(dw, vocabulary, self.channels), logits.t(), x, more);
            }
        });
    }
}

/// The part of `rows` that belongs to some of its rows, or nothing of nothing.
fn part(rows: &mut [f32], begin: usize, count: usize, channels: usize) -> &mut [f32] {
    if rows.is_empty() { rows } else { &mut rows[begin * channels..][..count * channels] }
}

impl Operation<2> for LogProbs {
    type Saved = Saved;

    fn forward(&self, [x, weight]: [FlexTensor; 2], needed: [bool; 2]) -> (FlexTensor, Option<Saved>) {
        let tokens = self.targets.len();
        let length = if self.entropy { 2 * tokens } else { tokens };
        let mut y = Buffer::new(length);
        y.fill(0.0);
        let mut normalizers = vec![[0.0; 2]; self.carrying().len()];
        let channels = values(&x).len() / tokens.max(1);
        let head = Head { weight: values(&weight), channels };
        let expected = self.expected.as_ref().filter(|_| needed.contains(&true) && !normalizers.is_empty());
        let mut early = expected.map(|_| Early {
            rows: Buffer::new(if needed[0] { normalizers.len() * channels } else { 0 }),
            weight: Buffer::new(if needed[1] { head.weight.len() } else { 0 }),
        });
        self.chunks(values(&x), head.weight, |rows, begin, gathered, logits| {
            let vocabulary = logits.len() / rows.len();
            for (i, &row) in rows.iter().enumerate() {
                // The pass below spoils the logits.
                y[row] = logits[i * vocabulary + self.targets[row] as usize];
            }
            let piece = rows_per_piece(rows.len(), vocabulary);
            let found = normalizers[begin..begin + rows.len()].as_flattened_mut();
            time(Part::Loss, || {
                for_each_piece([&mut *logits, found], [piece * vocabulary, 2 * piece], |i, [logits, found]| {
                    let rows = rows[i * piece..].iter().zip(found.as_chunks_mut().0);
                    for (logits, (&row, found)) in logits.chunks_exact_mut(vocabulary).zip(rows) {
                        *found = normalize(Isa::current(), logits, self.entropy);
                        if let Some(expected) = expected {
                            spoiled_gradient(Isa::current(), logits, self.targets[row] as usize, expected[row]);
                        }
                    }
                });
            });
            for (&row, [normalizer, entropy]) in rows.iter().zip(&normalizers[begin..]) {
                y[row] -= normalizer;
                if self.entropy {
                    y[tokens + row] = *entropy;
                }
            }
            if let Some(Early { rows: dx, weight: dw }) = &mut early {
                head.gradients(logits, gathered, part(dx, begin, rows.len(), channels), dw, begin > 0);
            }
        });
        let saved = needed.contains(&true).then_some(Saved { x, weight, normalizers, early });
        (y.into_tensor([length]), saved)
    }

    fn backward(&self, saved: Saved, dy: FlexTensor, needed: [bool; 2]) -> [Option<FlexTensor>; 2] {
        self.add_backward([None, None], saved, dy, needed)
    }

    fn adds(&self) -> [bool; 2] {
        [false, self.parameter]
    }

    fn add_backward(
        &self,
        [_, found]: [Option<FlexTensor>; 2],
        saved: Saved,
        dy: FlexTensor,
        needed: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let Saved { x, weight, normalizers, early } = saved;
        let (tokens, dy) = (self.targets.len(), values(&dy));
        let (x, weight) = (values(&x), values(&weight));
        let channels = x.len() / tokens.max(1);
        let vocabulary = weight.len() / channels.max(1);
        let shape = [vocabulary, channels];
        if let (Some(Early { rows, weight: mut dw }), Some(factor)) = (early, self.factor(dy)) {
            let dx = needed[0].then(|| self.spread(&rows, tokens, channels, factor));
            let dw = needed[1].then(|| match found.map(owned) {
                Some(mut found) => {
                    time(Part::Loss, || add_scaled(values_mut(&mut found), &dw, factor));
                    found
                }
                None => {
                    time(Part::Loss, || scale(&mut dw, factor));
                    dw.into_tensor(shape)
                }
            });
            return [dx, dw];
        }
        let more = found.is_some();
        let fresh =
            || Buffer::new(if needed[1] { weight.len() } else { 0 }).into_tensor(if needed[1] { shape } else { [0, channels] });
        let mut dw = found.map_or_else(fresh, owned);
        if normalizers.is_empty() && !more {
            values_mut(&mut dw).fill(0.0);
        }
        let mut rows_dx = Buffer::new(if needed[0] { normalizers.len() * channels } else { 0 });
        let head = Head { weight, channels };
        let to = values_mut(&mut dw);
        self.chunks(x, weight, |rows, begin, x, logits| {
            let piece = rows_per_piece(rows.len(), vocabulary);
            time(Part::Loss, || {
                for_each_piece([&mut *logits], [piece * vocabulary], |i, [logits]| {
                    let rows = rows[i * piece..].iter().zip(&normalizers[begin + i * piece..]);
                    for (logits, (&row, &[normalizer, entropy])) in logits.chunks_exact_mut(vocabulary).zip(rows) {
                        let dh = if self.entropy { dy[tokens + row] } else { 0.0 };
                        gradient(Isa::current(), logits, normalizer, self.targets[row] as usize, dy[row], entropy, dh);
                    }
                });
            });
            head.gradients(logits, x, part(&mut rows_dx, begin, rows.len(), channels), to, more || begin > 0);
        });
        [needed[0].then(|| self.spread(&rows_dx, tokens, channels, 1.0)), needed[1].then_some(dw)]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::tests::{assert_close, numbers, tensor, to_vec};

    /// Log-probabilities, and the gradients of `x` and of the weight when those of the log-probabilities are `given`.
    fn found(targets: &Ids, given: &[f32], expected: Option<Vec<f32>>) -> [Vec<f32>; 3] {
        let device = Device::flex().autodiff();
        let (x, weight) = (tensor([targets.len(), 12], 1, &device).require_grad(), tensor([40, 12], 2, &device).require_grad());
        let y = log_probs(x.clone(), weight.clone(), targets, expected);
        let mut gradients = (y.clone() * Tensor::<1>::from_floats(given, &device)).sum().backward();
        let [dx, dw] = [x, weight].map(|leaf| to_vec(leaf.grad_remove(&mut gradients).unwrap()));
        [to_vec(y.inner()), dx, dw]
    }

    /// Whatever was expected, what is found is what is found without: where it was right but for a factor, and where it was not.
    #[test]
    fn expectations_change_nothing() {
        let some: Ids = (0..30).map(|i| if i % 4 == 0 { IGNORE } else { (i * 7) % 40 }).collect();
        let none: Ids = vec![IGNORE; 30].into();
        let given = numbers(30, 5);
        for targets in [some, none] {
            let want = found(&targets, &given, None);
            let third: Vec<f32> = given.iter().map(|x| x / 3.0).collect();
            for expected in [third, given.clone(), numbers(30, 6), vec![0.0; 30]] {
                for (got, want) in found(&targets, &given, Some(expected)).iter().zip(&want) {
                    assert_close("with an expectation", got, want, 2e-6);
                }
            }
        }
    }

    #[test]
    fn only_multiples_are_as_expected() {
        let targets: Ids = vec![1, IGNORE, 2, 3].into();
        let operation = |expected| LogProbs { targets: targets.clone(), entropy: false, expected, parameter: false };
        let dy = [2.0, 9.0, -4.0, 0.0];
        assert_eq!(operation(Some(vec![-1.0, 0.0, 2.0, 0.0])).factor(&dy), Some(-2.0));
        assert_eq!(operation(Some(vec![-1.0, 0.0, 2.0, 1e-6])).factor(&dy), None);
        assert_eq!(operation(Some(vec![0.0; 4])).factor(&dy), None);
        assert_eq!(operation(None).factor(&dy), None);
    }
}
