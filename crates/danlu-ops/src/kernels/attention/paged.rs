//! Attention of new tokens of many sequences to the keys and values that each keeps in pages
//! (Kwon et al., "PagedAttention", 2023, <https://arxiv.org/abs/2309.06180>).
//!
//! A page holds its keys turned on their side, `[kv_heads, head_dim, PAGE]`, so that the scores of a whole page come out side by side and no
//! sum runs across the lanes of a register; values lie as `[kv_heads, PAGE, head_dim]`, which gives the same to the weighted sum.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Attention;
use super::forward::{ForwardData, dispatch_forward};
use crate::buffer::Buffer;
use crate::kernels::isa::Isa;
use crate::kernels::scratch::{self, Use};
use crate::kernels::simd::{exp, fma, max, simd_fn, sum};
use crate::kernels::threads::{self, SendPtr};

/// Tokens in a page.
pub const PAGE: usize = 32;
/// Query rows from which the tiles of the forward pass are worth packing keys and values for.
const ROWS: usize = 8;
/// Lanes of a sum, and how many are kept at once so that one addition need not wait for another.
const LANES: usize = 16;
const CHAINS: usize = 4;

/// Keys and values of up to [`PAGE`] tokens of one layer; sequences with the same beginning share it.
#[derive(Clone, Debug)]
pub struct Page {
    k: Buffer,
    v: Buffer,
    _counted: Counted,
}

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// Pages that all sequences of the program hold together, one that several share counted once.
pub fn live_pages() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// Part of every page, so that none can come or go uncounted.
#[derive(Debug)]
struct Counted;

impl Counted {
    fn new() -> Self {
        LIVE.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Page {
    fn new(shape: &Attention) -> Self {
        // The places of tokens that are not there yet are computed with and thrown away, so they must hold numbers.
        let zeros = || {
            let mut buffer = Buffer::new(shape.kv_heads * PAGE * shape.head_dim);
            buffer.fill(0.0);
            buffer
        };
        Self { k: zeros(), v: zeros(), _counted: Counted::new() }
    }
}

/// Puts the keys, turned to their positions, and the values of new tokens of one sequence behind the `past` ones that its pages hold. A page
/// that others share is copied first.
pub fn store_paged(shape: &Attention, pages: &mut Vec<Arc<Page>>, past: usize, qkv: &[f32]) {
    let (dim, width) = (shape.head_dim, shape.row_width());
    let isa = Isa::current();
    let mut turned = vec![0.0; dim];
    for (r, row) in qkv.chunks_exact(width).enumerate() {
        let (page, at) = ((past + r) / PAGE, (past + r) % PAGE);
        if page == pages.len() {
            pages.push(Arc::new(Page::new(shape)));
        }
        let page = Arc::make_mut(&mut pages[page]);
        let (k, v) = row[shape.q_width()..].split_at(shape.kv_heads * dim);
        for (head, (k, v)) in k.chunks_exact(dim).zip(v.chunks_exact(dim)).enumerate() {
            shape.turned(isa, &mut turned, k, past + r);
            let to = &mut page.k[head * dim * PAGE..][..dim * PAGE];
            to.iter_mut().skip(at).step_by(PAGE).zip(&turned).for_each(|(to, k)| *to = *k);
            page.v[(head * PAGE + at) * dim..][..dim].copy_from_slice(v);
        }
    }
}

/// New tokens of one sequence.
pub struct Rows<'a> {
    /// Where they are among all the new tokens.
    pub first: usize,
    pub count: usize,
    /// Tokens before them.
    pub past: usize,
    /// All the sequence's pages, the new tokens in them.
    pub pages: &'a [Arc<Page>],
}

/// Attention of new tokens of many sequences: `qkv` `[tokens, …]` is packed and not yet turned, `y` `[tokens, heads·head_dim]`; rows of no
/// sequence are left alone. What a sequence gets does not depend on the others.
pub fn attention_paged(shape: &Attention, y: &mut [f32], qkv: &[f32], sequences: &[Rows]) {
    let (dim, width, out, group) = (shape.head_dim, shape.row_width(), shape.q_width(), shape.group());
    let tokens = qkv.len() / width;
    assert!(y.len() == tokens * out, "y has {} elements for {tokens} tokens", y.len());
    let mut end = 0;
    for rows in sequences {
        assert!(rows.first >= end && rows.first + rows.count <= tokens, "the sequences' rows overlap or pass token {tokens}");
        assert!((rows.past + rows.count).div_ceil(PAGE) <= rows.pages.len(), "the pages do not hold the new tokens");
        shape.check_rope(rows.past + rows.count);
        end = rows.first + rows.count;
    }
    let isa = Isa::current();
    let y = SendPtr(y.as_mut_ptr());
    threads::for_each(sequences.len() * shape.kv_heads, |index| {
        let (rows, head) = (&sequences[index / shape.kv_heads], index % shape.kv_heads);
        let total = rows.past + rows.count;
        let first_head = head * group;
        // With many rows keys and values are needed as rows too, to be packed for the tiles.
        let gathered = if rows.count >= ROWS { 2 * total * dim } else { 0 };
        let sizes = [rows.count * group * dim, total.next_multiple_of(PAGE), gathered];
        scratch::with(Use::Queries, super::carved(&sizes), |scratch| {
            let [q, scores, gathered] = super::carve(scratch, sizes);
            for (i, q) in q.chunks_exact_mut(dim).take(rows.count * group).enumerate() {
                let (r, h) = (i / group, first_head + i % group);
                shape.turned(isa, q, &qkv[(rows.first + r) * width + h * dim..][..dim], rows.past + r);
            }
            if rows.count >= ROWS {
                let (k, v) = gathered.split_at_mut(total * dim);
                gather(rows.pages, head, dim, total, k, v);
                let data = ForwardData {
                    q: q.as_ptr(),
                    q_stride: group * dim,
                    k: k.as_ptr(),
                    v: v.as_ptr(),
                    kv_stride: dim,
                    // SAFETY: rows of this sequence inside y, by the check above.
                    y: unsafe { y.get().add(rows.first * out + first_head * dim) },
                    lse: None,
                    rows: rows.count,
                    keys: total,
                    past: rows.past,
                };
                // SAFETY: queries, keys and values are in the scratch, as many as are named; these rows and columns of y are this
                // piece's alone.
                unsafe { dispatch_forward(isa, &Attention { rope: None, ..*shape }, &data) };
                return;
            }
            for (i, q) in q.chunks_exact(dim).take(rows.count * group).enumerate() {
                let (r, h) = (i / group, first_head + i % group);
                // SAFETY: one head's columns of one row of this sequence, which no other piece writes.
                let y = unsafe { std::slice::from_raw_parts_mut(y.get().add((rows.first + r) * out + h * dim), dim) };
                attend(isa, y, q, rows.pages, head, rows.past + r + 1, scores, shape.scale());
            }
        });
    });
}

/// Keys and values of one head as rows, `[total, head_dim]` each.
fn gather(pages: &[Arc<Page>], head: usize, dim: usize, total: usize, k: &mut [f32], v: &mut [f32]) {
    let each = k.chunks_mut(PAGE * dim).zip(v.chunks_mut(PAGE * dim)).zip(pages);
    for ((k, v), page) in each.take(total.div_ceil(PAGE)) {
        let turned = &page.k[head * dim * PAGE..][..dim * PAGE];
        for (at, k) in k.chunks_exact_mut(dim).enumerate() {
            k.iter_mut().zip(turned.iter().skip(at).step_by(PAGE)).for_each(|(to, from)| *to = *from);
        }
        v.copy_from_slice(&page.v[head * PAGE * dim..][..v.len()]);
    }
}

simd_fn! {
    /// One query against the first `seen` tokens of the pages.
    #[allow(clippy::too_many_arguments, reason = "the innermost loop, and every one of them is needed in it")]
    fn attend(y: &mut [f32], q: &[f32], pages: &[Arc<Page>], head: usize, seen: usize, scores: &mut [f32], scale: f32) {
        let dim = q.len();
        let of_page = head * dim * PAGE..(head + 1) * dim * PAGE;
        for (scores, page) in scores.chunks_exact_mut(PAGE).zip(pages).take(seen.div_ceil(PAGE)) {
            let keys = &page.k[of_page.clone()];
            for (i, scores) in scores.chunks_exact_mut(LANES).enumerate() {
                let mut sums = [[0f32; LANES]; CHAINS];
                add_rows::<FMA>(&mut sums, q, keys, PAGE, i * LANES);
                for (lane, score) in scores.iter_mut().enumerate() {
                    *score = total(&sums, lane) * scale;
                }
            }
        }
        let scores = &mut scores[..seen];
        let largest = max(scores);
        for score in scores.iter_mut() {
            *score = exp::<FMA>(*score - largest);
        }
        let factor = 1.0 / sum(scores);
        let whole = dim / LANES * LANES;
        for column in (0..whole).step_by(LANES) {
            let mut sums = [[0f32; LANES]; CHAINS];
            for (weights, page) in scores.chunks(PAGE).zip(pages) {
                add_rows::<FMA>(&mut sums, weights, &page.v[of_page.clone()], dim, column);
            }
            for lane in 0..LANES {
                y[column + lane] = total(&sums, lane) * factor;
            }
        }
        for column in whole..dim {
            let mut sum = 0.0;
            for (weights, page) in scores.chunks(PAGE).zip(pages) {
                let values = &page.v[of_page.clone()];
                for (i, weight) in weights.iter().enumerate() {
                    sum = fma::<FMA>(*weight, values[i * dim + column], sum);
                }
            }
            y[column] = sum * factor;
        }
    }
}

/// `sums += Σ weights[i] · rows[i][column..]`, in four sums that take the rows in turn. Each sum has a name: in an array that a loop walks they
/// would lie on the stack, and be added to one lane at a time.
#[inline(always)]
fn add_rows<const FMA: bool>(sums: &mut [[f32; LANES]; CHAINS], weights: &[f32], rows: &[f32], stride: usize, column: usize) {
    let [mut a, mut b, mut c, mut d] = *sums;
    let (fours, rest) = weights.as_chunks::<CHAINS>();
    let mut at = column;
    for weights in fours {
        a = add_row::<FMA>(a, weights[0], rows, at);
        b = add_row::<FMA>(b, weights[1], rows, at + stride);
        c = add_row::<FMA>(c, weights[2], rows, at + 2 * stride);
        d = add_row::<FMA>(d, weights[3], rows, at + 3 * stride);
        at += CHAINS * stride;
    }
    if let Some(&weight) = rest.first() {
        a = add_row::<FMA>(a, weight, rows, at);
    }
    if let Some(&weight) = rest.get(1) {
        b = add_row::<FMA>(b, weight, rows, at + stride);
    }
    if let Some(&weight) = rest.get(2) {
        c = add_row::<FMA>(c, weight, rows, at + 2 * stride);
    }
    *sums = [a, b, c, d];
}

#[inline(always)]
fn add_row<const FMA: bool>(sum: [f32; LANES], weight: f32, rows: &[f32], at: usize) -> [f32; LANES] {
    let row: &[f32; LANES] = rows[at..at + LANES].try_into().expect("as many as there are lanes");
    std::array::from_fn(|lane| fma::<FMA>(weight, row[lane], sum[lane]))
}

#[inline(always)]
fn total(sums: &[[f32; LANES]; CHAINS], lane: usize) -> f32 {
    (sums[0][lane] + sums[1][lane]) + (sums[2][lane] + sums[3][lane])
}
