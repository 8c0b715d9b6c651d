//! AdamW with its moments in eight bits a value (Dettmers et al. 2021, <https://arxiv.org/abs/2110.02861>).
//!
//! A moment is cut into blocks, each with its largest size as a scale. A code `k` stands for a power of `k`: the fourth for the first
//! moment, whose 127 levels on either side reach down to 4e-9 of the scale, and the eighth for the second, which is a square and whose 255
//! levels are therefore as close in its root. That is the range of the paper's dynamic code, but levels are computed with roots and
//! products alone and need no table.
//!
//! Rounding to the nearest level would be wrong: with a decay of 0.95 or slower a step changes the second moment by less than half the way
//! to the next level, and it would never move again. A value is therefore rounded up as often as it is near the upper level, so that codes
//! are right on average. Whose turn it is follows from additive recurrences (Weyl 1916), over elements with the golden ratio and over steps
//! with the two numbers of Roberts' R2: they are more even than random numbers, need no state, and a run that goes on rounds as one that
//! never stopped.

use burn::tensor::{DType, Device, FloatDType, Int, IntDType, Tensor, TensorData};

use super::adamw::{AdamW, Constants, PIECE};
use crate::bridge::{byte_primitive, byte_values_mut, bytes, bytes_on_cpu, on_cpu, owned, primitive, tensor, values, values_mut};
use crate::kernels::{Isa, simd, simd_fn};
use crate::profile::{Part, time};
use crate::rows::for_each_piece_and_bytes;

/// Values that share a scale.
pub const INT8_BLOCK: usize = 256;

/// A moment in eight bits a value, with a scale for each [`INT8_BLOCK`] of them.
#[derive(Clone, Debug)]
pub struct Int8Moment {
    /// One byte a value, `[values]`: 128 and the signed level of a first moment, the level of a second one.
    pub codes: Tensor<1, Int>,
    /// The largest size in each block, `[blocks]`.
    pub scales: Tensor<1>,
}

/// What stands for zero in a first moment.
const MIDDLE: f32 = 128.0;
/// Levels of a first moment on either side of zero, and of a second one.
const LEVELS: [f32; 2] = [127.0, 255.0];
const STEPS: [f32; 2] = [1.0 / LEVELS[0], 1.0 / LEVELS[1]];
/// The level of a second moment that is not zero is at least this: a root of a millionth of the block's largest. Lower levels are so far
/// apart that rounding could halve a root, and zero would divide by epsilon alone.
const LEAST: f32 = 8.0;
/// A block whose scale is below this counts as zeros: its reciprocal would overflow.
const TINY: f32 = 1e-37;
/// The sequence's steps over elements and, for each moment, over updates, in units of [`PERIOD`].
const ACROSS: u32 = 20_251;
const ALONG: [u64; 2] = [24_735, 18_673];
/// Fits in 32 bits when multiplied by any of these, and divides the elements of a piece.
const PERIOD: u32 = 1 << 15;
const _: () = assert!(PIECE.is_multiple_of(PERIOD as usize) && PIECE.is_multiple_of(INT8_BLOCK));

impl Int8Moment {
    /// The two moments of `len` values that never moved.
    pub fn zeros(len: usize, device: &Device) -> [Self; 2] {
        [MIDDLE as u8, 0].map(|zero| {
            let scales = vec![0.0; len.div_ceil(INT8_BLOCK)];
            Self::new(vec![zero; len], scales, device)
        })
    }

    /// From its codes and scales. Panics when their numbers do not go together.
    pub fn new(codes: Vec<u8>, scales: Vec<f32>, device: &Device) -> Self {
        let (len, blocks) = (codes.len(), scales.len());
        assert_eq!(len.div_ceil(INT8_BLOCK), blocks, "{len} codes have a scale for each {INT8_BLOCK}");
        Self {
            codes: Tensor::from_data(TensorData::new(codes, [len]), (device, DType::U8)),
            scales: Tensor::from_data(TensorData::new(scales, [blocks]), device),
        }
    }
}

/// Whether moments in eight bits can be on a device: not all have bytes.
pub fn has_int8_moments(device: &Device) -> bool {
    device.supports_dtype(DType::U8)
}

/// [`adamw_step`](super::adamw_step) with moments in eight bits: they are widened, moved in 32 bits, and the weight moves by what they then
/// are; only what is kept for the next step is rounded.
pub fn adamw_int8_step<const D: usize>(
    weight: Tensor<D>,
    gradient: Tensor<D>,
    moments: [Int8Moment; 2],
    step: u64,
    scale: f64,
    options: &AdamW,
) -> (Tensor<D>, [Int8Moment; 2]) {
    assert!(step > 0, "AdamW counts its steps from 1");
    let (weight, gradient) = (weight.inner(), gradient.inner());
    let shape = weight.dims();
    assert_eq!(shape, gradient.dims(), "the gradient has the weight's shape");
    let len: usize = shape.iter().product();
    for moment in &moments {
        assert_eq!(moment.codes.dims(), [len], "a moment has a code for each weight");
    }
    let constants = Constants::new(step, scale, options);
    let cpu = [&weight, &gradient].into_iter().all(on_cpu);
    if !cpu || !moments.iter().all(|moment| bytes_on_cpu(&moment.codes) && on_cpu(&moment.scales)) {
        return plain(weight, gradient, moments, step, &constants);
    }
    let gradient = primitive(gradient);
    let from = values(&gradient);
    let mut weight = owned(primitive(weight));
    let [mut first, mut second] = moments.map(|moment| (byte_primitive(moment.codes), owned(primitive(moment.scales.inner()))));
    let along = ALONG.map(|along| offset(step, along));
    time(Part::Optimizer, || {
        let floats = [values_mut(&mut weight), values_mut(&mut first.1), values_mut(&mut second.1)];
        let codes = [byte_values_mut(&mut first.0), byte_values_mut(&mut second.0)];
        let blocks = PIECE / INT8_BLOCK;
        for_each_piece_and_bytes((floats, [PIECE, blocks, blocks]), (codes, [PIECE; 2]), |i, [w, m, v], [m_codes, v_codes]| {
            update(Isa::current(), w, &from[i * PIECE..], (m_codes, m), (v_codes, v), constants, along);
        });
    });
    let moment = |(codes, scales)| Int8Moment { codes: bytes(codes), scales: tensor(scales) };
    (tensor(weight), [moment(first), moment(second)])
}

/// Where a step begins in the sequence.
fn offset(step: u64, along: u64) -> u32 {
    (step.wrapping_mul(along) % u64::from(PERIOD)) as u32
}

#[inline(always)]
fn fourth(x: f32) -> f32 {
    (x * x) * (x * x)
}

#[inline(always)]
fn eighth(x: f32) -> f32 {
    fourth(x) * fourth(x)
}

/// 1.5 · 2^23: adding it leaves the nearest integer in the low bits.
const NEAREST: f32 = 12_582_912.0;

/// The integer at or below a number from 0 to 2^22. Unlike a cast, which minds what does not fit, it is made of vector instructions.
#[inline(always)]
fn floor(x: f32) -> f32 {
    let nearest = (x + NEAREST) - NEAREST;
    if nearest > x { nearest - 1.0 } else { nearest }
}

/// An integer from 0 to 255 as a byte.
#[inline(always)]
fn byte(x: f32) -> u8 {
    (x + NEAREST).to_bits() as u8
}

/// A block's scale and what brings its values below one.
#[inline(always)]
fn scale_of(largest: f32) -> (f32, f32) {
    let largest = if largest > 0.0 { largest } else { 0.0 };
    (largest, if largest < TINY { 0.0 } else { 1.0 / largest })
}

/// The level, up or down, of a value between the `low`-th and the next.
#[inline(always)]
fn round(x: f32, low: f32, [lower, upper]: [f32; 2], place: f32, levels: f32) -> f32 {
    let up = if x - lower > place * (upper - lower) { 1.0 } else { 0.0 };
    let level = low + up;
    if level > levels { levels } else { level }
}

simd_fn! {
    /// Moves weights, reading and writing each block of moments once. No multiplication is fused with an addition, so that results are the
    /// same with every instruction set.
    fn update(
        w: &mut [f32],
        g: &[f32],
        first: (&mut [u8], &mut [f32]),
        second: (&mut [u8], &mut [f32]),
        c: Constants,
        along: [u32; 2],
    ) {
        let (mut m, mut v, mut sizes) = ([0f32; INT8_BLOCK], [0f32; INT8_BLOCK], [0f32; INT8_BLOCK]);
        let first = first.0.chunks_mut(INT8_BLOCK).zip(first.1);
        let second = second.0.chunks_mut(INT8_BLOCK).zip(second.1);
        let blocks = w.chunks_mut(INT8_BLOCK).zip(g.chunks(INT8_BLOCK)).zip(first.zip(second));
        for (block, ((w, g), ((m_codes, m_scale), (v_codes, v_scale)))) in blocks.enumerate() {
            let len = w.len();
            let (g, m, v, sizes) = (&g[..len], &mut m[..len], &mut v[..len], &mut sizes[..len]);
            let (m_codes, v_codes) = (&mut m_codes[..len], &mut v_codes[..len]);
            for i in 0..len {
                let g = g[i] * c.scale;
                let t = (f32::from(m_codes[i]) - MIDDLE) * STEPS[0];
                m[i] = c.beta1 * ((t * t) * (t * t.abs()) * *m_scale) + c.rest1 * g;
                v[i] = c.beta2 * (eighth(f32::from(v_codes[i]) * STEPS[1]) * *v_scale) + c.rest2 * g * g;
                w[i] = c.keep * w[i] - c.rate * m[i] / (v[i].sqrt() * c.root + c.epsilon);
                sizes[i] = m[i].abs();
            }
            let (m_largest, m_factor) = scale_of(simd::max(sizes));
            let (v_largest, v_factor) = scale_of(simd::max(v));
            (*m_scale, *v_scale) = (m_largest, v_largest);
            let at = (block * INT8_BLOCK) as u32;
            for i in 0..len {
                let across = (at + i as u32).wrapping_mul(ACROSS);
                let place = |along: u32| (((across.wrapping_add(along)) & (PERIOD - 1)) as i32 as f32 + 0.5) * (1.0 / PERIOD as f32);
                let x = sizes[i] * m_factor;
                let low = floor(x.sqrt().sqrt() * LEVELS[0]);
                let level = round(x, low, [fourth(low * STEPS[0]), fourth((low + 1.0) * STEPS[0])], place(along[0]), LEVELS[0]);
                m_codes[i] = byte(MIDDLE + if m[i] < 0.0 { -level } else { level });
                let x = v[i] * v_factor;
                let low = floor(x.sqrt().sqrt().sqrt() * LEVELS[1]);
                let level = round(x, low, [eighth(low * STEPS[1]), eighth((low + 1.0) * STEPS[1])], place(along[1]), LEVELS[1]);
                let level = if level < LEAST { LEAST } else { level };
                v_codes[i] = byte(if v[i] > 0.0 { level } else { 0.0 });
            }
        }
    }
}

pub(crate) fn plain<const D: usize>(
    weight: Tensor<D>,
    gradient: Tensor<D>,
    [first, second]: [Int8Moment; 2],
    step: u64,
    c: &Constants,
) -> (Tensor<D>, [Int8Moment; 2]) {
    let shape = weight.dims();
    let (len, device): (usize, _) = (shape.iter().product(), weight.device());
    let blocks = len.div_ceil(INT8_BLOCK);
    let blocked = |x: Tensor<1>| {
        let missing = blocks * INT8_BLOCK - len;
        let whole = if missing == 0 { x } else { Tensor::cat(vec![x, Tensor::zeros([missing], &device)], 0) };
        whole.reshape([blocks, INT8_BLOCK])
    };
    let flat = |x: Tensor<2>| x.reshape([blocks * INT8_BLOCK]).narrow(0, 0, len);
    let w = blocked(weight.reshape([len]));
    let g = blocked(gradient.reshape([len])) * c.scale;
    // What fills up the last block stands for zeros, which change no scale.
    let levels = |codes: Tensor<1, Int>, zero: f32| blocked(codes.cast(FloatDType::F32) - zero);
    let t = levels(first.codes, MIDDLE) * STEPS[0];
    let m = (t.clone() * t.clone()) * (t.clone() * t.abs()) * first.scales.reshape([blocks, 1]);
    let v = power(levels(second.codes, 0.0) * STEPS[1], 3) * second.scales.reshape([blocks, 1]);
    let m = m * c.beta1 + g.clone() * c.rest1;
    let v = v * c.beta2 + (g.clone() * c.rest2) * g;
    let w = w * c.keep - m.clone() * c.rate / (v.clone().sqrt() * c.root + c.epsilon);

    let [m_place, v_place] = ALONG.map(|along| places(blocks * INT8_BLOCK, offset(step, along), &device));
    let (m_codes, m_scales) = encode(m.clone().abs(), 2, m_place, LEVELS[0], STEPS[0]);
    let m_codes = m_codes.clone().mask_where(m.lower_elem(0.0), m_codes.neg()) + MIDDLE;
    let (v_codes, v_scales) = encode(v.clone(), 3, v_place, LEVELS[1], STEPS[1]);
    let v_codes = v_codes.clamp_min(LEAST).mask_fill(v.lower_equal_elem(0.0), 0.0);
    let moment = |codes: Tensor<2>, scales| Int8Moment { codes: flat(codes).cast(IntDType::U8), scales };
    (flat(w).reshape(shape), [moment(m_codes, m_scales), moment(v_codes, v_scales)])
}

/// The power 2ⁿ.
fn power(x: Tensor<2>, n: usize) -> Tensor<2> {
    (0..n).fold(x, |x, _| x.clone() * x)
}

/// Levels whose 2ⁿ-th power are the values, and the scales.
fn encode(x: Tensor<2>, n: usize, place: Tensor<2>, levels: f32, step: f32) -> (Tensor<2>, Tensor<1>) {
    let largest = x.clone().max_dim(1);
    let none = largest.clone().lower_elem(TINY);
    let factor = (largest.ones_like() / largest.clone()).mask_fill(none, 0.0);
    let x = x * factor;
    let low = ((0..n).fold(x.clone(), |x, _| x.sqrt()) * levels).floor();
    let [lower, upper] = [low.clone(), low.clone() + 1.0].map(|level| power(level * step, n));
    let up = (x - lower.clone()).greater(place * (upper - lower)).float();
    let blocks = largest.dims()[0];
    ((low + up).clamp_max(levels), largest.reshape([blocks]))
}

/// The sequence's values for so many elements, in blocks.
fn places(len: usize, along: u32, device: &Device) -> Tensor<2> {
    let period = PERIOD as i32;
    let element = Tensor::<1, Int>::arange(0..len as i64, device).remainder_scalar(period);
    let place = (element * ACROSS as i32 + along as i32).remainder_scalar(period).cast(FloatDType::F32);
    ((place + 0.5) * (1.0 / PERIOD as f32)).reshape([len / INT8_BLOCK, INT8_BLOCK])
}

#[cfg(test)]
mod tests;
