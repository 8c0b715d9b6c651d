use burn::tensor::Tensor;

/// AdamW's constants (Loshchilov & Hutter 2017, <https://arxiv.org/abs/1711.05101>).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay: the weight shrinks by `rate · weight_decay` in each step.
    pub weight_decay: f64,
}

/// One AdamW step. `step` counts from 1 (bias correction); the gradient is multiplied by `scale` first (clipping, averaging
/// over accumulated batches). Returns the weight and its two moments, which start as zeros.
pub fn adamw_step<const D: usize>(
    weight: Tensor<D>,
    gradient: Tensor<D>,
    moments: [Tensor<D>; 2],
    step: u64,
    scale: f64,
    options: &AdamW,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    assert!(step > 0, "AdamW counts its steps from 1");
    plain(weight.inner(), gradient.inner(), moments, step, scale, options)
}

pub(crate) fn plain<const D: usize>(
    weight: Tensor<D>,
    gradient: Tensor<D>,
    [first, second]: [Tensor<D>; 2],
    step: u64,
    scale: f64,
    o: &AdamW,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let gradient = gradient * scale;
    let first = first * o.beta1 + gradient.clone() * (1.0 - o.beta1);
    let second = second * o.beta2 + gradient.square() * (1.0 - o.beta2);
    let [c1, c2] = [o.beta1, o.beta2].map(|beta| 1.0 - beta.powf(step as f64));
    let direction = (first.clone() / c1) / ((second.clone() / c2).sqrt() + o.epsilon);
    (weight * (1.0 - o.rate * o.weight_decay) - direction * o.rate, [first, second])
}
