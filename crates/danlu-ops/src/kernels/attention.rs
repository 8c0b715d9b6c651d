//! Causal attention on packed queries, keys and values, block by block: no T×T matrix is kept, only the logarithm of each row's sum
//! (Dao et al., "FlashAttention", 2022; Rabe and Staats, 2021).
//!
//! One piece of work is one key head of one segment, with all the query heads that share it, so that the gradients of keys
//! and values are summed in a fixed order. Keys and values are packed once; queries then pass in panels of as many rows as a
//! register tile has, whose scores fit the first cache, and no tile above the diagonal is computed.

use std::ops::Range;

use super::isa::Isa;
use super::pack::pack_panel;
use super::scratch::{self, Use};
use super::simd::{dot, exp, exp_sum, row_max, scale, simd_fn, sum_by};
use super::threads::{self, SendPtr};
use super::tile::{self, Store, Tile};

/// What one attention call works on, beside the data: the heads, and the tables of rotary positions when there are any.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; a divisor of `heads`.
    pub kv_heads: usize,
    /// Channels of one head.
    pub head_dim: usize,
    /// Cosines and sines, each `[positions, head_dim / 2]`, applied to queries and keys in the half-split form of RoPE (Su et al., 2021).
    pub rope: Option<(&'a [f32], &'a [f32])>,
}

impl Attention<'_> {
    fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn row_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Multiplies the scores.
    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    fn check(&self, tokens: usize, segments: &[Range<usize>]) {
        assert!(self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads) && self.head_dim > 0, "impossible heads: {self:?}");
        let longest = segments.iter().map(|segment| segment.len()).max().unwrap_or(0);
        self.check_rope(longest);
        let mut end = 0;
        for segment in segments {
            assert!(
                segment.start >= end && segment.end <= tokens,
                "segment {segment:?} overlaps another or passes token {tokens}"
            );
            end = segment.end;
        }
    }

    fn check_rope(&self, positions: usize) {
        if let Some((cos, sin)) = self.rope {
            let need = positions * (self.head_dim / 2);
            assert!(self.head_dim.is_multiple_of(2), "rope turns pairs of channels, and there are {}", self.head_dim);
            assert!(cos.len() >= need && sin.len() >= need, "the rope tables are shorter than {positions} positions");
        }
    }

    /// Copies one row, turned to its position.
    fn turned(&self, isa: Isa, to: &mut [f32], from: &[f32], position: usize) {
        to.copy_from_slice(from);
        self.turn(isa, to, position, 1.0);
    }

    /// Turns one row in place, or back with a direction of -1.
    fn turn(&self, isa: Isa, row: &mut [f32], position: usize, direction: f32) {
        if let Some((cos, sin)) = self.rope {
            let half = self.head_dim / 2;
            let at = position * half..(position + 1) * half;
            turn_row(isa, row, &cos[at.clone()], &sin[at], direction);
        }
    }
}

/// Attention of every segment to itself. `qkv` is `[tokens, (heads + 2·kv_heads)·head_dim]`; writes `y` `[tokens, heads·head_dim]` and the
/// logarithm of each row's sum of exponentials into `lse` `[tokens, heads]`, which the backward pass needs.
pub fn attention_forward(shape: &Attention, y: &mut [f32], lse: &mut [f32], qkv: &[f32], segments: &[Range<usize>]) {
    forward_with(Isa::current(), shape, y, lse, qkv, segments);
}

fn forward_with(isa: Isa, shape: &Attention, y: &mut [f32], lse: &mut [f32], qkv: &[f32], segments: &[Range<usize>]) {
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
                past: 0,
            }
        };
        // SAFETY: as above.
        unsafe { dispatch_forward(isa, shape, &data) };
    });
}

/// The rows of one group of query heads and of the key head they share.
struct ForwardData {
    q: *const f32,
    q_stride: usize,
    k: *const f32,
    v: *const f32,
    kv_stride: usize,
    y: *mut f32,
    lse: Option<*mut f32>,
    /// Query rows.
    rows: usize,
    /// Keys before those of the first query. They have been turned already, and then all keys have.
    past: usize,
}

/// # Safety
/// The pointers of `data` must reach over its rows; `y` and `lse` must be this call's alone to write.
unsafe fn dispatch_forward(isa: Isa, shape: &Attention, data: &ForwardData) {
    // SAFETY: passed on.
    unsafe {
        match isa {
            Isa::Portable => forward_head::<tile::Portable, 4, 8>(shape, data),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => forward_head::<tile::Portable, 4, 8>(shape, data),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => forward_head::<tile::Avx2, 6, 16>(shape, data),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => forward_head::<tile::Avx512<12, 2>, 12, 32>(shape, data),
        }
    }
}

/// Elements from one row of scores to the next: padded, so that rows fall into different sets of the first cache.
fn score_stride(keys: usize) -> usize {
    keys.next_multiple_of(64) + 16
}

/// # Safety
/// As for [`dispatch_forward`], with the instruction set of `T` present.
unsafe fn forward_head<T: Tile, const MR: usize, const NR: usize>(shape: &Attention, data: &ForwardData) {
    let dim = shape.head_dim;
    let keys = data.past + data.rows;
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
                    let seen = data.past + first + rows;
                    for j in 0..seen.div_ceil(NR) {
                        let store = Store { alpha: shape.scale(), accumulate: false, row_stride: stride, rows, cols: NR };
                        T::run::<true>(dim, q, q_stride, kt[j * NR * dim..].as_ptr(), scores[j * NR..].as_mut_ptr(), store);
                    }
                    let mut factors = [0f32; MR];
                    for r in 0..rows {
                        let row = &mut scores[r * stride..][..seen];
                        let (row, hidden) = row.split_at_mut(data.past + first + r + 1);
                        hidden.fill(0.0);
                        let max = row_max(T::ISA, row);
                        let sum = exp_sum(T::ISA, row, max);
                        factors[r] = 1.0 / sum;
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
                    for r in 0..rows {
                        scale(T::ISA, std::slice::from_raw_parts_mut(y.add(r * shape.q_width()), dim), factors[r]);
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

/// Rows turned to their positions, in `scratch`; or the rows themselves when there is no rope. Returns where they are and their stride.
///
/// # Safety
/// `from` holds `rows` rows of `head_dim` elements.
unsafe fn turned_rows(
    shape: &Attention,
    isa: Isa,
    scratch: &mut [f32],
    from: *const f32,
    stride: usize,
    rows: usize,
    position: usize,
) -> (*const f32, usize) {
    if shape.rope.is_none() {
        return (from, stride);
    }
    let dim = shape.head_dim;
    for (r, to) in scratch.chunks_exact_mut(dim).take(rows).enumerate() {
        // SAFETY: row r, as the caller vouches.
        let from = unsafe { std::slice::from_raw_parts(from.add(r * stride), dim) };
        shape.turned(isa, to, from, position + r);
    }
    (scratch.as_ptr(), dim)
}

/// The gradient of [`attention_forward`]: from `dy`, the saved `y`, `lse` and `qkv`, writes all of `dqkv` in the segments.
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
struct Saved<'a> {
    dy: &'a [f32],
    y: &'a [f32],
    lse: &'a [f32],
    qkv: &'a [f32],
}

fn backward_with(isa: Isa, shape: &Attention, dqkv: &mut [f32], saved: Saved, segments: &[Range<usize>]) {
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
        let (segment, head) = (segments[piece / shape.kv_heads].clone(), piece % shape.kv_heads);
        // SAFETY: rows of this segment and columns of this group of heads, which no other piece writes.
        unsafe {
            match isa {
                Isa::Portable => backward_head::<tile::Portable, 4, 8>(shape, dqkv.get(), saved, segment, head),
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => backward_head::<tile::Portable, 4, 8>(shape, dqkv.get(), saved, segment, head),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => backward_head::<tile::Avx2, 6, 16>(shape, dqkv.get(), saved, segment, head),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => backward_head::<tile::Avx512<12, 2>, 12, 32>(shape, dqkv.get(), saved, segment, head),
            }
        }
    });
}

/// # Safety
/// `dqkv` and `saved` hold the segment's rows, whose columns of this group of heads are this call's alone to write.
unsafe fn backward_head<T: Tile, const MR: usize, const NR: usize>(
    shape: &Attention,
    dqkv: *mut f32,
    saved: Saved,
    segment: Range<usize>,
    head: usize,
) {
    let (dim, width, out) = (shape.head_dim, shape.row_width(), shape.q_width());
    let keys = segment.len();
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
        // SAFETY: all addresses are rows of the segment and columns of these heads, or scratch cut to the sizes above.
        unsafe {
            let row = saved.qkv[segment.start * width..].as_ptr();
            let key_at = shape.q_width() + head * dim;
            let value_at = key_at + shape.kv_heads * dim;
            let (keys_at, keys_stride) = turned_rows(shape, T::ISA, turned_k, row.add(key_at), width, keys, 0);
            for j in 0..key_panels {
                let rows = NR.min(keys - j * NR);
                let at = j * NR * dim;
                pack_panel::<NR>(kt[at..].as_mut_ptr(), keys_at.add(j * NR * keys_stride), dim, 1, rows, keys_stride);
                pack_panel::<NR>(vt[at..].as_mut_ptr(), row.add(value_at + j * NR * width), dim, 1, rows, width);
            }
            for d in 0..dim_panels {
                let cols = NR.min(dim - d * NR);
                pack_panel::<NR>(k[d * NR * keys..].as_mut_ptr(), keys_at.add(d * NR), keys, keys_stride, cols, 1);
            }
            let gradient = dqkv.add(segment.start * width);
            for g in 0..shape.group() {
                let query_at = (head * shape.group() + g) * dim;
                for first in (0..keys).step_by(block) {
                    let rows = block.min(keys - first);
                    let q = row.add(first * width + query_at);
                    let (q, q_stride) = turned_rows(shape, T::ISA, turned_q, q, width, rows, first);
                    let dy_start = (segment.start + first) * out + query_at;
                    let dy = saved.dy[dy_start..].as_ptr();
                    for d in 0..dim_panels {
                        let cols = NR.min(dim - d * NR);
                        pack_panel::<NR>(q_packed[d * NR * rows..].as_mut_ptr(), q.add(d * NR), rows, q_stride, cols, 1);
                        pack_panel::<NR>(dy_packed[d * NR * rows..].as_mut_ptr(), dy.add(d * NR), rows, out, cols, 1);
                    }
                    for r0 in (0..rows).step_by(MR) {
                        let count = MR.min(rows - r0);
                        let seen = first + r0 + count;
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
                            let token = segment.start + first + r;
                            let at = token * out + query_at;
                            let visible = first + r + 1;
                            let hidden = r * stride + visible..r * stride + (first + r0 + MR).min(stride);
                            p[hidden.clone()].fill(0.0);
                            ds[hidden].fill(0.0);
                            score_gradient(
                                T::ISA,
                                &mut p[r * stride..][..visible],
                                &mut ds[r * stride..][..visible],
                                saved.lse[token * shape.heads + head * shape.group() + g],
                                &saved.y[at..at + dim],
                                &saved.dy[at..at + dim],
                                shape.scale(),
                            );
                        }
                        let dq = gradient.add((first + r0) * width + query_at);
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
                    for c0 in (0..first + rows).step_by(MR) {
                        // Queries before the panel's first key do not see it.
                        let skip = c0.saturating_sub(first);
                        let accumulate = g > 0 || c0 < first;
                        for d in 0..dim_panels {
                            let cols = NR.min(dim - d * NR);
                            let store = Store { alpha: 1.0, accumulate, row_stride: width, rows: MR.min(keys - c0), cols };
                            let (depth, at) = (rows - skip, skip * stride + c0);
                            let packed = d * NR * rows + skip * NR;
                            let to = gradient.add(c0 * width + d * NR);
                            let (dk, dv) = (to.add(key_at), to.add(value_at));
                            T::run::<false>(depth, p[at..].as_ptr(), stride, dy_packed[packed..].as_ptr(), dv, store);
                            T::run::<false>(depth, ds[at..].as_ptr(), stride, q_packed[packed..].as_ptr(), dk, store);
                        }
                    }
                }
            }
            for r in 0..keys {
                let row = std::slice::from_raw_parts_mut(gradient.add(r * width + key_at), dim);
                shape.turn(T::ISA, row, r, -1.0);
            }
        }
    });
}

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
    /// Turns pairs (i, i + half) of a row by the angles given.
    fn turn_row(row: &mut [f32], cos: &[f32], sin: &[f32], direction: f32) {
        let (low, high) = row.split_at_mut(cos.len());
        for (((a, b), &cos), &sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            let sin = sin * direction;
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }

    /// From scores and the gradient of the weights: p ← the weights, ds ← the gradient of the scores before scaling.
    fn score_gradient(p: &mut [f32], ds: &mut [f32], lse: f32, y: &[f32], dy: &[f32], scale: f32) {
        let mean = dot::<FMA>(y, dy);
        for (p, ds) in p.iter_mut().zip(ds) {
            *p = exp::<FMA>(*p - lse);
            *ds = *p * (*ds - mean) * scale;
        }
    }

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
        let factor = 1.0 / sum_by(scores.len(), |sum, i| sum + scores[i]);
        y.fill(0.0);
        for (&score, v) in scores.iter().zip(v.chunks_exact(dim)) {
            let weight = score * factor;
            for (y, &v) in y.iter_mut().zip(v) {
                *y += weight * v;
            }
        }
    }
}

/// Elements of scratch that parts of these sizes take, each rounded up to a cache line.
fn carved(sizes: &[usize]) -> usize {
    sizes.iter().map(|size| size.next_multiple_of(16)).sum()
}

/// Cuts scratch into parts of these sizes, each starting on a cache line.
fn carve<const N: usize>(mut scratch: &mut [f32], sizes: [usize; N]) -> [&mut [f32]; N] {
    sizes.map(|size| {
        let (part, rest) = std::mem::take(&mut scratch).split_at_mut(size.next_multiple_of(16));
        scratch = rest;
        part
    })
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
