use burn::tensor::{Tensor, TensorData};

use crate::{IGNORE, Ids, plain::indices};

/// Mean negative log-likelihood, in nats, of `targets` under `softmax(x weightᵀ)`: `x` `[tokens, channels]`, `weight`
/// `[vocabulary, channels]` → `[1]`. Targets equal to [`IGNORE`] carry no loss and are not counted; when all are ignored
/// the loss is zero.
///
/// The CPU form never holds all logits: it takes tokens in chunks and computes the gradients with the loss.
pub fn linear_cross_entropy(x: Tensor<2>, weight: Tensor<2>, targets: &Ids) -> Tensor<1> {
    check(&x, &weight, targets);
    plain(x, weight, targets)
}

/// The negative log-likelihood, in nats, of every target, without gradients; zero for [`IGNORE`].
pub fn token_nll(x: Tensor<2>, weight: Tensor<2>, targets: &Ids) -> Vec<f32> {
    check(&x, &weight, targets);
    let nll = plain_nll(x.inner(), weight.inner(), targets).into_data().convert::<f32>();
    nll.try_into_vec().expect("just converted to f32")
}

fn check(x: &Tensor<2>, weight: &Tensor<2>, targets: &Ids) {
    let ([tokens, channels], [vocabulary, inputs]) = (x.dims(), weight.dims());
    assert_eq!(channels, inputs, "x has {channels} channels, the head {inputs}");
    assert_eq!(tokens, targets.len(), "{tokens} tokens, but {} targets", targets.len());
    if let Some(id) = targets.iter().find(|&&id| id != IGNORE && id as usize >= vocabulary) {
        panic!("target {id} is outside the vocabulary of {vocabulary}");
    }
}

pub(crate) fn counted(targets: &[u32]) -> usize {
    targets.iter().filter(|&&id| id != IGNORE).count()
}

pub(crate) fn plain(x: Tensor<2>, weight: Tensor<2>, targets: &Ids) -> Tensor<1> {
    plain_nll(x, weight, targets).sum() / counted(targets).max(1) as f64
}

fn plain_nll(x: Tensor<2>, weight: Tensor<2>, targets: &Ids) -> Tensor<1> {
    let tokens = targets.len();
    let device = x.device();
    let logits = x.matmul(weight.transpose());
    let largest = logits.clone().detach().max_dim(1);
    let total = (logits.clone() - largest.clone()).exp().sum_dim(1).log() + largest;
    let chosen = indices(targets.iter().map(|&id| if id == IGNORE { 0 } else { id as i32 }), &device);
    let nll = total - logits.gather(1, chosen.reshape([tokens, 1]));
    let carries: Vec<f32> = targets.iter().map(|&id| if id == IGNORE { 0.0 } else { 1.0 }).collect();
    nll.reshape([tokens]) * Tensor::<1>::from_data(TensorData::new(carries, [tokens]), &device)
}
