//! Weights in blocks of a few bits, which only run: products in integers, rows of a table, and the floats they stand for.

use burn::tensor::{Device, Tensor, TensorData};
use danlu_quant::{Activations, Weights, products};

use crate::Ids;
use crate::bridge::{on_cpu, primitive, tensor, values};
use crate::buffer::Buffer;
use crate::kernels::threads::for_each_chunk;
use crate::linear::{Projection, Weight};
use crate::profile::{Part, time};

/// Projections of which at least one is in blocks. What a token gets is the same to the bit whatever tokens are read with it: inputs are
/// brought to eight bits row by row, sums of integers are exact, and a bias is added last.
///
/// On other devices, beside an adapter, and where a gradient is wanted, the blocks are made floats for each product.
pub(crate) fn projected(x: Tensor<2>, parts: &[Projection]) -> Tensor<2> {
    let blocks = |part: &Projection| match &part.weight {
        Weight::Blocks(weights) if part.adapter.is_none() => Some(weights.clone()),
        _ => None,
    };
    let all: Option<Vec<_>> = parts.iter().map(blocks).collect();
    match (all, parts) {
        (Some(all), _) if runs(&x) && parts.iter().all(|part| part.bias.as_ref().is_none_or(runs)) => {
            in_blocks(x, &all.iter().map(|weights| &**weights).collect::<Vec<_>>(), parts)
        }
        (None, [_, _, ..]) => {
            Tensor::cat(parts.iter().map(|part| crate::projections(x.clone(), std::slice::from_ref(part))).collect(), 1)
        }
        _ => {
            let device = x.device().inner();
            let floats = |part: &Projection| match &part.weight {
                Weight::Blocks(weights) => Projection { weight: Weight::Float(block_values(weights, &device)), ..part.clone() },
                _ => part.clone(),
            };
            crate::projections(x, &parts.iter().map(floats).collect::<Vec<_>>())
        }
    }
}

fn runs<const D: usize>(x: &Tensor<D>) -> bool {
    on_cpu(x) && !x.is_autodiff()
}

fn in_blocks(x: Tensor<2>, weights: &[&Weights], parts: &[Projection]) -> Tensor<2> {
    let [tokens, inputs] = x.dims();
    let x = primitive(x);
    let width: usize = weights.iter().map(|weight| weight.shape()[0]).sum();
    let mut y = Buffer::new(tokens * width);
    time(Part::Gemm, || {
        let mut bytes = Activations::new();
        let multiplied = bytes.set(values(&x), tokens, inputs).and_then(|()| products(&mut y, &bytes, weights));
        multiplied.expect("weights were found as wide as the input, in whole blocks");
    });
    let mut start = 0;
    for (part, weight) in parts.iter().zip(weights) {
        let end = start + weight.shape()[0];
        if let Some(bias) = &part.bias {
            let bias = primitive(bias.clone());
            for row in y.chunks_exact_mut(width) {
                row[start..end].iter_mut().zip(values(&bias)).for_each(|(y, bias)| *y += bias);
            }
        }
        start = end;
    }
    tensor(y.into_tensor([tokens, width]))
}

/// [`crate::embedding`] of a table in blocks, on the CPU and without a gradient: `table` `[vocabulary, channels]`, `ids` `[tokens]` →
/// `[tokens, channels]`.
///
/// # Panics
/// When an id is not a row of the table.
pub fn embedding_in_blocks(table: &Weights, ids: &Ids) -> Tensor<2> {
    let [rows, width] = table.shape();
    let mut y = Buffer::new(ids.len() * width);
    time(Part::Embedding, || {
        for (row, &id) in y.chunks_exact_mut(width.max(1)).zip(ids.iter()) {
            let found = table.row(id as usize, row);
            assert!(found.is_ok(), "token id {id} is outside the embedding's {rows} rows");
        }
    });
    tensor(y.into_tensor([ids.len(), width]))
}

/// The values that a weight in blocks stands for, `[out, in]`.
pub fn block_values(weights: &Weights, device: &Device) -> Tensor<2> {
    let [out, inp] = weights.shape();
    let mut all = vec![0.0; out * inp];
    for_each_chunk(&mut all, inp.max(1), |row, to| weights.row(row, to).expect("rows that are there, and as wide"));
    Tensor::from_data(TensorData::new(all, [out, inp]), device)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use danlu_quant::{Format, quantize};

    use super::*;
    use crate::projections;
    use crate::tests::{as_elsewhere, assert_close, numbers, to_vec};

    const INPUTS: usize = 64;

    fn blocks(format: Format, out: usize, seed: u64) -> Arc<Weights> {
        let mut bytes = vec![];
        quantize(format, &numbers(out * INPUTS, seed), &mut bytes).unwrap();
        Weights::new(format, [out, INPUTS], &bytes).unwrap().into()
    }

    /// Two in blocks, the second with a bias, and one of floats between them.
    fn parts(device: &Device) -> Vec<Projection> {
        let bias = Tensor::from_data(TensorData::new(numbers(9, 4), [9]), device);
        let of = |weight, bias| Projection { weight, bias, adapter: None };
        vec![
            of(Weight::Blocks(blocks(Format::Q4_1, 12, 1)), None),
            of(Weight::Float(crate::tests::tensor([5, INPUTS], 2, device)), None),
            of(Weight::Blocks(blocks(Format::Q8_0, 9, 3)), Some(bias)),
        ]
    }

    /// Inputs in eight bits differ from the floats by 1/254 of a block's largest at most, 0.4 % of their length here; sums of many no more.
    #[test]
    fn products_are_those_of_the_values_the_blocks_stand_for() {
        let device = Device::flex();
        let x = crate::tests::tensor([7, INPUTS], 5, &device);
        let all = parts(&device);
        for parts in [&all[..], &all[..1], &all[2..]] {
            let expected = as_elsewhere(|| to_vec(projections(x.clone(), parts)));
            assert_close("in blocks", &to_vec(projections(x.clone(), parts)), &expected, 0.01);
        }
    }

    #[test]
    fn a_row_gets_the_same_bits_in_any_company() {
        let device = Device::flex();
        let x = crate::tests::tensor([300, INPUTS], 6, &device);
        let parts = [parts(&device).remove(0), parts(&device).remove(2)];
        let together = to_vec(projections(x.clone(), &parts));
        for row in [0, 1, 150, 299] {
            let alone = to_vec(projections(x.clone().narrow(0, row, 1), &parts));
            assert_eq!(alone, together[row * 21..][..21], "row {row}");
        }
    }

    /// Where a gradient is wanted it comes, from the floats.
    #[test]
    fn nothing_is_trained_in_silence() {
        let device = Device::flex().autodiff();
        let x = crate::tests::tensor([3, INPUTS], 7, &device).require_grad();
        let part = Projection { weight: Weight::Blocks(blocks(Format::Q8_0, 8, 8)), bias: None, adapter: None };
        let mut gradients = projections(x.clone(), std::slice::from_ref(&part)).sum().backward();
        let found = to_vec(x.grad_remove(&mut gradients).unwrap());
        let columns = to_vec(part.merged().sum_dim(0));
        assert_close("the gradient", &found[..INPUTS], &columns, 1e-5);
    }

    #[test]
    fn rows_of_a_table_are_its_values() {
        let table = blocks(Format::Q4_0, 20, 9);
        let all = to_vec(block_values(&table, &Device::flex()));
        let rows = to_vec(embedding_in_blocks(&table, &vec![19, 0, 7].into()));
        let expected = [19, 0, 7].map(|row| &all[row * INPUTS..][..INPUTS]).concat();
        assert_eq!(rows, expected);
    }
}
