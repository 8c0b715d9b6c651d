use burn::tensor::Tensor;

/// Muon's constants (Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon/>).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// Learning rate of this step.
    pub rate: f64,
    /// Decay of the momentum, which is used in Nesterov's form.
    pub momentum: f64,
    /// Decoupled decay: the weight shrinks by `rate · weight_decay` in each step.
    pub weight_decay: f64,
    /// Newton–Schulz iterations; five bring every singular value near one.
    pub iterations: usize,
}

/// Coefficients of the quintic Newton–Schulz iteration, tuned for slope at zero.
const QUINTIC: [f64; 3] = [3.4445, -4.7750, 2.0315];

/// One Muon step for a weight matrix `[out, in]`: Nesterov momentum, made orthogonal, scaled by `0.2 · √max(out, in)` so that
/// the update's root mean square is AdamW's and one learning rate serves both (Liu et al. 2025,
/// <https://arxiv.org/abs/2502.16982>). The gradient is multiplied by `scale` first. Returns the weight and the momentum,
/// which starts as zeros.
pub fn muon_step(
    weight: Tensor<2>,
    gradient: Tensor<2>,
    momentum: Tensor<2>,
    scale: f64,
    options: &Muon,
) -> (Tensor<2>, Tensor<2>) {
    plain(weight.inner(), gradient.inner(), momentum, scale, options)
}

pub(crate) fn plain(w: Tensor<2>, gradient: Tensor<2>, momentum: Tensor<2>, scale: f64, o: &Muon) -> (Tensor<2>, Tensor<2>) {
    let [outputs, inputs] = w.dims();
    let gradient = gradient * scale;
    let momentum = momentum * o.momentum + gradient.clone();
    let update = orthogonal(gradient + momentum.clone() * o.momentum, o.iterations);
    let size = o.rate * 0.2 * (outputs.max(inputs) as f64).sqrt();
    (w * (1.0 - o.rate * o.weight_decay) - update * size, momentum)
}

/// The nearest matrix with all singular values near one.
fn orthogonal(x: Tensor<2>, iterations: usize) -> Tensor<2> {
    let [rows, columns] = x.dims();
    let mut x = if rows > columns { x.transpose() } else { x };
    let norm = x.clone().square().sum().sqrt() + 1e-7;
    x = x / norm.unsqueeze();
    let [a, b, c] = QUINTIC;
    for _ in 0..iterations {
        let gram = x.clone().matmul(x.clone().transpose());
        let mix = gram.clone() * b + gram.clone().matmul(gram) * c;
        x = x.clone() * a + mix.matmul(x);
    }
    if rows > columns { x.transpose() } else { x }
}
