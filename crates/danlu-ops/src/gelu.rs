use burn::tensor::Tensor;

/// √(2/π), the slope inside the tanh form.
pub(crate) const SLOPE: f32 = 0.797_884_6;
/// Weight of the cube inside the tanh form.
pub(crate) const CUBE: f32 = 0.044_715;

/// Gaussian error linear unit (Hendrycks & Gimpel 2016, <https://arxiv.org/abs/1606.08415>) in its tanh form, `gelu_new` in
/// `transformers`: `x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
pub fn gelu(x: Tensor<2>) -> Tensor<2> {
    plain(x)
}

pub(crate) fn plain(x: Tensor<2>) -> Tensor<2> {
    let cube = x.clone() * x.clone() * x.clone();
    let inner = (x.clone() + cube * CUBE) * SLOPE;
    x * (inner.tanh() + 1.0) * 0.5
}
