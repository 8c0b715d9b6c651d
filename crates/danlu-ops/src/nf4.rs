//! Weights in four bits.

use std::fmt;

use burn::tensor::{Device, Tensor, TensorData};

use crate::kernels::Isa;
use crate::kernels::simd_fn;
use crate::rows::for_each_piece;

/// The 16 values of NF4: quantiles of a normal distribution, scaled to -1..1 (Dettmers et al. 2023,
/// <https://arxiv.org/abs/2305.14314>, appendix E); the numbers are those of bitsandbytes.
pub const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Values that share a scale.
const BLOCK: usize = 64;
/// Blocks in one piece of parallel work.
const PIECE: usize = 1024;

/// A matrix of 4-bit codes with one scale, the largest absolute value, for each 64 values of the flattened matrix: 4.5 bits a value.
/// Codes and scales are those of bitsandbytes (NF4 without nested quantization, first value in the high bits).
pub struct Nf4 {
    shape: [usize; 2],
    codes: Vec<u8>,
    largest: Vec<f32>,
    /// `Σ (value - quantized)²` and `Σ value²`.
    error: [f64; 2],
}

impl fmt::Debug for Nf4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nf4 of {:?}", self.shape)
    }
}

impl Nf4 {
    /// The matrix `[out, in]` of these values, row by row.
    ///
    /// # Panics
    /// When the shape has another number of values.
    pub fn quantize(values: &[f32], shape: [usize; 2]) -> Self {
        assert_eq!(values.len(), shape[0] * shape[1], "a matrix of {shape:?}");
        let largest: Vec<f32> =
            values.chunks(BLOCK).map(|block| block.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()))).collect();
        let code = |i: usize| match values.get(i) {
            // The code of zero, also where there is no value.
            None => 7,
            Some(_) if largest[i / BLOCK] == 0.0 => 7,
            Some(x) => nearest(x / largest[i / BLOCK]),
        };
        let codes = (0..values.len().div_ceil(2)).map(|i| code(2 * i) << 4 | code(2 * i + 1)).collect();
        let mut quantized = Nf4 { shape, codes, largest, error: [0.0; 2] };
        let mut back = vec![0.0; values.len()];
        quantized.dequantize(&mut back);
        for (x, y) in values.iter().zip(back) {
            quantized.error[0] += f64::from(x - y).powi(2);
            quantized.error[1] += f64::from(*x).powi(2);
        }
        quantized
    }

    /// `[out, in]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.codes.len() + self.largest.len() * size_of::<f32>()
    }

    /// The square of the length of what quantizing lost, and that of the values.
    pub fn squared_error(&self) -> [f64; 2] {
        self.error
    }

    /// The codes, two in a byte, and the scales.
    pub fn parts(&self) -> (&[u8], &[f32]) {
        (&self.codes, &self.largest)
    }

    /// Writes the values, row by row.
    pub fn dequantize(&self, to: &mut [f32]) {
        assert_eq!(to.len(), self.shape[0] * self.shape[1], "a matrix of {:?}", self.shape);
        for_each_piece([to], [PIECE * BLOCK], |i, [to]| {
            let codes = &self.codes[i * PIECE * BLOCK / 2..];
            for ((to, codes), largest) in to.chunks_mut(BLOCK).zip(codes.chunks(BLOCK / 2)).zip(&self.largest[i * PIECE..]) {
                block(Isa::current(), to, codes, *largest);
            }
        });
    }

    /// The values as a tensor `[out, in]`.
    pub fn to_tensor(&self, device: &Device) -> Tensor<2> {
        let mut values = vec![0.0; self.shape[0] * self.shape[1]];
        self.dequantize(&mut values);
        Tensor::from_data(TensorData::new(values, self.shape), device)
    }
}

/// The code of the nearest value; the lower one of two equally near.
fn nearest(x: f32) -> u8 {
    NF4.windows(2).take_while(|pair| x > (pair[0] + pair[1]) / 2.0).count() as u8
}

simd_fn! {
    fn block(to: &mut [f32], codes: &[u8], largest: f32) {
        let mut pairs = to.chunks_exact_mut(2);
        for (pair, code) in (&mut pairs).zip(codes) {
            pair[0] = NF4[usize::from(code >> 4)] * largest;
            pair[1] = NF4[usize::from(code & 15)] * largest;
        }
        if let ([last], Some(code)) = (pairs.into_remainder(), codes.last()) {
            *last = NF4[usize::from(code >> 4)] * largest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::numbers;

    #[test]
    fn the_values_themselves_come_back() {
        for count in [1, 2, 63, 64, 65, 640, 70_001] {
            // Every block has a one, so that the scale is known.
            let values: Vec<f32> = (0..count).map(|i| if i % BLOCK == 0 { 3.0 } else { 3.0 * NF4[i * 7 % 16] }).collect();
            let quantized = Nf4::quantize(&values, [1, count]);
            let mut back = vec![f32::NAN; count];
            quantized.dequantize(&mut back);
            assert_eq!(back, values, "{count} values");
            assert_eq!(quantized.squared_error()[0], 0.0);
        }
    }

    #[test]
    fn every_value_becomes_the_nearest_one_and_zeros_stay() {
        let values = numbers(6400, 3);
        let quantized = Nf4::quantize(&values, [64, 100]);
        let mut back = vec![f32::NAN; 6400];
        quantized.dequantize(&mut back);
        for (block, back) in values.chunks(BLOCK).zip(back.chunks(BLOCK)) {
            let largest = block.iter().fold(0.0, |m: f32, x| m.max(x.abs()));
            for (x, y) in block.iter().zip(back) {
                let best = NF4.iter().map(|v| (v * largest - x).abs()).fold(f32::MAX, f32::min);
                assert!((x - y).abs() <= best + 1e-6, "{x} became {y}");
            }
        }
        let mut zeros = [1.0; 70];
        Nf4::quantize(&[0.0; 70], [7, 10]).dequantize(&mut zeros);
        assert_eq!(zeros, [0.0; 70]);
        assert_eq!(Nf4::quantize(&values, [64, 100]).bytes(), 3200 + 400);
    }
}
