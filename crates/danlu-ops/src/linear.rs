use std::sync::Arc;

use burn::tensor::Tensor;
use danlu_quant::Weights;

use crate::before::{Before, Remake};
use crate::blocks::{self, block_values};
use crate::bridge::{on_cpu, run};
use crate::nf4::Nf4;
use crate::project::{Output, Project};

/// One projection of an input `[tokens, in]` to `[tokens, out]`: `x Wᵀ + b`, to which an adapter may add.
#[derive(Clone, Debug)]
pub struct Projection {
    pub weight: Weight,
    /// `[out]`.
    pub bias: Option<Tensor<1>>,
    pub adapter: Option<LowRank>,
}

/// The values of a projection, `[out, in]`.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a tensor is a handle, and lists of these are short")]
pub enum Weight {
    Float(Tensor<2>),
    /// Held in four bits and never trained: dequantized for each product.
    Nf4(Arc<Nf4>),
    /// As GGUF has it, to be run and never trained: multiplied in integers.
    Blocks(Arc<Weights>),
}

/// What LoRA adds to a projection: `scale (x Aᵀ) Bᵀ` (Hu et al. 2021, <https://arxiv.org/abs/2106.09685>).
#[derive(Clone, Debug)]
pub struct LowRank {
    /// `[rank, in]`.
    pub a: Tensor<2>,
    /// `[out, rank]`.
    pub b: Tensor<2>,
    pub scale: f64,
    /// DoRA's, `[out]`: each row of `W + scale B A` is brought to this length. The length it has is taken as a constant by the
    /// gradient (Liu et al. 2024, <https://arxiv.org/abs/2402.09353>, 4.3).
    pub magnitude: Option<Tensor<1>>,
}

impl Weight {
    /// `[out, in]`.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Weight::Float(weight) => weight.dims(),
            Weight::Nf4(blocks) => blocks.shape(),
            Weight::Blocks(weights) => weights.shape(),
        }
    }
}

impl Projection {
    /// `x Wᵀ` alone.
    pub fn of(weight: Tensor<2>) -> Self {
        Projection { weight: Weight::Float(weight), bias: None, adapter: None }
    }

    /// The one matrix that gives the same outputs, `[out, in]`: the adapter merged into the weight.
    pub fn merged(&self) -> Tensor<2> {
        let device = self.adapter.as_ref().map_or_else(crate::device, |adapter| adapter.a.device());
        let weight = match &self.weight {
            Weight::Float(weight) => weight.clone(),
            Weight::Nf4(blocks) => blocks.to_tensor(&device),
            Weight::Blocks(weights) => block_values(weights, &device),
        };
        let Some(adapter) = &self.adapter else { return weight };
        let merged = weight + adapter.b.clone().matmul(adapter.a.clone()) * adapter.scale;
        match &adapter.magnitude {
            None => merged,
            Some(magnitude) => {
                let factor = factors(&merged, magnitude);
                merged * factor.transpose()
            }
        }
    }

    fn check(&self, inputs: usize) {
        let [outputs, width] = self.weight.dims();
        assert_eq!(width, inputs, "a weight is {outputs}×{width}, but the input has {inputs} channels");
        if let Some(bias) = &self.bias {
            assert_eq!(bias.dims(), [outputs], "a bias has one value for each output");
        }
        if let Some(LowRank { a, b, magnitude, .. }) = &self.adapter {
            let [rank, width] = a.dims();
            assert_eq!(width, inputs, "an adapter's A is {rank}×{width}, but the input has {inputs} channels");
            assert_eq!(b.dims(), [outputs, rank], "an adapter's B is [out, rank]");
            if let Some(magnitude) = magnitude {
                assert_eq!(magnitude.dims(), [outputs], "a magnitude has one value for each output");
            }
        }
    }

    fn on_cpu(&self) -> bool {
        let weight = match &self.weight {
            Weight::Float(weight) => on_cpu(weight),
            Weight::Nf4(_) | Weight::Blocks(_) => true,
        };
        let adapter = self.adapter.as_ref();
        weight
            && self.bias.as_ref().is_none_or(on_cpu)
            && adapter.is_none_or(|l| on_cpu(&l.a) && on_cpu(&l.b) && l.magnitude.as_ref().is_none_or(on_cpu))
    }
}

/// What DoRA multiplies each output by, `[1, out]`: the wanted length over the length there is.
fn factors(merged: &Tensor<2>, magnitude: &Tensor<1>) -> Tensor<2> {
    let length = merged.clone().detach().square().sum_dim(1).sqrt().clamp_min(f32::MIN_POSITIVE);
    magnitude.clone().unsqueeze::<2>() / length.transpose()
}

/// `x Wᵀ + b`: `x` `[tokens, in]`, `weight` `[out, in]`, `bias` `[out]` → `[tokens, out]`.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    projections(x, &[Projection { bias, ..Projection::of(weight) }])
}

/// Several linears of one input with their outputs side by side (q|k|v, gate|up): `x` `[tokens, in]`, each weight
/// `[out_i, in]`, each bias `[out_i]` → `[tokens, Σ out_i]`. Biases are given for all weights or for none.
pub fn project(x: Tensor<2>, weights: &[Tensor<2>], biases: Option<&[Tensor<1>]>) -> Tensor<2> {
    if let Some(biases) = biases {
        assert_eq!(biases.len(), weights.len(), "biases are given for all weights or for none");
    }
    let parts: Vec<Projection> = weights
        .iter()
        .enumerate()
        .map(|(i, weight)| Projection { bias: biases.map(|biases| biases[i].clone()), ..Projection::of(weight.clone()) })
        .collect();
    projections(x, &parts)
}

/// [`project`] for projections that may have adapters, or weights in four bits or in blocks.
///
/// A weight that is not trained costs no product in the backward pass, and an input is kept for it only where a weight or an
/// adapter is trained. Over many tokens the CPU form adds `scale B A` to a copy of the weights first, which costs less than two
/// more passes over the outputs; the copy is made again in the backward pass.
pub fn projections(x: Tensor<2>, parts: &[Projection]) -> Tensor<2> {
    projected(x, None, parts)
}

/// [`projections`] of what `before` gives of `x`, which the backward pass makes again instead of keeping it. Gradients are the same bits.
pub fn projections_after(before: Before, x: Tensor<2>, parts: &[Projection]) -> Tensor<2> {
    let (x, remake) = before.run(x);
    projected(x, remake, parts)
}

fn projected(x: Tensor<2>, remake: Option<Remake>, parts: &[Projection]) -> Tensor<2> {
    let [_, inputs] = x.dims();
    assert!(!parts.is_empty(), "a projection needs at least one weight");
    parts.iter().for_each(|part| part.check(inputs));
    if parts.iter().any(|part| matches!(part.weight, Weight::Blocks(_))) {
        return blocks::projected(x, parts);
    }
    if !on_cpu(&x) || !parts.iter().all(Projection::on_cpu) {
        return plain(x, parts);
    }
    // Nothing asks for more than three at once; more are put together from what there is.
    if parts.len() > 3 {
        return Tensor::cat(parts.iter().map(|part| projections(x.clone(), std::slice::from_ref(part))).collect(), 1);
    }
    let mut tensors = vec![x.into_dispatch()];
    let mut place = |tensor| {
        tensors.push(tensor);
        tensors.len() - 1
    };
    let outputs = parts.iter().map(|part| Output::new(part, &mut place)).collect();
    let project = Project { inputs, outputs, remake };
    macro_rules! of_as_many_inputs {
        ($($count:literal)*) => {
            match tensors.len() {
                $($count => {
                    let mut tensors = tensors.into_iter();
                    run(project, std::array::from_fn::<_, $count, _>(|_| tensors.next().expect("as many were counted")))
                })*
                count => unreachable!("three projections have at most fifteen tensors, not {count}"),
            }
        };
    }
    of_as_many_inputs!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16)
}

pub(crate) fn plain(x: Tensor<2>, parts: &[Projection]) -> Tensor<2> {
    let narrow = x.dtype();
    if let Some(stacked) = stacked(parts) {
        return plain(x, &[stacked]);
    }
    let outputs = parts.iter().map(|part| {
        let weight = match &part.weight {
            Weight::Float(weight) => weight.clone(),
            Weight::Nf4(blocks) => blocks.to_tensor(&x.device().inner()),
            Weight::Blocks(weights) => block_values(weights, &x.device().inner()),
        };
        let mut y = x.clone().matmul(weight.cast(narrow).transpose());
        if let Some(LowRank { a, b, scale, magnitude }) = &part.adapter {
            let [down, up] = [a, b].map(|matrix| matrix.clone().cast(narrow).transpose());
            y = y + x.clone().matmul(down).matmul(up) * *scale;
            if let Some(magnitude) = magnitude {
                let adapter = LowRank { a: a.clone(), b: b.clone(), scale: *scale, magnitude: None };
                let merged = Projection { adapter: Some(adapter), ..part.clone() }.merged();
                y = y * factors(&merged, magnitude).cast(narrow);
            }
        }
        match &part.bias {
            Some(bias) => y + bias.clone().cast(narrow).unsqueeze(),
            None => y,
        }
    });
    Tensor::cat(outputs.collect(), 1)
}

/// Several plain projections as one of their weights below each other, which are less to copy than outputs beside each other.
fn stacked(parts: &[Projection]) -> Option<Projection> {
    let weight = |part: &Projection| match &part.weight {
        Weight::Float(weight) if part.adapter.is_none() => Some(weight.clone()),
        _ => None,
    };
    let weights: Vec<Tensor<2>> = parts.iter().map(weight).collect::<Option<_>>()?;
    let biases: Vec<Tensor<1>> = parts.iter().filter_map(|part| part.bias.clone()).collect();
    let alike = biases.is_empty() || biases.len() == parts.len();
    (parts.len() > 1 && alike).then(|| Projection {
        weight: Weight::Float(Tensor::cat(weights, 0)),
        bias: (!biases.is_empty()).then(|| Tensor::cat(biases, 0)),
        adapter: None,
    })
}
