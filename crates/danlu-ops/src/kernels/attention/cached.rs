//! Attention of new tokens to those in a cache, for generation.

use super::Attention;
use super::forward::{ForwardData, dispatch_forward};
use crate::kernels::isa::Isa;
use crate::kernels::scratch::{self, Use};
use crate::kernels::simd::{dot, exp, simd_fn, sum};
use crate::kernels::threads::{self, SendPtr};

/// Attention of `rows` new tokens of one sequence to everything before them and to themselves. `qkv` `[rows, …]` is packed and not yet
/// turned. The caches are `[kv_heads, capacity, head_dim]` with `past` tokens in them, turned; the new tokens join them.
pub fn attention_cached(
    shape: &Attention,
    y: &mut [f32],
    qkv: &[f32],
    k_cache: &mut [f32],
    v_cache: &mut [f32],
    capacity: usize,
    past: usize,
) {
    let (dim, width, out) = (shape.head_dim, shape.row_width(), shape.q_width());
    let rows = qkv.len() / width;
    assert!(qkv.len() == rows * width && y.len() == rows * out, "y has {} elements for {rows} rows of queries", y.len());
    assert!(past + rows <= capacity, "{past} tokens and {rows} new ones do not fit in a cache of {capacity}");
    let cache = shape.kv_heads * capacity * dim;
    assert!(k_cache.len() == cache && v_cache.len() == cache, "the caches do not hold {capacity} tokens");
    shape.check(rows, &[]);
    shape.check_rope(past + rows);
    let isa = Isa::current();
    let (y, k_cache, v_cache) = (SendPtr(y.as_mut_ptr()), SendPtr(k_cache.as_mut_ptr()), SendPtr(v_cache.as_mut_ptr()));
    threads::for_each(shape.kv_heads, |head| {
        let at = head * capacity * dim;
        // SAFETY: this head's part of each cache and its columns of y are this piece's alone; sizes were checked above.
        unsafe {
            let k = std::slice::from_raw_parts_mut(k_cache.get().add(at), capacity * dim);
            let v = std::slice::from_raw_parts_mut(v_cache.get().add(at), capacity * dim);
            for r in 0..rows {
                let (from, to) = (r * width + out + head * dim, (past + r) * dim);
                shape.turned(isa, &mut k[to..to + dim], &qkv[from..from + dim], past + r);
                let from = from + shape.kv_heads * dim;
                v[to..to + dim].copy_from_slice(&qkv[from..from + dim]);
            }
            let group = head * shape.group()..(head + 1) * shape.group();
            scratch::with(Use::Queries, rows * shape.group() * dim + past + rows, |scratch| {
                let (q, scores) = scratch.split_at_mut(rows * shape.group() * dim);
                for (i, q) in q.chunks_exact_mut(dim).enumerate() {
                    let (r, h) = (i / shape.group(), group.start + i % shape.group());
                    shape.turned(isa, q, &qkv[r * width + h * dim..][..dim], past + r);
                }
                if rows >= 8 {
                    let data = ForwardData {
                        q: q.as_ptr(),
                        q_stride: shape.group() * dim,
                        k: k.as_ptr(),
                        v: v.as_ptr(),
                        kv_stride: dim,
                        y: y.get().add(group.start * dim),
                        lse: None,
                        rows,
                        keys: past + rows,
                        past,
                    };
                    dispatch_forward(isa, &Attention { rope: None, ..*shape }, &data);
                    return;
                }
                for (i, q) in q.chunks_exact(dim).enumerate() {
                    let (r, h) = (i / shape.group(), group.start + i % shape.group());
                    let y = std::slice::from_raw_parts_mut(y.get().add(r * out + h * dim), dim);
                    let seen = past + r + 1;
                    attend_one(isa, y, q, &k[..seen * dim], &v[..seen * dim], &mut scores[..seen], shape.scale());
                }
            });
        }
    });
}

simd_fn! {
    /// One query against all keys.
    fn attend_one(y: &mut [f32], q: &[f32], k: &[f32], v: &[f32], scores: &mut [f32], scale: f32) {
        let dim = q.len();
        let mut max = f32::NEG_INFINITY;
        for (score, k) in scores.iter_mut().zip(k.chunks_exact(dim)) {
            *score = dot::<FMA>(q, k) * scale;
            max = if *score > max { *score } else { max };
        }
        for score in scores.iter_mut() {
            *score = exp::<FMA>(*score - max);
        }
        let factor = 1.0 / sum(scores);
        y.fill(0.0);
        for (&score, v) in scores.iter().zip(v.chunks_exact(dim)) {
            let weight = score * factor;
            for (y, &v) in y.iter_mut().zip(v) {
                *y += weight * v;
            }
        }
    }
}
