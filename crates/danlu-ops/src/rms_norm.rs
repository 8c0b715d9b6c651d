use burn::tensor::Tensor;

use crate::Heads;

/// Root-mean-square normalization (Zhang & Sennrich 2019, <https://arxiv.org/abs/1910.07467>) of each row: `x`
/// `[tokens, channels]`, `weight` `[channels]` → `x / sqrt(mean(x²) + eps) · weight`.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    assert_eq!(x.dims()[1], weight.dims()[0], "the norm's weight has one value for each channel");
    plain(x, weight, eps)
}

pub(crate) fn plain(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    let scale = (x.clone().square().mean_dim(1) + eps).sqrt().recip();
    x * scale * weight.unsqueeze()
}

/// Normalizes each query head and each key head of packed qkv (`[tokens, heads.qkv()]`) by its own root mean square, as
/// Qwen3 does before rope. `q_weight` and `k_weight` are `[head_dim]`; values pass through.
pub fn head_rms_norm(qkv: Tensor<2>, q_weight: Tensor<1>, k_weight: Tensor<1>, heads: Heads, eps: f64) -> Tensor<2> {
    heads.check(qkv.dims()[1]);
    for weight in [&q_weight, &k_weight] {
        assert_eq!(weight.dims()[0], heads.head_dim, "a head norm's weight has one value for each channel of a head");
    }
    plain_heads(qkv, q_weight, k_weight, heads, eps)
}

pub(crate) fn plain_heads(qkv: Tensor<2>, q_weight: Tensor<1>, k_weight: Tensor<1>, heads: Heads, eps: f64) -> Tensor<2> {
    let tokens = qkv.dims()[0];
    let part = |start: usize, count: usize, weight: Tensor<1>| {
        let x = qkv.clone().narrow(1, start, count * heads.head_dim).reshape([tokens * count, heads.head_dim]);
        plain(x, weight, eps).reshape([tokens, count * heads.head_dim])
    };
    let q = part(0, heads.heads, q_weight);
    let k = part(heads.q(), heads.kv_heads, k_weight);
    let v = qkv.clone().narrow(1, heads.q() + heads.kv(), heads.kv());
    Tensor::cat(vec![q, k, v], 1)
}
