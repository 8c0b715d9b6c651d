use burn::tensor::Tensor;

/// `x Wᵀ + b`: `x` `[tokens, in]`, `weight` `[out, in]`, `bias` `[out]` → `[tokens, out]`.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    match bias {
        Some(bias) => project(x, &[weight], Some(&[bias])),
        None => project(x, &[weight], None),
    }
}

/// Several linears of one input with their outputs side by side (q|k|v, gate|up): `x` `[tokens, in]`, each weight
/// `[out_i, in]`, each bias `[out_i]` → `[tokens, Σ out_i]`. Biases are given for all weights or for none.
pub fn project(x: Tensor<2>, weights: &[Tensor<2>], biases: Option<&[Tensor<1>]>) -> Tensor<2> {
    let [_, channels] = x.dims();
    assert!(!weights.is_empty(), "a projection needs at least one weight");
    for (i, weight) in weights.iter().enumerate() {
        let [outputs, inputs] = weight.dims();
        assert_eq!(inputs, channels, "weight {i} is [{outputs}, {inputs}], but the input has {channels} channels");
    }
    if let Some(biases) = biases {
        assert_eq!(biases.len(), weights.len(), "biases are given for all weights or for none");
        for (weight, bias) in weights.iter().zip(biases) {
            assert_eq!(weight.dims()[0], bias.dims()[0], "a bias has one value for each output");
        }
    }
    plain(x, weights, biases)
}

pub(crate) fn plain(x: Tensor<2>, weights: &[Tensor<2>], biases: Option<&[Tensor<1>]>) -> Tensor<2> {
    let outputs = weights.iter().enumerate().map(|(i, weight)| {
        let y = x.clone().matmul(weight.clone().transpose());
        match biases {
            Some(biases) => y + biases[i].clone().unsqueeze(),
            None => y,
        }
    });
    Tensor::cat(outputs.collect(), 1)
}
