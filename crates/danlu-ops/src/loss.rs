use burn::backend::flex::FlexTensor;
use burn::tensor::{Device, Tensor, TensorData};

use crate::again::again;
use crate::bridge::{Operation, on_cpu, owned, primitive, run, values, values_mut};
use crate::buffer::Buffer;
use crate::kernels::{Isa, Mat, MatMut, gemm, simd, simd_fn};
use crate::precision::wide;
use crate::profile::{Part, time};
use crate::rows::{for_each_piece, rows_per_piece, scale};
use crate::{IGNORE, Ids, plain::indices};

/// Mean negative log-likelihood, in nats, of `targets` under `softmax(x weightᵀ)`: `x` `[tokens, channels]`, `weight`
/// `[vocabulary, channels]` → `[1]`. Targets equal to [`IGNORE`] carry no loss and are not counted; when all are ignored
/// the loss is zero.
///
/// The CPU form never holds all logits: it takes tokens in chunks and computes the gradients with the loss.
pub fn linear_cross_entropy(x: Tensor<2>, weight: Tensor<2>, targets: &Ids) -> Tensor<1> {
    linear_cross_entropy_smoothed(x, weight, targets, 0.0)
}

/// [`linear_cross_entropy`] of targets that are smoothed (Szegedy et al. 2015, <https://arxiv.org/abs/1512.00567>, 7): the target has the
/// probability `1 - smoothing`, to which each entry of the vocabulary, itself included, adds `smoothing / vocabulary`.
///
/// # Panics
/// When `smoothing` is not from 0 to below 1.
pub fn linear_cross_entropy_smoothed(x: Tensor<2>, weight: Tensor<2>, targets: &Ids, smoothing: f64) -> Tensor<1> {
    check(&x, &weight, targets);
    assert!((0.0..1.0).contains(&smoothing), "labels are smoothed by a share from 0 to below 1, not {smoothing}");
    if on_cpu(&x) && on_cpu(&weight) {
        let smoothing = smoothing as f32;
        run(CrossEntropy { targets: targets.clone(), smoothing }, [x.into_dispatch(), weight.into_dispatch()])
    } else {
        mean_of_chunks(x, weight, targets, smoothing)
    }
}

/// The negative log-likelihood, in nats, of every target, without gradients; zero for [`IGNORE`].
pub fn token_nll(x: Tensor<2>, weight: Tensor<2>, targets: &Ids) -> Vec<f32> {
    check(&x, &weight, targets);
    let (x, weight) = (x.inner(), weight.inner());
    if on_cpu(&x) && on_cpu(&weight) {
        let (x, weight) = (primitive(x), primitive(weight));
        let rows = Carrying::new(values(&x), targets);
        let mut all = vec![0.0; targets.len()];
        let channels = values(&x).len() / targets.len().max(1);
        let found = Chunks::new(rows.x(), values(&weight), rows.targets(), channels, 0.0).run(&mut [], &mut []);
        rows.places().zip(found).for_each(|(place, nll)| all[place] = nll);
        return all;
    }
    in_chunks(x, weight, targets, plain_nll).into_data().convert::<f32>().try_into_vec().expect("just converted to f32")
}

pub(crate) fn check(x: &Tensor<2>, weight: &Tensor<2>, targets: &Ids) {
    let ([tokens, channels], [vocabulary, inputs]) = (x.dims(), weight.dims());
    assert_eq!(channels, inputs, "x has {channels} channels, the head {inputs}");
    assert_eq!(tokens, targets.len(), "{tokens} tokens, but {} targets", targets.len());
    if let Some(id) = targets.iter().find(|&&id| id != IGNORE && id as usize >= vocabulary) {
        panic!("target {id} is outside the vocabulary of {vocabulary}");
    }
}

/// Targets that carry loss, at least one, since it divides.
fn counted(targets: &[u32]) -> usize {
    targets.iter().filter(|&&id| id != IGNORE).count().max(1)
}

#[cfg(test)]
pub(crate) fn plain(x: Tensor<2>, weight: Tensor<2>, targets: &Ids) -> Tensor<1> {
    plain_nll(x, weight, targets).sum() / counted(targets) as f64
}

#[cfg(test)]
pub(crate) fn plain_smoothed(x: Tensor<2>, weight: Tensor<2>, targets: &Ids, smoothing: f64) -> Tensor<1> {
    smoothed_nll(x, weight, targets, smoothing).sum() / counted(targets) as f64
}

pub(crate) fn plain_nll(x: Tensor<2>, weight: Tensor<2>, targets: &Ids) -> Tensor<1> {
    smoothed_nll(x, weight, targets, 0.0)
}

fn smoothed_nll(x: Tensor<2>, weight: Tensor<2>, targets: &Ids, smoothing: f64) -> Tensor<1> {
    let tokens = targets.len();
    let device = x.device();
    let logits = wide(x.clone().matmul(weight.cast(x.dtype()).transpose()));
    let total = normalizer(logits.clone());
    let places = indices(targets.iter().map(|&id| if id == IGNORE { 0 } else { id as i32 }), &device);
    let mut chosen = logits.clone().gather(1, places.reshape([tokens, 1]));
    if smoothing > 0.0 {
        chosen = chosen * (1.0 - smoothing) + logits.mean_dim(1) * smoothing;
    }
    (total - chosen).reshape([tokens]) * carries(targets, &device)
}

/// Logits that other devices hold at a time, unless so many are of fewer tokens than [`CHUNK_TOKENS`].
const CHUNK_LOGITS: usize = 1 << 26;

/// What `form` says of each token, `[tokens]` or several such side by side, found for one chunk of tokens after the other, so that the logits
/// of a chunk are all there is of them.
pub(crate) fn in_chunks<const D: usize>(
    x: Tensor<2>,
    weight: Tensor<2>,
    targets: &Ids,
    form: impl Fn(Tensor<2>, Tensor<2>, &Ids) -> Tensor<D> + Copy + Send + 'static,
) -> Tensor<D> {
    let most = (CHUNK_LOGITS / weight.dims()[0].max(1)).max(CHUNK_TOKENS);
    let one = |(i, targets): (usize, &[u32])| {
        let (x, targets) = (x.clone().narrow(0, i * most, targets.len()), Ids::from(targets));
        again([x.into_dispatch(), weight.clone().into_dispatch()], move |[x, weight]| {
            form(Tensor::from_dispatch(x), Tensor::from_dispatch(weight), &targets)
        })
    };
    if targets.len() <= most {
        return one((0, targets));
    }
    Tensor::cat(targets.chunks(most).enumerate().map(one).collect(), D - 1)
}

/// [`linear_cross_entropy_smoothed`] of devices other than the CPU.
fn mean_of_chunks(x: Tensor<2>, weight: Tensor<2>, targets: &Ids, smoothing: f64) -> Tensor<1> {
    let places: Vec<i32> = (0..targets.len()).filter(|&i| targets[i] != IGNORE).map(|i| i as i32).collect();
    let all = places.is_empty() || places.len() == targets.len();
    let (x, targets) = if all {
        (x, targets.clone())
    } else {
        let device = x.device();
        (x.select(0, indices(places.into_iter(), &device)), targets.iter().copied().filter(|&id| id != IGNORE).collect())
    };
    let form = move |x: Tensor<2>, weight: Tensor<2>, targets: &Ids| smoothed_nll(x, weight, targets, smoothing);
    in_chunks(x, weight, &targets, form).sum() / counted(&targets) as f64
}

/// The logarithm of each row's sum of exponentials, `[tokens, 1]`.
pub(crate) fn normalizer(logits: Tensor<2>) -> Tensor<2> {
    let largest = logits.clone().detach().max_dim(1);
    (logits - largest.clone()).exp().sum_dim(1).log() + largest
}

/// One where there is a target, else zero, `[tokens]`.
pub(crate) fn carries(targets: &[u32], device: &Device) -> Tensor<1> {
    let carries: Vec<f32> = targets.iter().map(|&id| if id == IGNORE { 0.0 } else { 1.0 }).collect();
    Tensor::from_data(TensorData::new(carries, [targets.len()]), device)
}

/// Logits held at a time: a chunk of tokens as large as this many bytes allow …
const CHUNK_BYTES: usize = 8 << 20;
/// … but of at least so many tokens, since every chunk packs the whole head anew.
const CHUNK_TOKENS: usize = 256;

/// How many of `tokens` have their logits in memory at a time, at least one.
pub(crate) fn chunk_tokens(vocabulary: usize, tokens: usize) -> usize {
    (CHUNK_BYTES / (vocabulary * size_of::<f32>()).max(1)).max(CHUNK_TOKENS).min(tokens).max(1)
}

simd_fn! {
    /// The loss of one row of logits, which become the gradient: `(softmax - target) · weight`.
    fn row(logits: &mut [f32], target: usize, weight: f32) -> f32 {
        let largest = simd::max(logits);
        let chosen = logits[target];
        for x in logits.iter_mut() {
            *x = simd::exp::<FMA>(*x - largest);
        }
        let total = simd::sum(logits);
        let factor = weight / total;
        for x in logits.iter_mut() {
            *x *= factor;
        }
        logits[target] -= weight;
        total.ln() + largest - chosen
    }

    /// [`row`] of a target that is smoothed.
    fn smoothed_row(logits: &mut [f32], target: usize, weight: f32, smoothing: f32) -> f32 {
        let largest = simd::max(logits);
        let share = smoothing / logits.len() as f32;
        let expected = (1.0 - smoothing) * logits[target] + share * simd::sum(logits);
        for x in logits.iter_mut() {
            *x = simd::exp::<FMA>(*x - largest);
        }
        let total = simd::sum(logits);
        let (factor, share) = (weight / total, weight * share);
        for x in logits.iter_mut() {
            *x = *x * factor - share;
        }
        logits[target] -= weight * (1.0 - smoothing);
        total.ln() + largest - expected
    }
}

/// The rows of `x` whose targets carry loss: only these go through the head.
enum Carrying<'a> {
    All(&'a [f32], &'a [u32]),
    Some { x: Buffer, targets: Vec<u32>, places: Vec<usize> },
}

impl<'a> Carrying<'a> {
    fn new(x: &'a [f32], targets: &'a [u32]) -> Self {
        if !targets.contains(&IGNORE) {
            return Self::All(x, targets);
        }
        let channels = x.len() / targets.len();
        let places: Vec<usize> = (0..targets.len()).filter(|&i| targets[i] != IGNORE).collect();
        let mut some = Buffer::new(places.len() * channels);
        for (row, &place) in some.chunks_exact_mut(channels.max(1)).zip(&places) {
            row.copy_from_slice(&x[place * channels..][..channels]);
        }
        Self::Some { x: some, targets: places.iter().map(|&place| targets[place]).collect(), places }
    }

    fn x(&self) -> &[f32] {
        match self {
            Self::All(x, _) => x,
            Self::Some { x, .. } => x,
        }
    }

    fn targets(&self) -> &[u32] {
        match self {
            Self::All(_, targets) => targets,
            Self::Some { targets, .. } => targets,
        }
    }

    fn places(&self) -> impl Iterator<Item = usize> + '_ {
        let all = matches!(self, Self::All(..)).then_some(0..self.targets().len());
        let some = if let Self::Some { places, .. } = self { places.as_slice() } else { &[] };
        all.into_iter().flatten().chain(some.iter().copied())
    }
}

/// The passes over chunks of tokens, all of which carry loss.
struct Chunks<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    targets: &'a [u32],
    channels: usize,
    vocabulary: usize,
    smoothing: f32,
}

impl<'a> Chunks<'a> {
    fn new(x: &'a [f32], weight: &'a [f32], targets: &'a [u32], channels: usize, smoothing: f32) -> Self {
        Self { x, weight, targets, channels, vocabulary: weight.len() / channels.max(1), smoothing }
    }

    /// The loss of every token. Writes the gradients of the mean loss to `dx` and `dw`, each unless it is empty.
    fn run(&self, dx: &mut [f32], dw: &mut [f32]) -> Vec<f32> {
        let (channels, vocabulary, tokens) = (self.channels, self.vocabulary, self.targets.len());
        let chunk = chunk_tokens(vocabulary, tokens);
        let each = 1.0 / tokens.max(1) as f32;
        let weight = Mat::row_major(self.weight, vocabulary, channels);
        let mut nll = vec![0.0; tokens];
        if tokens == 0 {
            dw.fill(0.0);
        }
        let mut logits = Buffer::new(chunk * vocabulary);
        for start in (0..tokens).step_by(chunk) {
            let rows = chunk.min(tokens - start);
            let logits = &mut logits[..rows * vocabulary];
            let x = Mat::row_major(&self.x[start * channels..][..rows * channels], rows, channels);
            time(Part::Gemm, || gemm(MatMut::row_major(logits, rows, vocabulary), x, weight.t(), false));
            time(Part::Loss, || {
                let piece = rows_per_piece(rows, vocabulary);
                for_each_piece([logits, &mut nll[start..start + rows]], [piece * vocabulary, piece], |i, [logits, nll]| {
                    let targets = &self.targets[start + i * piece..];
                    for ((logits, nll), &target) in logits.chunks_exact_mut(vocabulary).zip(nll).zip(targets) {
                        let (isa, target) = (Isa::current(), target as usize);
                        *nll = match self.smoothing > 0.0 {
                            true => smoothed_row(isa, logits, target, each, self.smoothing),
                            false => row(isa, logits, target, each),
                        };
                    }
                });
            });
            let logits = Mat::row_major(logits, rows, vocabulary);
            time(Part::Gemm, || {
                if !dx.is_empty() {
                    let dx = &mut dx[start * channels..][..rows * channels];
                    gemm(MatMut::row_major(dx, rows, channels), logits, weight, false);
                }
                if !dw.is_empty() {
                    gemm(MatMut::row_major(dw, vocabulary, channels), logits.t(), x, start > 0);
                }
            });
        }
        nll
    }
}

struct CrossEntropy {
    targets: Ids,
    smoothing: f32,
}

impl Operation<2> for CrossEntropy {
    /// The gradients, computed with the loss and only scaled in the backward pass: that of `x` for the rows that carry loss.
    type Saved = [Option<FlexTensor>; 2];

    fn forward(&self, [x, weight]: [FlexTensor; 2], needed: [bool; 2]) -> (FlexTensor, Option<Self::Saved>) {
        let rows = Carrying::new(values(&x), &self.targets);
        // With the width of `x` itself, which no rows would not tell.
        let channels = values(&x).len() / self.targets.len().max(1);
        let chunks = Chunks::new(rows.x(), values(&weight), rows.targets(), channels, self.smoothing);
        let mut dx = Buffer::new(if needed[0] { chunks.x.len() } else { 0 });
        let mut dw = Buffer::new(if needed[1] { chunks.weight.len() } else { 0 });
        let nll = chunks.run(&mut dx, &mut dw);
        let total: f64 = nll.iter().map(|&nll| f64::from(nll)).sum();
        let mut loss = Buffer::new(1);
        loss[0] = (total / counted(&self.targets) as f64) as f32;
        let saved = [
            needed[0].then(|| dx.into_tensor([rows.targets().len(), channels])),
            needed[1].then(|| dw.into_tensor([chunks.vocabulary, channels])),
        ];
        (loss.into_tensor([1]), Some(saved))
    }

    fn backward(&self, saved: Self::Saved, dy: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let factor = values(&dy)[0];
        let [dx, dw] = saved.map(|gradient| {
            let mut gradient = owned(gradient?);
            time(Part::Loss, || scale(values_mut(&mut gradient), factor));
            Some(gradient)
        });
        [dx.map(|dx| time(Part::Loss, || self.spread(dx))), dw]
    }
}

impl CrossEntropy {
    /// The gradients of the rows that carry loss at their places, zeros between them.
    fn spread(&self, some: FlexTensor) -> FlexTensor {
        let tokens = self.targets.len();
        let rows = self.targets.iter().filter(|&&target| target != IGNORE).count();
        if rows == tokens {
            return some;
        }
        let channels = some.layout().shape()[1];
        let mut all = Buffer::new(tokens * channels);
        let mut from = values(&some).chunks_exact(channels);
        for (row, &target) in all.chunks_exact_mut(channels).zip(self.targets.iter()) {
            match (target != IGNORE).then(|| from.next()).flatten() {
                Some(gradient) => row.copy_from_slice(gradient),
                None => row.fill(0.0),
            }
        }
        all.into_tensor([tokens, channels])
    }
}
