use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use crate::bridge::{Operation, on_cpu, run, values};
use crate::buffer::Buffer;
use crate::kernels::{Isa, Mat, MatMut, gemm, simd, simd_fn};
use crate::loss::{carries, check, chunk_tokens, in_chunks, normalizer, plain_nll};
use crate::precision::wide;
use crate::profile::{Part, time};
use crate::rows::{for_each_piece, rows_per_piece};
use crate::{IGNORE, Ids};

/// The log-probability, in nats, of each of `targets` under `softmax(x weightᵀ)`: `x` `[tokens, channels]`, `weight`
/// `[vocabulary, channels]` → `[tokens]`. It is zero, and without gradient, where the target is [`IGNORE`].
///
/// Preference losses and policy gradients give each token a weight that is known only after all log-probabilities are, so unlike
/// [`crate::linear_cross_entropy`] the CPU form computes the logits again in the backward pass. It never holds all of them, and
/// leaves out the tokens without a target.
pub fn linear_log_probs(x: Tensor<2>, weight: Tensor<2>, targets: &Ids) -> Tensor<1> {
    check(&x, &weight, targets);
    if on_cpu(&x) && on_cpu(&weight) {
        let operation = LogProbs { targets: targets.clone(), entropy: false };
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
        let operation = LogProbs { targets: targets.clone(), entropy: true };
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
}

struct Saved {
    x: FlexTensor,
    weight: FlexTensor,
    /// Of each token that has a target: the logarithm of its sum of exponentials, and its entropy.
    normalizers: Vec<[f32; 2]>,
}

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
}

impl Operation<2> for LogProbs {
    type Saved = Saved;

    fn forward(&self, [x, weight]: [FlexTensor; 2], needed: [bool; 2]) -> (FlexTensor, Option<Saved>) {
        let tokens = self.targets.len();
        let length = if self.entropy { 2 * tokens } else { tokens };
        let mut y = Buffer::new(length);
        y.fill(0.0);
        let mut normalizers = vec![[0.0; 2]; self.carrying().len()];
        self.chunks(values(&x), values(&weight), |rows, begin, _, logits| {
            let vocabulary = logits.len() / rows.len();
            for (i, &row) in rows.iter().enumerate() {
                // The pass below spoils the logits.
                y[row] = logits[i * vocabulary + self.targets[row] as usize];
            }
            let piece = rows_per_piece(rows.len(), vocabulary);
            let found = normalizers[begin..begin + rows.len()].as_flattened_mut();
            time(Part::Loss, || {
                for_each_piece([logits, found], [piece * vocabulary, 2 * piece], |_, [logits, found]| {
                    for (logits, found) in logits.chunks_exact_mut(vocabulary).zip(found.as_chunks_mut().0) {
                        *found = normalize(Isa::current(), logits, self.entropy);
                    }
                });
            });
            for (&row, [normalizer, entropy]) in rows.iter().zip(&normalizers[begin..]) {
                y[row] -= normalizer;
                if self.entropy {
                    y[tokens + row] = *entropy;
                }
            }
        });
        let saved = needed.contains(&true).then_some(Saved { x, weight, normalizers });
        (y.into_tensor([length]), saved)
    }

    fn backward(&self, saved: Saved, dy: FlexTensor, needed: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let Saved { x, weight, normalizers } = saved;
        let (tokens, dy) = (self.targets.len(), values(&dy));
        let (x, weight) = (values(&x), values(&weight));
        let channels = x.len() / tokens.max(1);
        let vocabulary = weight.len() / channels.max(1);
        let mut dx = Buffer::new(if needed[0] { x.len() } else { 0 });
        let mut dw = Buffer::new(if needed[1] { weight.len() } else { 0 });
        dx.fill(0.0);
        if normalizers.is_empty() {
            dw.fill(0.0);
        }
        let mut rows_dx = Buffer::new(if needed[0] { chunk_tokens(vocabulary, normalizers.len()) * channels } else { 0 });
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
            let logits = Mat::row_major(logits, rows.len(), vocabulary);
            if needed[0] {
                let rows_dx = &mut rows_dx[..rows.len() * channels];
                let head = Mat::row_major(weight, vocabulary, channels);
                time(Part::Gemm, || gemm(MatMut::row_major(rows_dx, rows.len(), channels), logits, head, false));
                for (from, &row) in rows_dx.chunks_exact(channels).zip(rows) {
                    dx[row * channels..][..channels].copy_from_slice(from);
                }
            }
            if needed[1] {
                let x = Mat::row_major(x, rows.len(), channels);
                time(Part::Gemm, || gemm(MatMut::row_major(&mut dw, vocabulary, channels), logits.t(), x, begin > 0));
            }
        });
        [needed[0].then(|| dx.into_tensor([tokens, channels])), needed[1].then(|| dw.into_tensor([vocabulary, channels]))]
    }
}
