//! The forward pass.

use std::ops::Range;

use super::{Attention, carve, carved, score_stride, turned_rows};
use crate::kernels::isa::Isa;
use crate::kernels::pack::pack_panel;
use crate::kernels::scratch::{self, Use};
use crate::kernels::simd::{exp_sum, row_max, scale};
use crate::kernels::threads::{self, SendPtr};
use crate::kernels::tile::{Store, Tile, for_tile};

/// Attention of every segment to itself. `qkv` is `[tokens, (heads + 2·kv_heads)·head_dim]`; writes `y` `[tokens, heads·head_dim]` and the
/// logarithm of each row's sum of exponentials into `lse` `[tokens, heads]`, which the backward pass needs.
pub fn attention_forward(shape: &Attention, y: &mut [f32], lse: &mut [f32], qkv: &[f32], segments: &[Range<usize>]) {
    forward_with(Isa::current(), shape, y, lse, qkv, segments);
}

pub(super) fn forward_with(isa: Isa, shape: &Attention, y: &mut [f32], lse: &mut [f32], qkv: &[f32], segments: &[Range<usize>]) {
    let tokens = lse.len() / shape.heads.max(1);
    assert!(
        lse.len() == tokens * shape.heads && y.len() == tokens * shape.q_width() && qkv.len() == tokens * shape.row_width(),
        "attention of {tokens} tokens: y has {} elements and qkv {}",
        y.len(),
        qkv.len()
    );
    shape.check(tokens, segments);
    let (y, lse) = (SendPtr(y.as_mut_ptr()), SendPtr(lse.as_mut_ptr()));
    threads::for_each(segments.len() * shape.kv_heads, |piece| {
        let (segment, head) = (&segments[piece / shape.kv_heads], piece % shape.kv_heads);
        let (width, dim) = (shape.row_width(), shape.head_dim);
        let first_head = head * shape.group();
        let row = qkv[segment.start * width..].as_ptr();
        // SAFETY: rows of this segment and columns of this group of heads, which no other piece writes.
        let data = unsafe {
            ForwardData {
                q: row.add(first_head * dim),
                q_stride: width,
                k: row.add(shape.q_width() + head * dim),
                v: row.add(shape.q_width() + (shape.kv_heads + head) * dim),
                kv_stride: width,
                y: y.get().add(segment.start * shape.q_width() + first_head * dim),
                lse: Some(lse.get().add(segment.start * shape.heads + first_head)),
                rows: segment.len(),
                keys: segment.len(),
                past: 0,
            }
        };
        // SAFETY: as above.
        unsafe { dispatch_forward(isa, shape, &data) };
    });
}

/// The rows of one group of query heads and of the key head they share.
pub(super) struct ForwardData {
    pub q: *const f32,
    pub q_stride: usize,
    pub k: *const f32,
    pub v: *const f32,
    pub kv_stride: usize,
    pub y: *mut f32,
    pub lse: Option<*mut f32>,
    /// Query rows.
    pub rows: usize,
    /// Rows of keys and values.
    pub keys: usize,
    /// Keys before those of the first query. They have been turned already, and then all keys have.
    pub past: usize,
}

/// # Safety
/// The pointers of `data` must reach over its rows; `y` and `lse` must be this call's alone to write.
pub(super) unsafe fn dispatch_forward(isa: Isa, shape: &Attention, data: &ForwardData) {
    // SAFETY: passed on.
    unsafe { for_tile!(isa, forward_head(shape, data)) }
}

/// # Safety
/// As for [`dispatch_forward`], with the instruction set of `T` present.
unsafe fn forward_head<T: Tile, const MR: usize, const NR: usize>(shape: &Attention, data: &ForwardData) {
    let dim = shape.head_dim;
    let keys = data.keys;
    let (key_panels, dim_panels) = (keys.div_ceil(NR), dim.div_ceil(NR));
    let stride = score_stride(keys);
    let sizes = [key_panels * NR * dim, dim_panels * NR * keys, MR * stride, MR.max(NR) * dim];
    scratch::with(Use::Attention, carved(&sizes), |scratch| {
        let [kt, v, scores, turned] = carve(scratch, sizes);
        // SAFETY: the caller vouches for the rows that `data` names; everything else is scratch, cut to the sizes above.
        unsafe {
            let rope_keys = data.past == 0 && shape.rope.is_some();
            pack_keys::<T, NR>(shape, kt, turned, data.k, data.kv_stride, keys, rope_keys);
            for d in 0..dim_panels {
                let width = NR.min(dim - d * NR);
                pack_panel::<NR>(v[d * NR * keys..].as_mut_ptr(), data.v.add(d * NR), keys, data.kv_stride, width, 1);
            }
            for g in 0..shape.group() {
                for first in (0..data.rows).step_by(MR) {
                    let rows = MR.min(data.rows - first);
                    let q = data.q.add(first * data.q_stride + g * dim);
                    let (q, q_stride) = turned_rows(shape, T::ISA, turned, q, data.q_stride, rows, data.past + first);
                    let seen = shape.visible(data.past + first + rows - 1, keys);
                    for j in 0..seen.div_ceil(NR) {
                        let store = Store { alpha: shape.scale(), accumulate: false, row_stride: stride, rows, cols: NR };
                        T::run::<true>(dim, q, q_stride, kt[j * NR * dim..].as_ptr(), scores[j * NR..].as_mut_ptr(), store);
                    }
                    let mut factors = [0f32; MR];
                    for (r, factor) in factors.iter_mut().enumerate().take(rows) {
                        let row = &mut scores[r * stride..][..seen];
                        let (row, hidden) = row.split_at_mut(shape.visible(data.past + first + r, keys));
                        hidden.fill(0.0);
                        let max = row_max(T::ISA, row);
                        let sum = exp_sum(T::ISA, row, max);
                        *factor = 1.0 / sum;
                        if let Some(lse) = data.lse {
                            *lse.add((first + r) * shape.heads + g) = max + sum.ln();
                        }
                    }
                    let y = data.y.add(first * shape.q_width() + g * dim);
                    for d in 0..dim_panels {
                        let cols = NR.min(dim - d * NR);
                        let store = Store { alpha: 1.0, accumulate: false, row_stride: shape.q_width(), rows, cols };
                        T::run::<true>(seen, scores.as_ptr(), stride, v[d * NR * keys..].as_ptr(), y.add(d * NR), store);
                    }
                    for (r, &factor) in factors.iter().enumerate().take(rows) {
                        scale(T::ISA, std::slice::from_raw_parts_mut(y.add(r * shape.q_width()), dim), factor);
                    }
                }
            }
        }
    });
}

/// Packs the keys, transposed: as B of the product q·kᵀ.
///
/// # Safety
/// `k` holds `keys` rows of `head_dim` elements; `kt` has room for them, rounded up to whole panels, and `turned` for one panel of rows.
unsafe fn pack_keys<T: Tile, const NR: usize>(
    shape: &Attention,
    kt: &mut [f32],
    turned: &mut [f32],
    k: *const f32,
    stride: usize,
    keys: usize,
    rope: bool,
) {
    let dim = shape.head_dim;
    for j in 0..keys.div_ceil(NR) {
        let rows = NR.min(keys - j * NR);
        // SAFETY: as the caller vouches.
        unsafe {
            let mut from = (k.add(j * NR * stride), stride);
            if rope {
                from = turned_rows(shape, T::ISA, turned, from.0, stride, rows, j * NR);
            }
            pack_panel::<NR>(kt[j * NR * dim..].as_mut_ptr(), from.0, dim, 1, rows, from.1);
        }
    }
}
