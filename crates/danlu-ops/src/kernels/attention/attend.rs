//! A few queries against a few pages: the innermost loops of writing, where each number of a page is read once for all the queries that
//! share it.

#![allow(
    clippy::needless_range_loop,
    reason = "closures, and so most iterators, are not compiled into callers with an instruction set for certain"
)]

use std::sync::Arc;

use half::f16;

use super::lanes::{Lanes, Plain};
use super::pages::{Element, KvFormat, PAGE, Page};
use crate::kernels::isa::Isa;
use crate::kernels::simd::{exp, fma, max, simd_fn, sum};

/// Pages that are read in one piece of work. Their scores, and their keys and values for one head, stay in the first cache.
pub(super) const SPAN: usize = 4;
/// Tokens of them.
pub(super) const SPAN_TOKENS: usize = SPAN * PAGE;
/// Queries whose sums are held in registers together: with four registers of sums each, as many as sixteen have room for.
pub(super) const QUERIES: usize = 3;
/// What a query's part of the attention has behind its `head_dim` weighted sums: the largest score, and the sum of the exponentials.
pub(super) const TAIL: usize = 2;

/// What some queries of one token look at: the first `seen` tokens, at least one, of at most [`SPAN`] pages.
pub(super) struct Span<'a> {
    pub pages: &'a [Arc<Page>],
    /// The head of keys and values.
    pub head: usize,
    pub seen: usize,
    /// Multiplies scores.
    pub scale: f32,
}

/// Queries `[queries, dim]`, turned, against a span: `parts` `[queries, dim + TAIL]` gets, for each, the sum of values weighted with
/// `exp(score - largest)`, then that largest score and the sum of the weights. `scores` has room for [`QUERIES`] spans. What a query gets
/// does not depend on the others.
pub(super) fn attend(isa: Isa, span: &Span, dim: usize, queries: &[f32], scores: &mut [f32], parts: &mut [f32]) {
    let count = queries.len() / dim;
    let pages = span.seen.div_ceil(PAGE);
    let format = span.pages[0].format();
    assert!((1..=SPAN_TOKENS).contains(&span.seen) && pages <= span.pages.len() && scores.len() >= QUERIES * SPAN_TOKENS);
    assert!(queries.len() == count * dim && parts.len() == count * (dim + TAIL));
    assert!(span.pages[..pages].iter().all(|page| page.format() == format), "pages of one sequence are of one format");
    // SAFETY: an `Isa` other than the portable one is only made where the processor has it, and the sizes were checked above; pages give
    // slices of a head.
    unsafe {
        match isa {
            Isa::Portable => all::<Plain<false>, false>(format, span, dim, queries, scores, parts),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => all::<Plain<true>, true>(format, span, dim, queries, scores, parts),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx512 => avx2(format, span, dim, queries, scores, parts),
        }
    }
}

/// # Safety
/// The processor has AVX2, FMA and F16C; sizes as [`attend`] checks them.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2(format: KvFormat, span: &Span, dim: usize, queries: &[f32], scores: &mut [f32], parts: &mut [f32]) {
    // SAFETY: the caller's.
    unsafe { all::<super::lanes::Avx2, true>(format, span, dim, queries, scores, parts) }
}

/// # Safety
/// The processor has the instructions of `S`; sizes as [`attend`] checks them.
#[inline(always)]
unsafe fn all<S: Lanes, const FMA: bool>(
    format: KvFormat,
    span: &Span,
    dim: usize,
    queries: &[f32],
    scores: &mut [f32],
    parts: &mut [f32],
) {
    // SAFETY: the caller's.
    unsafe {
        match format {
            KvFormat::F32 => tiles::<S, f32, FMA>(span, dim, queries, scores, parts),
            KvFormat::F16 => tiles::<S, f16, FMA>(span, dim, queries, scores, parts),
        }
    }
}

/// # Safety
/// As for [`all`], with pages of `E`.
#[inline(always)]
unsafe fn tiles<S: Lanes, E: Element, const FMA: bool>(
    span: &Span,
    dim: usize,
    queries: &[f32],
    scores: &mut [f32],
    parts: &mut [f32],
) {
    let count = queries.len() / dim;
    let mut first = 0;
    while first < count {
        let (queries, parts) = (&queries[first * dim..], &mut parts[first * (dim + TAIL)..]);
        // SAFETY: as many queries are left, and as many parts.
        unsafe {
            match count - first {
                1 => tile::<S, E, FMA, 1>(span, dim, queries, scores, parts),
                2 => tile::<S, E, FMA, 2>(span, dim, queries, scores, parts),
                _ => tile::<S, E, FMA, QUERIES>(span, dim, queries, scores, parts),
            }
        }
        first += QUERIES;
    }
}

/// # Safety
/// As for [`tiles`], with at least `R` queries.
#[inline(always)]
unsafe fn tile<S: Lanes, E: Element, const FMA: bool, const R: usize>(
    span: &Span,
    dim: usize,
    queries: &[f32],
    scores: &mut [f32],
    parts: &mut [f32],
) {
    let pages = &span.pages[..span.seen.div_ceil(PAGE)];
    let scores = &mut scores[..R * SPAN_TOKENS];
    scores.fill(0.0);
    for (j, page) in pages.iter().enumerate() {
        let keys = page.keys::<E>(span.head, dim);
        // What is read next is fetched meanwhile: no prefetcher of the processor looks beyond a page of memory.
        let next = match pages.get(j + 1) {
            Some(next) => next.keys::<E>(span.head, dim),
            None => pages[0].values::<E>(span.head, dim),
        };
        let to = scores[j * PAGE..].as_mut_ptr();
        let rows = Rows { first: keys.as_ptr(), stride: PAGE, next: next.as_ptr() };
        // SAFETY: `dim` rows of a page's keys, and as many numbers of each query; a page of the scores of each.
        unsafe { weigh::<S, E, FMA, R>(dim, queries.as_ptr(), dim, &rows, PAGE, to, SPAN_TOKENS) };
    }
    let width = dim + TAIL;
    for r in 0..R {
        let row = &mut scores[r * SPAN_TOKENS..][..span.seen];
        let largest = max(row);
        for score in row.iter_mut() {
            *score = exp::<FMA>((*score - largest) * span.scale);
        }
        let part = &mut parts[r * width..][..width];
        part.fill(0.0);
        (part[dim], part[dim + 1]) = (largest * span.scale, sum(row));
    }
    for (j, page) in pages.iter().enumerate() {
        let values = page.values::<E>(span.head, dim);
        let next = pages.get(j + 1).unwrap_or(page).values::<E>(span.head, dim);
        let rows = Rows { first: values.as_ptr(), stride: dim, next: next.as_ptr() };
        let count = PAGE.min(span.seen - j * PAGE);
        // SAFETY: as many rows of a page's values as are seen of it, and their weights; `dim` sums of each query.
        unsafe {
            weigh::<S, E, FMA, R>(count, scores[j * PAGE..].as_ptr(), SPAN_TOKENS, &rows, dim, parts.as_mut_ptr(), width);
        }
    }
}

/// Rows of numbers, and where those are that are read after them.
struct Rows<E> {
    first: *const E,
    stride: usize,
    next: *const E,
}

/// `sums[r][..columns] += Σ weights[r][i] · rows[i][..columns]` over `count` rows, for `R` rows of weights and of sums. Each sum adds one row
/// after the other, whatever `R` is.
///
/// # Safety
/// The processor has the instructions of `S`. `count` rows of `columns` numbers can be read, `count` weights in each of their rows, and
/// `columns` sums in each of theirs be read and written.
#[inline(always)]
unsafe fn weigh<S: Lanes, E: Element, const FMA: bool, const R: usize>(
    count: usize,
    weights: *const f32,
    weights_stride: usize,
    rows: &Rows<E>,
    columns: usize,
    sums: *mut f32,
    sums_stride: usize,
) {
    let mut column = 0;
    // SAFETY: columns that are there.
    unsafe {
        while column + 32 <= columns {
            block::<S, E, R, 4>(count, weights, weights_stride, rows, column, sums.add(column), sums_stride);
            column += 32;
        }
        while column + 8 <= columns {
            block::<S, E, R, 1>(count, weights, weights_stride, rows, column, sums.add(column), sums_stride);
            column += 8;
        }
        while column < columns {
            for r in 0..R {
                let to = sums.add(r * sums_stride + column);
                for i in 0..count {
                    let value = (*rows.first.add(i * rows.stride + column)).value();
                    *to = fma::<FMA>(*weights.add(r * weights_stride + i), value, *to);
                }
            }
            column += 1;
        }
    }
}

/// [`weigh`] for `8 C` columns from `column` on, whose sums stay in registers.
///
/// # Safety
/// As for [`weigh`], for these columns; `sums` points to the first of them.
#[inline(always)]
unsafe fn block<S: Lanes, E: Element, const R: usize, const C: usize>(
    count: usize,
    weights: *const f32,
    weights_stride: usize,
    rows: &Rows<E>,
    column: usize,
    sums: *mut f32,
    sums_stride: usize,
) {
    // SAFETY: the caller's; what is prefetched need not exist.
    unsafe {
        let mut held = [[S::splat(0.0); C]; R];
        for r in 0..R {
            for c in 0..C {
                held[r][c] = S::read(sums.add(r * sums_stride + 8 * c));
            }
        }
        for i in 0..count {
            let at = i * rows.stride + column;
            let next = rows.next.wrapping_add(at).cast::<u8>();
            S::prefetch(next);
            if 8 * C * size_of::<E>() > 64 {
                S::prefetch(next.wrapping_add(64));
            }
            let mut of_row = [S::splat(0.0); R];
            for r in 0..R {
                of_row[r] = S::splat(*weights.add(r * weights_stride + i));
            }
            for c in 0..C {
                let row = E::read::<S>(rows.first.add(at + 8 * c));
                for r in 0..R {
                    held[r][c] = S::fma(of_row[r], row, held[r][c]);
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                S::write(sums.add(r * sums_stride + 8 * c), held[r][c]);
            }
        }
    }
}

simd_fn! {
    /// A query's attention `y` from its parts of one span after the other, `stride` apart, each as [`attend`] gives it.
    pub(super) fn join(y: &mut [f32], parts: &[f32], stride: usize, spans: usize) {
        let dim = y.len();
        let part = |span: usize| &parts[span * stride..][..dim + TAIL];
        let mut largest = f32::NEG_INFINITY;
        for span in 0..spans {
            let score = part(span)[dim];
            // A score that is no number goes through to the output.
            largest = if score <= largest { largest } else { score };
        }
        y.fill(0.0);
        let mut total = 0.0;
        for span in 0..spans {
            let part = part(span);
            let weight = exp::<FMA>(part[dim] - largest);
            total = fma::<FMA>(weight, part[dim + 1], total);
            for (y, &sum) in y.iter_mut().zip(part) {
                *y = fma::<FMA>(weight, sum, *y);
            }
        }
        let factor = 1.0 / total;
        for y in y.iter_mut() {
            *y *= factor;
        }
    }
}
