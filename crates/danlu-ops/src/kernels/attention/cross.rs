//! Attention of one sequence to another, as a decoder's to what its encoder read.

use std::ops::Range;

use super::Attention;
use super::backward::{BackwardData, dispatch_backward};
use super::forward::{ForwardData, dispatch_forward};
use crate::kernels::isa::Isa;
use crate::kernels::threads::{self, SendPtr};

/// The rows of queries of a segment, and those of the keys that they see, all of them.
pub type Pair = (Range<usize>, Range<usize>);

/// What attention across sequences reads: `q` `[queries, heads·head_dim]`, and keys beside values, `kv` `[keys, 2·kv_heads·head_dim]`.
#[derive(Clone, Copy)]
pub struct Across<'a> {
    pub q: &'a [f32],
    pub kv: &'a [f32],
    /// In the order of both sequences.
    pub pairs: &'a [Pair],
}

/// What the forward pass leaves for the backward pass: its output, the logarithm of each row's sum of exponentials, and the gradient of the
/// output.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub y: &'a [f32],
    pub lse: &'a [f32],
    pub dy: &'a [f32],
}

/// Attention of each segment's queries to its keys. Writes `y` `[queries, heads·head_dim]` and `lse` `[queries, heads]` in the segments.
pub fn cross_attention_forward(shape: &Attention, y: &mut [f32], lse: &mut [f32], across: Across) {
    check(shape, &across, [y.len(), lse.len()]);
    let (isa, dim, width) = (Isa::current(), shape.head_dim, kv_width(shape));
    let (y, lse) = (SendPtr(y.as_mut_ptr()), SendPtr(lse.as_mut_ptr()));
    threads::for_each(across.pairs.len() * shape.kv_heads, |piece| {
        let ((queries, keys), head) = (&across.pairs[piece / shape.kv_heads], piece % shape.kv_heads);
        let first_head = head * shape.group();
        let query_at = queries.start * shape.q_width() + first_head * dim;
        // SAFETY: rows of this segment and columns of this group of heads, which no other piece writes, by the check above.
        unsafe {
            let kv = across.kv[keys.start * width..].as_ptr();
            let data = ForwardData {
                q: across.q[query_at..].as_ptr(),
                q_stride: shape.q_width(),
                k: kv.add(head * dim),
                v: kv.add((shape.kv_heads + head) * dim),
                kv_stride: width,
                y: y.get().add(query_at),
                lse: Some(lse.get().add(queries.start * shape.heads + first_head)),
                rows: queries.len(),
                keys: keys.len(),
                past: 0,
            };
            dispatch_forward(isa, shape, &data);
        }
    });
}

/// The gradient of [`cross_attention_forward`]: writes all of `dq` and `dkv` in the segments.
pub fn cross_attention_backward(shape: &Attention, dq: &mut [f32], dkv: &mut [f32], seen: Seen, across: Across) {
    check(shape, &across, [seen.y.len(), seen.lse.len()]);
    assert!(
        seen.dy.len() == seen.y.len() && dq.len() == across.q.len() && dkv.len() == across.kv.len(),
        "gradients of attention are as large as what they are of"
    );
    let (isa, dim, width) = (Isa::current(), shape.head_dim, kv_width(shape));
    let (dq, dkv) = (SendPtr(dq.as_mut_ptr()), SendPtr(dkv.as_mut_ptr()));
    threads::for_each(across.pairs.len() * shape.kv_heads, |piece| {
        let ((queries, keys), head) = (&across.pairs[piece / shape.kv_heads], piece % shape.kv_heads);
        let first_head = head * shape.group();
        let query_at = queries.start * shape.q_width() + first_head * dim;
        let (k_at, v_at) = (head * dim, (shape.kv_heads + head) * dim);
        // SAFETY: rows of this segment and columns of this group of heads, which no other piece writes, by the check above.
        unsafe {
            let kv = across.kv[keys.start * width..].as_ptr();
            let gradient = dkv.get().add(keys.start * width);
            let data = BackwardData {
                q: across.q[query_at..].as_ptr(),
                dq: dq.get().add(query_at),
                q_stride: shape.q_width(),
                k: kv.add(k_at),
                dk: gradient.add(k_at),
                v: kv.add(v_at),
                dv: gradient.add(v_at),
                kv_stride: width,
                y: seen.y[query_at..].as_ptr(),
                dy: seen.dy[query_at..].as_ptr(),
                lse: seen.lse[queries.start * shape.heads + first_head..].as_ptr(),
                rows: queries.len(),
                keys: keys.len(),
            };
            dispatch_backward(isa, shape, &data);
        }
    });
}

/// Elements of a row of keys and values.
fn kv_width(shape: &Attention) -> usize {
    2 * shape.kv_heads * shape.head_dim
}

fn check(shape: &Attention, across: &Across, [y, lse]: [usize; 2]) {
    assert!(!shape.causal && shape.rope.is_none(), "two sequences have no common positions to mask or turn by");
    let (queries, keys) = (lse / shape.heads.max(1), across.kv.len() / kv_width(shape).max(1));
    assert!(
        lse == queries * shape.heads
            && [y, across.q.len()] == [queries * shape.q_width(); 2]
            && across.kv.len() == keys * kv_width(shape),
        "attention of {queries} tokens to {keys}: y has {y} elements, q {}, kv {}",
        across.q.len(),
        across.kv.len()
    );
    assert!(across.pairs.iter().all(|(queries, keys)| !queries.is_empty() && !keys.is_empty()), "a segment has no tokens");
    let (of_queries, of_keys): (Vec<_>, Vec<_>) = across.pairs.iter().cloned().unzip();
    shape.check(queries, &of_queries);
    shape.check(keys, &of_keys);
}
