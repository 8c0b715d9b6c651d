//! The losses of reinforcement learning, as functions of the log-probabilities and values of answers' tokens.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};

use crate::objectives::Report;

/// What is known of the tokens of a piece when the weights begin to move, `[tokens]` each. Tokens that are no answer's have weight zero.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The share of each token in the loss of the whole update.
    pub weights: Vec<f32>,
    /// How much better than expected it was.
    pub advantages: Vec<f32>,
    /// Its log-probability under the start model; empty where that plays no part.
    pub start: Vec<f32>,
    /// The tokens of each answer.
    pub spans: Vec<Range<usize>>,
}

/// Whose probability is compared with what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ratio {
    Token,
    /// The geometric mean of the answer's tokens'.
    Mean,
    /// The product of the answer's tokens'.
    Whole,
}

/// The clipped loss of policy gradients ([Schulman et al. 2017](https://arxiv.org/abs/1707.06347)), `[1]`: the sum over tokens of their
/// weights times `-min(ratio·advantage, clamp(ratio)·advantage)`, where `policy` has the tokens' log-probabilities, `old` what they were.
pub fn clipped(policy: Tensor<1>, old: &[f32], known: &Known, ratio: Ratio, bounds: (f64, f64)) -> (Tensor<1>, Report) {
    let device = policy.device();
    let change = policy - constant(old, &device);
    let change = match ratio {
        Ratio::Token => change,
        Ratio::Mean | Ratio::Whole => {
            let tokens = old.len();
            let sums = belongs(&known.spans, tokens, ratio == Ratio::Mean, &device).matmul(change.reshape([tokens, 1]));
            belongs(&known.spans, tokens, false, &device).transpose().matmul(sums).reshape([tokens])
        }
    };
    let (weights, advantages) = (constant(&known.weights, &device), constant(&known.advantages, &device));
    let ratio = change.exp();
    let free = ratio.clone() * advantages.clone();
    let held = ratio.clone().clamp(bounds.0, bounds.1) * advantages;
    let loss = -(free.min_pair(held) * weights).sum();
    let report = report(&numbers(ratio), known, bounds);
    (loss, report)
}

/// The gradient of [`clipped`] by the log-probabilities while those are still what they were, `[tokens]`.
pub(super) fn at_first(known: &Known, ratio: Ratio, bounds: (f64, f64)) -> Vec<f32> {
    // Only changes count, and there is none.
    let old = vec![0.0; known.weights.len()];
    let policy = constant(&old, &Device::flex().autodiff()).require_grad();
    let (loss, _) = clipped(policy.clone(), &old, known, ratio, bounds);
    policy.grad_remove(&mut loss.backward()).map_or(old, numbers)
}

/// How far the ratios moved: their mean and the share that was clipped, over the tokens that carry loss.
fn report(ratios: &[f32], known: &Known, bounds: (f64, f64)) -> Report {
    let (mut count, mut sum, mut clipped) = (0usize, 0.0, 0usize);
    for ((&ratio, &advantage), _) in
        ratios.iter().zip(&known.advantages).zip(&known.weights).filter(|(_, weight)| **weight != 0.0)
    {
        let ratio = f64::from(ratio);
        count += 1;
        sum += ratio;
        clipped += usize::from((ratio < bounds.0 && advantage < 0.0) || (ratio > bounds.1 && advantage > 0.0));
    }
    let count = count.max(1) as f64;
    vec![("ratio", sum / count), ("clipped", clipped as f64 / count)]
}

/// The divergence from the start model, `[1]`: the sum over tokens of their weights times the estimator k3, which is never negative and
/// right in expectation ([Schulman 2020](http://joschu.net/blog/kl-approx.html)).
pub fn divergence(policy: Tensor<1>, known: &Known) -> Tensor<1> {
    let device = policy.device();
    let back = constant(&known.start, &device) - policy;
    let each = back.clone().exp() - back - 1.0;
    (each * constant(&known.weights, &device)).sum()
}

/// Half the squared error of values against returns, `[1]`, the larger of that of the value and that of the value moved no further than
/// `clip` from what it was; summed over tokens with their weights. And the share of tokens where the second was larger.
pub fn value(values: Tensor<1>, old: &[f32], returns: &[f32], weights: &[f32], clip: f64) -> (Tensor<1>, f64) {
    let device = values.device();
    let (old, returns) = (constant(old, &device), constant(returns, &device));
    let held = old.clone() + (values.clone() - old).clamp(-clip, clip);
    let (free, held) = ((values - returns.clone()).square(), (held - returns).square());
    let larger = numbers(held.clone() - free.clone());
    let loss = (free.max_pair(held) * constant(weights, &device)).sum() * 0.5;
    let carrying = weights.iter().filter(|weight| **weight != 0.0).count().max(1);
    let clipped = larger.iter().zip(weights).filter(|(difference, weight)| **difference > 0.0 && **weight != 0.0).count();
    (loss, clipped as f64 / carrying as f64)
}

/// One where a token belongs to an answer, `[answers, tokens]`; by the answer's length if wanted.
fn belongs(spans: &[Range<usize>], tokens: usize, mean: bool, device: &Device) -> Tensor<2> {
    let mut matrix = vec![0f32; spans.len() * tokens];
    for (row, span) in matrix.chunks_exact_mut(tokens.max(1)).zip(spans) {
        row[span.clone()].fill(if mean { 1.0 / span.len().max(1) as f32 } else { 1.0 });
    }
    Tensor::from_data(TensorData::new(matrix, [spans.len(), tokens]), device)
}

fn constant(values: &[f32], device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

/// A tensor's numbers, without its graph.
pub fn numbers(x: Tensor<1>) -> Vec<f32> {
    let x = if x.is_autodiff() { x.inner() } else { x };
    x.into_data().iter::<f32>().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(values: &[f32]) -> Tensor<1> {
        Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), &Device::flex().autodiff()).require_grad()
    }

    fn known() -> Known {
        Known {
            weights: vec![0.2, 0.2, 0.0, 0.3, 0.3],
            advantages: vec![1.0, 1.0, 0.0, -2.0, -2.0],
            start: vec![-1.0, -2.0, 0.0, -0.5, -3.0],
            spans: vec![0..2, 3..5],
        }
    }

    const OLD: [f32; 5] = [-1.2, -1.9, 0.0, -0.6, -2.8];

    /// The derivative of each token's log-probability is what small steps show.
    #[track_caller]
    fn check_gradient(what: &str, at: &[f32], f: impl Fn(Tensor<1>) -> Tensor<1>) {
        let x = leaf(at);
        let mut gradients = f(x.clone()).backward();
        let found: Vec<f32> = x.grad_remove(&mut gradients).unwrap().into_data().try_into_vec().unwrap();
        for i in 0..at.len() {
            let by = |step: f32| {
                let mut moved = at.to_vec();
                moved[i] += step;
                f64::from(f(leaf(&moved)).inner().into_scalar::<f32>())
            };
            let slope = (by(1e-2) - by(-1e-2)) / 2e-2;
            assert!((slope - f64::from(found[i])).abs() < 2e-3, "{what}, token {i}: {} is {slope}", found[i]);
        }
    }

    #[test]
    fn the_gradient_of_the_first_pass_is_known_before_it() {
        for ratio in [Ratio::Token, Ratio::Mean, Ratio::Whole] {
            let policy = leaf(&OLD);
            let (loss, _) = clipped(policy.clone(), &OLD, &known(), ratio, (0.8, 1.2));
            let found = numbers(policy.grad_remove(&mut loss.backward()).unwrap());
            let expected = at_first(&known(), ratio, (0.8, 1.2));
            assert!(expected.iter().any(|&x| x != 0.0), "{ratio:?}");
            assert_eq!(expected, found, "{ratio:?}");
        }
    }

    #[test]
    fn losses_have_the_gradients_of_their_differences() {
        let policy = [-1.15, -1.5, -0.3, -0.7, -2.2];
        for ratio in [Ratio::Token, Ratio::Mean, Ratio::Whole] {
            check_gradient(&format!("{ratio:?}"), &policy, |x| clipped(x, &OLD, &known(), ratio, (0.8, 1.3)).0);
        }
        check_gradient("divergence", &policy, |x| divergence(x, &known()));
        let (old, returns) = ([0.1, 0.2, 0.0, 0.5, -0.4], [0.4, -0.3, 0.0, 1.0, -0.9]);
        check_gradient("value", &[0.2, 0.9, 0.3, 0.45, -0.6], |x| value(x, &old, &returns, &known().weights, 0.3).0);
    }

    #[test]
    fn the_ratio_is_one_at_first_and_is_clipped_later() {
        let (loss, report) = clipped(leaf(&OLD), &OLD, &known(), Ratio::Token, (0.8, 1.2));
        assert!((loss.inner().into_scalar::<f32>() - (-0.4 + 1.2)).abs() < 1e-6);
        assert_eq!(report, [("ratio", 1.0), ("clipped", 0.0)]);
        // Far up where that is good, and far up where it is bad: only the first is held.
        let moved = OLD.map(|x| x + 1.0);
        let (loss, report) = clipped(leaf(&moved), &OLD, &known(), Ratio::Token, (0.8, 1.2));
        let want = -0.4 * 1.2 + 1.2 * 1f32.exp();
        assert!((loss.inner().into_scalar::<f32>() - want).abs() < 1e-5);
        assert_eq!(report[1], ("clipped", 0.5));
        // Of a whole answer the ratio is its tokens' product.
        let (loss, _) = clipped(leaf(&moved), &OLD, &known(), Ratio::Whole, (0.0, 100.0));
        assert!((loss.inner().into_scalar::<f32>() - 0.8 * 2f32.exp()).abs() < 1e-4);
        let (loss, _) = clipped(leaf(&moved), &OLD, &known(), Ratio::Mean, (0.0, 100.0));
        assert!((loss.inner().into_scalar::<f32>() - 0.8 * 1f32.exp()).abs() < 1e-4);
    }

    #[test]
    fn the_divergence_is_zero_at_the_start_and_nowhere_negative() {
        let known = known();
        assert_eq!(divergence(leaf(&known.start), &known).inner().into_scalar::<f32>(), 0.0);
        for by in [-1.0, 1.0] {
            let moved: Vec<f32> = known.start.iter().map(|x| x + by).collect();
            let want = (-by).exp() + by - 1.0;
            assert!((divergence(leaf(&moved), &known).inner().into_scalar::<f32>() - want).abs() < 1e-5);
        }
    }
}
