use burn::tensor::Tensor;

/// Sum of the squares of a tensor, in double precision on the CPU.
pub fn square_sum<const D: usize>(x: &Tensor<D>) -> f64 {
    plain(x)
}

pub(crate) fn plain<const D: usize>(x: &Tensor<D>) -> f64 {
    f64::from(x.clone().inner().square().sum().into_scalar::<f32>())
}

/// The Euclidean norm of everything together, from the [`square_sum`] of each part. Deterministic for a given order.
pub fn global_norm(square_sums: impl IntoIterator<Item = f64>) -> f64 {
    square_sums.into_iter().sum::<f64>().sqrt()
}
