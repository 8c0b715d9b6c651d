use burn::tensor::Tensor;

/// Layer normalization (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>) of each row: `x` `[tokens, channels]`,
/// `weight` and `bias` `[channels]` → `(x - mean) / sqrt(var + eps) · weight + bias`, with the biased variance.
pub fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<2> {
    assert_eq!(x.dims()[1], weight.dims()[0], "the norm's weight has one value for each channel");
    assert_eq!(x.dims()[1], bias.dims()[0], "the norm's bias has one value for each channel");
    plain(x, weight, bias, eps)
}

pub(crate) fn plain(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<2> {
    let centred = x.clone() - x.mean_dim(1);
    let scale = (centred.clone().square().mean_dim(1) + eps).sqrt().recip();
    centred * scale * weight.unsqueeze() + bias.unsqueeze()
}
