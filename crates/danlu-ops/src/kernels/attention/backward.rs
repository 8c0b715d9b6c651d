//! The backward pass.

use std::ops::Range;

use super::{Attention, carve, carved, score_stride, turned_rows};
use crate::kernels::isa::Isa;
use crate::kernels::pack::pack_panel;
use crate::kernels::scratch::{self, Use};
use crate::kernels::simd::{dot, exp, simd_fn};
use crate::kernels::threads::{self, SendPtr};
use crate::kernels::tile::{Store, Tile, for_tile};

/// The gradient of [`super::attention_forward`]: from `dy`, the saved `y`, `lse` and `qkv`, writes all of `dqkv` in the segments.
pub fn attention_backward(
    shape: &Attention,
    dqkv: &mut [f32],
    dy: &[f32],
    y: &[f32],
    lse: &[f32],
    qkv: &[f32],
    segments: &[Range<usize>],
) {
    backward_with(Isa::current(), shape, dqkv, Saved { dy, y, lse, qkv }, segments);
}

/// What the backward pass reads.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    pub dy: &'a [f32],
    pub y: &'a [f32],
    pub lse: &'a [f32],
    pub qkv: &'a [f32],
}

pub(super) fn backward_with(isa: Isa, shape: &Attention, dqkv: &mut [f32], saved: Saved, segments: &[Range<usize>]) {
    let tokens = saved.lse.len() / shape.heads.max(1);
    let (wide, narrow) = (tokens * shape.row_width(), tokens * shape.q_width());
    assert!(
        saved.lse.len() == tokens * shape.heads
            && [saved.dy.len(), saved.y.len()] == [narrow; 2]
            && [saved.qkv.len(), dqkv.len()] == [wide; 2],
        "attention of {tokens} tokens: dy has {} elements, y {}, qkv {}, dqkv {}",
        saved.dy.len(),
        saved.y.len(),
        saved.qkv.len(),
        dqkv.len()
    );
    shape.check(tokens, segments);
    let dqkv = SendPtr(dqkv.as_mut_ptr());
    threads::for_each(segments.len() * shape.kv_heads, |piece| {
        let (segment, head) = (&segments[piece / shape.kv_heads], piece % shape.kv_heads);
        let (width, dim, first_head) = (shape.row_width(), shape.head_dim, head * shape.group());
        let [q_at, k_at] = [first_head * dim, shape.q_width() + head * dim];
        let v_at = k_at + shape.kv_heads * dim;
        // SAFETY: rows of this segment and columns of this group of heads, which no other piece writes.
        unsafe {
            let row = saved.qkv[segment.start * width..].as_ptr();
            let gradient = dqkv.get().add(segment.start * width);
            let data = BackwardData {
                q: row.add(q_at),
                dq: gradient.add(q_at),
                q_stride: width,
                k: row.add(k_at),
                dk: gradient.add(k_at),
                v: row.add(v_at),
                dv: gradient.add(v_at),
                kv_stride: width,
                y: saved.y[segment.start * shape.q_width() + q_at..].as_ptr(),
                dy: saved.dy[segment.start * shape.q_width() + q_at..].as_ptr(),
                lse: saved.lse[segment.start * shape.heads + first_head..].as_ptr(),
                rows: segment.len(),
                keys: segment.len(),
            };
            dispatch_backward(isa, shape, &data);
        }
    });
}

/// The rows of one group of query heads and of the key head they share, with where their gradients go.
pub(super) struct BackwardData {
    pub q: *const f32,
    pub dq: *mut f32,
    pub q_stride: usize,
    pub k: *const f32,
    pub dk: *mut f32,
    pub v: *const f32,
    pub dv: *mut f32,
    pub kv_stride: usize,
    /// The output and its gradient, whose rows are as wide as all queries.
    pub y: *const f32,
    pub dy: *const f32,
    pub lse: *const f32,
    /// Query rows.
    pub rows: usize,
    /// Rows of keys and values; as many as query rows under a causal mask and with rope.
    pub keys: usize,
}

/// # Safety
/// The pointers of `data` must reach over its rows; those of gradients must be this call's alone to write.
pub(super) unsafe fn dispatch_backward(isa: Isa, shape: &Attention, data: &BackwardData) {
    // SAFETY: passed on.
    unsafe { for_tile!(isa, backward_head(shape, data)) }
}

/// # Safety
/// As for [`dispatch_backward`], with the instruction set of `T` present.
unsafe fn backward_head<T: Tile, const MR: usize, const NR: usize>(shape: &Attention, data: &BackwardData) {
    let (dim, out) = (shape.head_dim, shape.q_width());
    let &BackwardData { q_stride: width, kv_stride, keys, .. } = data;
    let (key_panels, dim_panels) = (keys.div_ceil(NR), dim.div_ceil(NR));
    let stride = score_stride(keys);
    // Rows of queries whose scores are held together: the gradients of keys and values are summed over this many in registers. The
    // scores of a long segment are held for fewer rows, so that they stay in the second cache.
    let block = if keys <= 512 { 8 * MR } else { 4 * MR };
    let sizes = [
        key_panels * NR * dim,
        key_panels * NR * dim,
        dim_panels * NR * keys,
        keys.max(NR) * dim,
        block * dim,
        dim_panels * NR * block,
        dim_panels * NR * block,
        block * stride,
        block * stride,
    ];
    scratch::with(Use::Attention, carved(&sizes), |scratch| {
        let [kt, vt, k, turned_k, turned_q, q_packed, dy_packed, p, ds] = carve(scratch, sizes);
        // SAFETY: all addresses are rows and columns that the caller vouches for, or scratch cut to the sizes above.
        unsafe {
            let (keys_at, keys_stride) = turned_rows(shape, T::ISA, turned_k, data.k, kv_stride, keys, 0);
            for j in 0..key_panels {
                let rows = NR.min(keys - j * NR);
                let at = j * NR * dim;
                pack_panel::<NR>(kt[at..].as_mut_ptr(), keys_at.add(j * NR * keys_stride), dim, 1, rows, keys_stride);
                pack_panel::<NR>(vt[at..].as_mut_ptr(), data.v.add(j * NR * kv_stride), dim, 1, rows, kv_stride);
            }
            for d in 0..dim_panels {
                let cols = NR.min(dim - d * NR);
                pack_panel::<NR>(k[d * NR * keys..].as_mut_ptr(), keys_at.add(d * NR), keys, keys_stride, cols, 1);
            }
            for g in 0..shape.group() {
                for first in (0..data.rows).step_by(block) {
                    let rows = block.min(data.rows - first);
                    let q = data.q.add(first * width + g * dim);
                    let (q, q_stride) = turned_rows(shape, T::ISA, turned_q, q, width, rows, first);
                    let dy = data.dy.add(first * out + g * dim);
                    for d in 0..dim_panels {
                        let cols = NR.min(dim - d * NR);
                        pack_panel::<NR>(q_packed[d * NR * rows..].as_mut_ptr(), q.add(d * NR), rows, q_stride, cols, 1);
                        pack_panel::<NR>(dy_packed[d * NR * rows..].as_mut_ptr(), dy.add(d * NR), rows, out, cols, 1);
                    }
                    for r0 in (0..rows).step_by(MR) {
                        let count = MR.min(rows - r0);
                        let seen = shape.visible(first + r0 + count - 1, keys);
                        for j in 0..seen.div_ceil(NR) {
                            let store = Store { alpha: 1.0, accumulate: false, row_stride: stride, rows: count, cols: NR };
                            let at = r0 * stride + j * NR;
                            let panel = j * NR * dim;
                            let scaled = Store { alpha: shape.scale(), ..store };
                            T::run::<true>(
                                dim,
                                q.add(r0 * q_stride),
                                q_stride,
                                kt[panel..].as_ptr(),
                                p[at..].as_mut_ptr(),
                                scaled,
                            );
                            T::run::<true>(dim, dy.add(r0 * out), out, vt[panel..].as_ptr(), ds[at..].as_mut_ptr(), store);
                        }
                        for r in r0..r0 + count {
                            let at = (first + r) * out + g * dim;
                            let visible = shape.visible(first + r, keys);
                            if shape.causal {
                                let hidden = r * stride + visible..r * stride + (first + r0 + MR).min(stride);
                                p[hidden.clone()].fill(0.0);
                                ds[hidden].fill(0.0);
                            }
                            score_gradient(
                                T::ISA,
                                &mut p[r * stride..][..visible],
                                &mut ds[r * stride..][..visible],
                                *data.lse.add((first + r) * shape.heads + g),
                                std::slice::from_raw_parts(data.y.add(at), dim),
                                std::slice::from_raw_parts(data.dy.add(at), dim),
                                shape.scale(),
                            );
                        }
                        let dq = data.dq.add((first + r0) * width + g * dim);
                        for d in 0..dim_panels {
                            let cols = NR.min(dim - d * NR);
                            let store = Store { alpha: 1.0, accumulate: false, row_stride: width, rows: count, cols };
                            let ds = ds[r0 * stride..].as_ptr();
                            T::run::<true>(seen, ds, stride, k[d * NR * keys..].as_ptr(), dq.add(d * NR), store);
                        }
                        for r in 0..count {
                            let row = std::slice::from_raw_parts_mut(dq.add(r * width), dim);
                            shape.turn(T::ISA, row, first + r0 + r, -1.0);
                        }
                    }
                    for c0 in (0..shape.visible(first + rows - 1, keys)).step_by(MR) {
                        // Under a causal mask queries before the panel's first key do not see it, and the first block that does is its own.
                        let skip = if shape.causal { c0.saturating_sub(first) } else { 0 };
                        let accumulate = g > 0 || if shape.causal { c0 < first } else { first > 0 };
                        for d in 0..dim_panels {
                            let cols = NR.min(dim - d * NR);
                            let rows_of_keys = MR.min(keys - c0);
                            let store = Store { alpha: 1.0, accumulate, row_stride: kv_stride, rows: rows_of_keys, cols };
                            let (depth, at) = (rows - skip, skip * stride + c0);
                            let packed = d * NR * rows + skip * NR;
                            let (dk, dv) = (data.dk.add(c0 * kv_stride + d * NR), data.dv.add(c0 * kv_stride + d * NR));
                            T::run::<false>(depth, p[at..].as_ptr(), stride, dy_packed[packed..].as_ptr(), dv, store);
                            T::run::<false>(depth, ds[at..].as_ptr(), stride, q_packed[packed..].as_ptr(), dk, store);
                        }
                    }
                }
            }
            for r in 0..keys {
                let row = std::slice::from_raw_parts_mut(data.dk.add(r * kv_stride), dim);
                shape.turn(T::ISA, row, r, -1.0);
            }
        }
    });
}

simd_fn! {
    /// From scores and the gradient of the weights: p ← the weights, ds ← the gradient of the scores before scaling.
    fn score_gradient(p: &mut [f32], ds: &mut [f32], lse: f32, y: &[f32], dy: &[f32], scale: f32) {
        let mean = dot::<FMA>(y, dy);
        for (p, ds) in p.iter_mut().zip(ds) {
            *p = exp::<FMA>(*p - lse);
            *ds = *p * (*ds - mean) * scale;
        }
    }
}
