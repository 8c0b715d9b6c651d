use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;

use crate::bridge::{Operation, on_cpu, owned, run, values, values_mut};
use crate::buffer::Buffer;
use crate::kernels::{Isa, Mat, MatMut, gemm, simd, simd_fn};
use crate::loss::{carries, check, chunk_tokens, plain_nll};
use crate::precision::wide;
use crate::profile::{Part, time};
use crate::rows::{for_each_piece, rows_per_piece, scale};
use crate::{IGNORE, Ids};

#[cfg(test)]
mod tests;

/// How far a student's distribution q over the vocabulary is from its teacher's p.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divergence {
    /// `KL(p ‖ q)`: the student covers all that the teacher might say ([Hinton et al. 2015](https://arxiv.org/abs/1503.02531)).
    Forward,
    /// `KL(q ‖ p)`: the student says only what the teacher would ([Gu et al. 2023](https://arxiv.org/abs/2306.08543)).
    Reverse,
    /// `β KL(p ‖ m) + (1 − β) KL(q ‖ m)` with `m = β p + (1 − β) q`, between the two ([Agarwal et al. 2023](https://arxiv.org/abs/2306.13649)).
    JensenShannon { beta: f32 },
}

/// What a student's loss is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distillation {
    pub divergence: Divergence,
    /// Both models' logits are divided by it; the divergence is multiplied by its square, so that its gradient keeps its size.
    pub temperature: f32,
    /// The part of the loss that is the negative log-likelihood of the targets; the rest is the divergence.
    pub hard: f32,
}

/// Means over the tokens that carry loss, in nats.
pub struct Distilled {
    /// `hard · nll + (1 − hard) · soft`, `[1]`; the only one with a gradient.
    pub loss: Tensor<1>,
    /// The negative log-likelihood of the targets, `[1]`.
    pub nll: Tensor<1>,
    /// The divergence from the teacher times the square of the temperature, `[1]`.
    pub soft: Tensor<1>,
}

/// The loss of a student that learns from a teacher over the same vocabulary: `x` `[tokens, channels]` and `weight` `[vocabulary, channels]` are
/// the student's, `teacher` the teacher's two, of channels of their own, which get no gradient. Targets equal to [`IGNORE`] carry no loss.
///
/// The CPU form holds the logits of a chunk of tokens at a time, of both models, and computes the gradients with the loss.
///
/// # Panics
/// When shapes do not fit each other, or the two vocabularies have not the same size.
pub fn linear_distill(x: Tensor<2>, weight: Tensor<2>, teacher: [Tensor<2>; 2], targets: &Ids, spec: &Distillation) -> Distilled {
    check(&x, &weight, targets);
    let teacher = teacher.map(Tensor::inner);
    check(&teacher[0], &teacher[1], targets);
    let (ours, theirs) = (weight.dims()[0], teacher[1].dims()[0]);
    assert_eq!(ours, theirs, "the student's vocabulary and the teacher's are not of one size");
    let all = if [&x, &weight, &teacher[0], &teacher[1]].iter().all(|tensor| on_cpu(tensor)) {
        let [hidden, head] = teacher;
        let inputs = [x, weight, hidden, head].map(Tensor::into_dispatch);
        run::<4, 1>(Distill { targets: targets.clone(), spec: *spec }, inputs)
    } else {
        plain(x, weight, teacher, targets, spec)
    };
    let part = |i: usize| all.clone().narrow(0, i, 1);
    Distilled { loss: part(0), nll: part(1).detach(), soft: part(2).detach() }
}

/// The three means of [`Distilled`], `[3]`.
pub(crate) fn plain(x: Tensor<2>, weight: Tensor<2>, teacher: [Tensor<2>; 2], targets: &Ids, spec: &Distillation) -> Tensor<1> {
    let temperature = f64::from(spec.temperature);
    let [hidden, head] = teacher;
    let logits = |x: Tensor<2>, weight: Tensor<2>| wide(x.clone().matmul(weight.cast(x.dtype()).transpose()));
    let log_q = log_softmax(logits(x.clone(), weight.clone()) / temperature, 1);
    let log_p = log_softmax(logits(hidden, head) / temperature, 1);
    let (q, p) = (log_q.clone().exp(), log_p.clone().exp());
    let each = match spec.divergence {
        Divergence::Forward => p * (log_p - log_q),
        Divergence::Reverse => q * (log_q - log_p),
        Divergence::JensenShannon { beta } => {
            let beta = f64::from(beta);
            let log_m = (q.clone() * (1.0 - beta) + p.clone() * beta).clamp_min(f32::MIN_POSITIVE).log();
            p * (log_p - log_m.clone()) * beta + q * (log_q - log_m) * (1.0 - beta)
        }
    };
    let count = targets.iter().filter(|&&id| id != IGNORE).count().max(1) as f64;
    let carries = carries(targets, &x.device());
    let soft = (each.sum_dim(1).reshape([targets.len()]) * carries).sum() * (temperature * temperature / count);
    let nll = plain_nll(x, weight, targets).sum() / count;
    let hard = f64::from(spec.hard);
    Tensor::cat(vec![nll.clone() * hard + soft.clone() * (1.0 - hard), nll, soft], 0)
}

simd_fn! {
    /// The negative log-likelihood and the divergence of one token from its rows of logits. The student's become the gradient of `weight`
    /// times the loss, the teacher's are spoiled.
    fn row(student: &mut [f32], teacher: &mut [f32], target: usize, spec: &Distillation, weight: f32) -> [f32; 2] {
        let teacher = &mut teacher[..student.len()];
        let cool = 1.0 / spec.temperature;
        let normalizer = |x: &[f32], cool: f32| {
            let largest = simd::max(x);
            simd::sum_by(x.len(), |sum, i| sum + simd::exp::<FMA>((x[i] - largest) * cool)).ln() + largest * cool
        };
        let whole = normalizer(student, 1.0);
        let nll = whole - student[target];
        let (log_q, log_p) = (if cool == 1.0 { whole } else { normalizer(student, cool) }, normalizer(teacher, cool));
        for x in teacher.iter_mut() {
            *x = simd::fma::<FMA>(*x, cool, -log_p);
        }
        let (hard, soft) = (weight * spec.hard, weight * (1.0 - spec.hard) * spec.temperature);
        // With its softmax at no temperature where the hard loss wants it.
        let first = |x: f32| if hard == 0.0 { 0.0 } else { hard * simd::exp::<FMA>(x - whole) };
        let (read, log) = (&*student, &*teacher);
        let divergence = match spec.divergence {
            Divergence::Forward => {
                let sum = simd::sum_by(read.len(), |sum, i| {
                    let below = simd::fma::<FMA>(-read[i], cool, log[i] + log_q);
                    simd::fma::<FMA>(simd::exp::<FMA>(log[i]), below, sum)
                });
                for (x, &log) in student.iter_mut().zip(teacher.iter()) {
                    let q = simd::exp::<FMA>(simd::fma::<FMA>(*x, cool, -log_q));
                    *x = first(*x) + soft * (q - simd::exp::<FMA>(log));
                }
                sum
            }
            Divergence::Reverse => {
                let sum = simd::sum_by(read.len(), |sum, i| {
                    let q = simd::fma::<FMA>(read[i], cool, -log_q);
                    simd::fma::<FMA>(simd::exp::<FMA>(q), q - log[i], sum)
                });
                for (x, &log) in student.iter_mut().zip(teacher.iter()) {
                    let q = simd::fma::<FMA>(*x, cool, -log_q);
                    *x = first(*x) + soft * simd::exp::<FMA>(q) * (q - log - sum);
                }
                sum
            }
            Divergence::JensenShannon { beta } => {
                // Of each token of the vocabulary ln p − ln m and ln q − ln m, each with its probability.
                let parts = |x: f32, log: f32| {
                    let log_of_q = simd::fma::<FMA>(x, cool, -log_q);
                    let (q, p) = (simd::exp::<FMA>(log_of_q), simd::exp::<FMA>(log));
                    let m = simd::fma::<FMA>(beta, p, (1.0 - beta) * q).max(f32::MIN_POSITIVE);
                    let log_of_m = simd::ln::<FMA>(m);
                    ([p, log - log_of_m], [q, log_of_q - log_of_m])
                };
                let of_p = simd::sum_by(read.len(), |sum, i| {
                    let ([p, above], _) = parts(read[i], log[i]);
                    simd::fma::<FMA>(p, above, sum)
                });
                let of_q = simd::sum_by(read.len(), |sum, i| {
                    let (_, [q, above]) = parts(read[i], log[i]);
                    simd::fma::<FMA>(q, above, sum)
                });
                for (x, &log) in student.iter_mut().zip(teacher.iter()) {
                    let (_, [q, above]) = parts(*x, log);
                    *x = first(*x) + soft * (1.0 - beta) * q * (above - of_q);
                }
                simd::fma::<FMA>(beta, of_p, (1.0 - beta) * of_q)
            }
        };
        student[target] -= hard;
        [nll, divergence * spec.temperature * spec.temperature]
    }
}

struct Distill {
    targets: Ids,
    spec: Distillation,
}

/// Rows of `from` at these places, one after the other.
fn gather<'a>(from: &[f32], width: usize, places: &[usize], into: &'a mut [f32]) -> Mat<'a> {
    let into = &mut into[..places.len() * width];
    for (to, &place) in into.chunks_exact_mut(width.max(1)).zip(places) {
        to.copy_from_slice(&from[place * width..][..width]);
    }
    Mat::row_major(into, places.len(), width)
}

impl Operation<4> for Distill {
    /// The gradients of the mean loss, computed with it and only scaled in the backward pass.
    type Saved = [Option<FlexTensor>; 2];

    fn forward(&self, [x, weight, hidden, head]: [FlexTensor; 4], needed: [bool; 4]) -> (FlexTensor, Option<Self::Saved>) {
        let places: Vec<usize> = (0..self.targets.len()).filter(|&i| self.targets[i] != IGNORE).collect();
        let tokens = self.targets.len().max(1);
        let (x, weight, hidden, head) = (values(&x), values(&weight), values(&hidden), values(&head));
        let widths = [x.len() / tokens, hidden.len() / tokens];
        let vocabulary = weight.len() / widths[0].max(1);
        let most = chunk_tokens(vocabulary, places.len());
        let each = 1.0 / places.len().max(1) as f32;
        let mut dx = Buffer::new(if needed[0] { x.len() } else { 0 });
        let mut dw = Buffer::new(if needed[1] { weight.len() } else { 0 });
        dx.fill(0.0);
        if places.is_empty() {
            dw.fill(0.0);
        }
        let mut gathered = widths.map(|width| Buffer::new(most * width));
        let mut rows_dx = Buffer::new(if needed[0] { most * widths[0] } else { 0 });
        let (mut student, mut teacher) = (Buffer::new(most * vocabulary), Buffer::new(most * vocabulary));
        let mut found = vec![0.0; 2 * places.len()];
        let [ours_rows, theirs_rows] = &mut gathered;
        let [weight, head] =
            [(weight, widths[0]), (head, widths[1])].map(|(head, width)| Mat::row_major(head, vocabulary, width));
        for (i, places) in places.chunks(most).enumerate() {
            let (student, teacher) = (&mut student[..places.len() * vocabulary], &mut teacher[..places.len() * vocabulary]);
            let ours = gather(x, widths[0], places, ours_rows);
            let theirs = gather(hidden, widths[1], places, theirs_rows);
            time(Part::Gemm, || {
                gemm(MatMut::row_major(student, places.len(), vocabulary), ours, weight.t(), false);
                gemm(MatMut::row_major(teacher, places.len(), vocabulary), theirs, head.t(), false);
            });
            let piece = rows_per_piece(places.len(), vocabulary);
            let found = &mut found[2 * i * most..][..2 * places.len()];
            time(Part::Loss, || {
                let lengths = [piece * vocabulary, piece * vocabulary, 2 * piece];
                for_each_piece([&mut *student, teacher, found], lengths, |i, [student, teacher, found]| {
                    let rows = student.chunks_exact_mut(vocabulary).zip(teacher.chunks_exact_mut(vocabulary));
                    for (((student, teacher), found), &place) in rows.zip(found.as_chunks_mut().0).zip(&places[i * piece..]) {
                        *found = row(Isa::current(), student, teacher, self.targets[place] as usize, &self.spec, each);
                    }
                });
            });
            let gradient = Mat::row_major(student, places.len(), vocabulary);
            if needed[0] {
                let rows_dx = &mut rows_dx[..places.len() * widths[0]];
                time(Part::Gemm, || gemm(MatMut::row_major(rows_dx, places.len(), widths[0]), gradient, weight, false));
                for (from, &place) in rows_dx.chunks_exact(widths[0].max(1)).zip(places) {
                    dx[place * widths[0]..][..widths[0]].copy_from_slice(from);
                }
            }
            if needed[1] {
                time(Part::Gemm, || gemm(MatMut::row_major(&mut dw, vocabulary, widths[0]), gradient.t(), ours, i > 0));
            }
        }
        let mean = |which: usize| found.iter().skip(which).step_by(2).map(|&x| f64::from(x)).sum::<f64>() * f64::from(each);
        let (nll, soft, hard) = (mean(0), mean(1), f64::from(self.spec.hard));
        let mut y = Buffer::new(3);
        y.copy_from_slice(&[hard * nll + (1.0 - hard) * soft, nll, soft].map(|x| x as f32));
        let saved = [
            needed[0].then(|| dx.into_tensor([self.targets.len(), widths[0]])),
            needed[1].then(|| dw.into_tensor([vocabulary, widths[0]])),
        ];
        (y.into_tensor([3]), Some(saved))
    }

    fn backward(&self, saved: Self::Saved, dy: FlexTensor, _: [bool; 4]) -> [Option<FlexTensor>; 4] {
        let factor = values(&dy)[0];
        let [dx, dw] = saved.map(|gradient| {
            let mut gradient = owned(gradient?);
            time(Part::Loss, || scale(values_mut(&mut gradient), factor));
            Some(gradient)
        });
        [dx, dw, None, None]
    }
}
