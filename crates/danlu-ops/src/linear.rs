use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use crate::bridge::{Operation, on_cpu, run, values};
use crate::buffer::Buffer;
use crate::kernels::{Mat, MatMut, gemm, gemv};
use crate::profile::{Part, time};
use crate::rows::{column_sums, for_each_piece, rows_per_piece};

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
    let [_, inputs] = x.dims();
    assert!(!weights.is_empty(), "a projection needs at least one weight");
    let outputs: Vec<usize> = weights.iter().map(|weight| weight.dims()[0]).collect();
    for (i, weight) in weights.iter().enumerate() {
        assert_eq!(weight.dims()[1], inputs, "weight {i} is {:?}, but the input has {inputs} channels", weight.dims());
    }
    if let Some(biases) = biases {
        assert_eq!(biases.len(), weights.len(), "biases are given for all weights or for none");
        for (&outputs, bias) in outputs.iter().zip(biases) {
            assert_eq!(outputs, bias.dims()[0], "a bias has one value for each output");
        }
    }
    let cpu = on_cpu(&x) && weights.iter().all(on_cpu) && biases.is_none_or(|biases| biases.iter().all(on_cpu));
    if !cpu {
        return plain(x, weights, biases);
    }
    let project = Project { inputs, outputs, biased: biases.is_some() };
    let x = x.into_dispatch();
    match (weights, biases) {
        ([a], None) => run(project, [x, a.clone().into_dispatch()]),
        ([a], Some([p])) => run(project, [x, a.clone().into_dispatch(), p.clone().into_dispatch()]),
        ([a, b], None) => run(project, [x, a.clone().into_dispatch(), b.clone().into_dispatch()]),
        ([a, b], Some([p, q])) => {
            let [a, b] = [a, b].map(|weight| weight.clone().into_dispatch());
            let [p, q] = [p, q].map(|bias| bias.clone().into_dispatch());
            run(project, [x, a, b, p, q])
        }
        ([a, b, c], None) => {
            let [a, b, c] = [a, b, c].map(|weight| weight.clone().into_dispatch());
            run(project, [x, a, b, c])
        }
        ([a, b, c], Some([p, q, r])) => {
            let [a, b, c] = [a, b, c].map(|weight| weight.clone().into_dispatch());
            let [p, q, r] = [p, q, r].map(|bias| bias.clone().into_dispatch());
            run(project, [x, a, b, c, p, q, r])
        }
        // Nothing asks for more than three at once; more are put together from what there is.
        _ => {
            let x = Tensor::<2>::from_dispatch(x);
            let parts = weights
                .iter()
                .enumerate()
                .map(|(i, weight)| linear(x.clone(), weight.clone(), biases.map(|biases| biases[i].clone())));
            Tensor::cat(parts.collect(), 1)
        }
    }
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

/// Tokens under which weights are read row by row instead of packed.
const FEW: usize = 8;

/// Inputs are `x`, the weights, and the biases if there are any. The weights are put below each other, which costs a hundredth of a
/// product, so that one product serves all.
struct Project {
    inputs: usize,
    outputs: Vec<usize>,
    biased: bool,
}

impl Project {
    fn width(&self) -> usize {
        self.outputs.iter().sum()
    }

    /// The products of a few tokens, as in decoding, whose time is that of reading the weights once: nothing is copied or packed.
    fn few(&self, y: &mut [f32], x: &[f32], weights: &[FlexTensor], biases: &[FlexTensor]) {
        let (width, tokens) = (self.width(), x.len() / self.inputs);
        let mut start = 0;
        for (i, (weight, &outputs)) in weights.iter().zip(&self.outputs).enumerate() {
            let mut part = Buffer::new(tokens * outputs);
            gemv(&mut part, values(weight), x, tokens);
            for (y, part) in y.chunks_exact_mut(width).zip(part.chunks_exact(outputs)) {
                let y = &mut y[start..start + outputs];
                match biases.get(i) {
                    Some(bias) => y.iter_mut().zip(part).zip(values(bias)).for_each(|((y, part), bias)| *y = part + bias),
                    None => y.copy_from_slice(part),
                }
            }
            start += outputs;
        }
    }

    /// Views of the rows of `all` that belong to each output.
    fn divide(&self, all: FlexTensor, parts: &mut [Option<FlexTensor>]) {
        let mut start = 0;
        for (part, &outputs) in parts.iter_mut().zip(&self.outputs) {
            *part = Some(all.narrow(0, start, outputs));
            start += outputs;
        }
    }
}

/// All weights as one matrix: the only one itself, or a copy of several.
enum Stacked<'a> {
    One(&'a [f32]),
    Several(Buffer),
}

impl<'a> Stacked<'a> {
    fn new(weights: &'a [FlexTensor]) -> Self {
        if let [weight] = weights {
            return Self::One(values(weight));
        }
        let mut all = Buffer::new(weights.iter().map(|weight| values(weight).len()).sum());
        let mut rest = &mut all[..];
        for weight in weights {
            let part;
            (part, rest) = rest.split_at_mut(values(weight).len());
            part.copy_from_slice(values(weight));
        }
        Self::Several(all)
    }

    fn values(&self) -> &[f32] {
        match self {
            Self::One(weight) => weight,
            Self::Several(all) => all,
        }
    }
}

impl<const N: usize> Operation<N> for Project {
    /// The input and the weights.
    type Saved = Vec<FlexTensor>;

    fn forward(&self, inputs: [FlexTensor; N], needed: [bool; N]) -> (FlexTensor, Option<Self::Saved>) {
        let width = self.width();
        let tensors = Vec::from(inputs);
        let (saved, biases) = tensors.split_at(1 + self.outputs.len());
        let x = values(&saved[0]);
        let tokens = x.len() / self.inputs;
        let mut y = Buffer::new(tokens * width);
        time(Part::Gemm, || {
            if tokens < FEW {
                return self.few(&mut y, x, &saved[1..], biases);
            }
            if self.biased {
                let bias = Stacked::new(biases);
                let rows = rows_per_piece(tokens, width);
                for_each_piece([&mut y], [rows * width], |_, [y]| {
                    y.chunks_exact_mut(width).for_each(|row| row.copy_from_slice(bias.values()));
                });
            }
            let weights = Stacked::new(&saved[1..]);
            gemm(
                MatMut::row_major(&mut y, tokens, width),
                Mat::row_major(x, tokens, self.inputs),
                Mat::row_major(weights.values(), width, self.inputs).t(),
                self.biased,
            );
        });
        let saved = needed.contains(&true).then(|| saved.to_vec());
        (y.into_tensor([tokens, width]), saved)
    }

    fn backward(&self, saved: Self::Saved, dy: FlexTensor, needed: [bool; N]) -> [Option<FlexTensor>; N] {
        let (width, inputs, weights) = (self.width(), self.inputs, self.outputs.len());
        let dy = values(&dy);
        let tokens = dy.len() / width;
        let mut gradients = [const { None }; N];
        if needed[1 + weights..].contains(&true) {
            let mut sums = Buffer::new(width);
            time(Part::Activation, || column_sums(&mut sums, dy));
            self.divide(sums.into_tensor([width]), &mut gradients[1 + weights..]);
        }
        let dy = Mat::row_major(dy, tokens, width);
        time(Part::Gemm, || {
            if needed[1..=weights].contains(&true) {
                let mut dw = Buffer::new(width * inputs);
                gemm(MatMut::row_major(&mut dw, width, inputs), dy.t(), Mat::row_major(values(&saved[0]), tokens, inputs), false);
                self.divide(dw.into_tensor([width, inputs]), &mut gradients[1..=weights]);
            }
            if needed[0] {
                let stacked = Stacked::new(&saved[1..]);
                let mut dx = Buffer::new(tokens * inputs);
                gemm(MatMut::row_major(&mut dx, tokens, inputs), dy, Mat::row_major(stacked.values(), width, inputs), false);
                gradients[0] = Some(dx.into_tensor([tokens, inputs]));
            }
        });
        gradients
    }
}
