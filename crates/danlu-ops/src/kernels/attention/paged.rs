//! Attention of new tokens of many sequences to the keys and values that each keeps in pages
//! (Kwon et al., "PagedAttention", 2023, <https://arxiv.org/abs/2309.06180>).
//!
//! Few new tokens of a sequence read its pages as they are, some pages in one piece of work, so that threads share out one long text
//! (Dao et al., "Flash-Decoding", 2023); where the pieces begin depends on places in the text alone. Many, of a prompt, are worth packing the
//! pages for the tiles of the forward pass.

use std::sync::Arc;

use super::Attention;
use super::attend::{QUERIES, SPAN, SPAN_TOKENS, Span, TAIL, attend, join};
use super::forward::{ForwardData, dispatch_forward};
use super::pages::{PAGE, Page, gather};
use crate::kernels::isa::Isa;
use crate::kernels::scratch::{self, Use};
use crate::kernels::threads::{self, SendPtr};

/// Query rows from which the tiles of the forward pass are worth packing keys and values for.
const ROWS: usize = 8;

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

impl Rows<'_> {
    /// All tokens, those before and the new ones.
    fn total(&self) -> usize {
        self.past + self.count
    }

    fn spans(&self) -> usize {
        self.total().div_ceil(SPAN_TOKENS)
    }
}

/// Work for one thread: a head of keys and values of a sequence, and of few rows the part that they see of a span of pages.
struct Piece {
    sequence: usize,
    head: usize,
    span: usize,
    /// Where its parts lie among all.
    at: usize,
}

/// Attention of new tokens of many sequences: `qkv` `[tokens, …]` is packed and not yet turned, `y` `[tokens, heads·head_dim]`; rows of no
/// sequence are left alone. What a sequence gets does not depend on the others.
pub fn attention_paged(shape: &Attention, y: &mut [f32], qkv: &[f32], sequences: &[Rows]) {
    attention_paged_with(Isa::current(), shape, y, qkv, sequences);
}

pub(super) fn attention_paged_with(isa: Isa, shape: &Attention, y: &mut [f32], qkv: &[f32], sequences: &[Rows]) {
    let tokens = qkv.len() / shape.row_width();
    assert!(y.len() == tokens * shape.q_width(), "y has {} elements for {tokens} tokens", y.len());
    let mut end = 0;
    for rows in sequences {
        assert!(rows.first >= end && rows.first + rows.count <= tokens, "the sequences' rows overlap or pass token {tokens}");
        assert!(rows.total().div_ceil(PAGE) <= rows.pages.len(), "the pages do not hold the new tokens");
        shape.check_rope(rows.total());
        end = rows.first + rows.count;
    }
    let work = Work { isa, shape, qkv, sequences };
    // Prompts first, since their pieces are the longest.
    let (mut pieces, mut parts) = (work.pieces_of_prompts(), 0);
    for (sequence, rows) in sequences.iter().enumerate().filter(|(_, rows)| (1..ROWS).contains(&rows.count)) {
        let spans = (0..rows.spans()).flat_map(|span| (0..shape.kv_heads).map(move |head| (span, head)));
        for (span, head) in spans {
            pieces.push(Piece { sequence, head, span, at: parts });
            parts += work.parts_of(rows);
        }
    }
    scratch::with(Use::Parts, parts, |parts| {
        let (to, parts_at) = (SendPtr(y.as_mut_ptr()), SendPtr(parts.as_mut_ptr()));
        threads::for_each(pieces.len(), |i| {
            let piece = &pieces[i];
            let rows = &sequences[piece.sequence];
            if rows.count >= ROWS {
                // SAFETY: rows of this sequence inside y, by the check above, and the columns of this piece's heads.
                unsafe { work.prompt(rows, piece.head, to.get()) };
            } else {
                // SAFETY: the pieces' parts lie one after the other in the scratch, which has room for all.
                let parts = unsafe { std::slice::from_raw_parts_mut(parts_at.get().add(piece.at), work.parts_of(rows)) };
                work.span(rows, piece, parts);
            }
        });
        let mut at = 0;
        for rows in sequences.iter().filter(|rows| (1..ROWS).contains(&rows.count)) {
            work.join(rows, y, &parts[at..]);
            at += rows.spans() * shape.kv_heads * work.parts_of(rows);
        }
    });
}

struct Work<'a> {
    isa: Isa,
    shape: &'a Attention<'a>,
    qkv: &'a [f32],
    sequences: &'a [Rows<'a>],
}

impl Work<'_> {
    fn pieces_of_prompts(&self) -> Vec<Piece> {
        let prompts = self.sequences.iter().enumerate().filter(|(_, rows)| rows.count >= ROWS);
        let of_heads = |(sequence, _)| (0..self.shape.kv_heads).map(move |head| Piece { sequence, head, span: 0, at: 0 });
        prompts.flat_map(of_heads).collect()
    }

    /// Numbers of the parts of one head's queries in one span.
    fn parts_of(&self, rows: &Rows) -> usize {
        rows.count * self.shape.group() * (self.shape.head_dim + TAIL)
    }

    /// The queries of one head's group, turned, `[rows, group, head_dim]`.
    fn turned_queries(&self, rows: &Rows, head: usize, q: &mut [f32]) {
        let (dim, group) = (self.shape.head_dim, self.shape.group());
        for (i, q) in q.chunks_exact_mut(dim).take(rows.count * group).enumerate() {
            let (r, h) = (i / group, head * group + i % group);
            let from = &self.qkv[(rows.first + r) * self.shape.row_width() + h * dim..][..dim];
            self.shape.turned(self.isa, q, from, rows.past + r);
        }
    }

    /// Few rows against a span, as far as each sees it.
    fn span(&self, rows: &Rows, piece: &Piece, parts: &mut [f32]) {
        let (dim, group) = (self.shape.head_dim, self.shape.group());
        let sizes = [rows.count * group * dim, QUERIES * SPAN_TOKENS];
        scratch::with(Use::Queries, super::carved(&sizes), |scratch| {
            let [q, scores] = super::carve(scratch, sizes);
            self.turned_queries(rows, piece.head, q);
            let pages = &rows.pages[piece.span * SPAN..];
            let before = piece.span * SPAN_TOKENS;
            let queries = q.chunks_exact(group * dim).zip(parts.chunks_exact_mut(group * (dim + TAIL)));
            for (r, (q, parts)) in queries.take(rows.count).enumerate() {
                let seen = (rows.past + r + 1).saturating_sub(before).min(SPAN_TOKENS);
                if seen > 0 {
                    let span = Span { pages, head: piece.head, seen, scale: self.shape.scale() };
                    attend(self.isa, &span, dim, q, scores, parts);
                }
            }
        });
    }

    /// Few rows' attention from the parts of all spans and heads, `[spans, kv_heads, rows, group, head_dim + TAIL]`.
    fn join(&self, rows: &Rows, y: &mut [f32], parts: &[f32]) {
        let (dim, group, out) = (self.shape.head_dim, self.shape.group(), self.shape.q_width());
        let of_head = self.parts_of(rows);
        for r in 0..rows.count {
            let spans = (rows.past + r + 1).div_ceil(SPAN_TOKENS);
            let y = &mut y[(rows.first + r) * out..][..out];
            for (h, y) in y.chunks_exact_mut(dim).enumerate() {
                let at = h / group * of_head + (r * group + h % group) * (dim + TAIL);
                join(self.isa, y, &parts[at..], self.shape.kv_heads * of_head, spans);
            }
        }
    }

    /// Many rows, by the tiles of the forward pass.
    ///
    /// # Safety
    /// At `y` the rows and the columns of the head's group are this call's alone to write.
    unsafe fn prompt(&self, rows: &Rows, head: usize, y: *mut f32) {
        let (dim, group, total) = (self.shape.head_dim, self.shape.group(), rows.total());
        let sizes = [rows.count * group * dim, PAGE * dim, total * dim, total * dim];
        scratch::with(Use::Queries, super::carved(&sizes), |scratch| {
            let [q, wide, k, v] = super::carve(scratch, sizes);
            self.turned_queries(rows, head, q);
            let pages = &rows.pages[..total.div_ceil(PAGE)];
            gather(pages, head, dim, wide, &mut k[..total * dim], &mut v[..total * dim]);
            let data = ForwardData {
                q: q.as_ptr(),
                q_stride: group * dim,
                k: k.as_ptr(),
                v: v.as_ptr(),
                kv_stride: dim,
                // SAFETY: inside y, as the caller says.
                y: unsafe { y.add(rows.first * self.shape.q_width() + head * group * dim) },
                lse: None,
                rows: rows.count,
                keys: total,
                past: rows.past,
            };
            // SAFETY: queries, keys and values are in the scratch, as many as are named; the rest is the caller's.
            unsafe { dispatch_forward(self.isa, &Attention { rope: None, ..*self.shape }, &data) };
        });
    }
}
