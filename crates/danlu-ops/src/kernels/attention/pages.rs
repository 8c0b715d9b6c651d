//! Pages of keys and values, which sequences with the same beginning share.
//!
//! A page holds its keys turned on their side, `[kv_heads, head_dim, PAGE]`, so that the scores of a whole page come out side by side and no
//! sum runs across the lanes of a register; values lie as `[kv_heads, PAGE, head_dim]`, which gives the same to the weighted sum.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytemuck::{Pod, cast_slice, cast_slice_mut};
use half::f16;
use half::slice::HalfFloatSliceExt;

use super::Attention;
use super::lanes::Lanes;
use crate::buffer::Buffer;
use crate::kernels::isa::Isa;

/// Tokens in a page.
pub const PAGE: usize = 32;

/// The numbers that keys and values are kept as. Whatever they are, sums are made of 32-bit floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvFormat {
    /// 32-bit floats: what was computed, to the bit.
    #[default]
    F32,
    /// IEEE halves, rounded to the nearest: an error of at most 1/2048 of a number, in half the memory. What is larger than the largest
    /// half, 65,504, is kept as that.
    F16,
}

impl KvFormat {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::F32, Self::F16];

    /// Its name, in small letters.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }

    /// 32-bit floats that `numbers` of them take the place of.
    fn floats(self, numbers: usize) -> usize {
        match self {
            Self::F32 => numbers,
            Self::F16 => numbers.div_ceil(2),
        }
    }
}

impl std::str::FromStr for KvFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| format!("keys and values are kept as f32 or f16, not as {name}"))
    }
}

/// A number that a page is made of.
pub(super) trait Element: Pod {
    fn narrow(to: &mut [Self], from: &[f32]);

    fn widen(to: &mut [f32], from: &[Self]);

    /// One number, widened.
    fn value(self) -> f32;

    /// Eight numbers, widened.
    ///
    /// # Safety
    /// They can be read, and the processor has the instructions of `S`.
    unsafe fn read<S: Lanes>(from: *const Self) -> S::Floats;
}

impl Element for f32 {
    fn narrow(to: &mut [Self], from: &[f32]) {
        to.copy_from_slice(from);
    }

    fn widen(to: &mut [f32], from: &[Self]) {
        to.copy_from_slice(from);
    }

    #[inline(always)]
    fn value(self) -> f32 {
        self
    }

    #[inline(always)]
    unsafe fn read<S: Lanes>(from: *const Self) -> S::Floats {
        // SAFETY: the caller's.
        unsafe { S::read(from) }
    }
}

impl Element for f16 {
    fn narrow(to: &mut [Self], from: &[f32]) {
        to.convert_from_f32_slice(from);
        for to in to.iter_mut().filter(|to| to.is_infinite()) {
            *to = f16::MAX.copysign(*to);
        }
    }

    fn widen(to: &mut [f32], from: &[Self]) {
        from.convert_to_f32_slice(to);
    }

    #[inline(always)]
    fn value(self) -> f32 {
        super::lanes::of_half(self.to_bits())
    }

    #[inline(always)]
    unsafe fn read<S: Lanes>(from: *const Self) -> S::Floats {
        // SAFETY: the caller's.
        unsafe { S::read_halves(from.cast()) }
    }
}

/// Keys and values of up to [`PAGE`] tokens of one layer.
#[derive(Clone, Debug)]
pub struct Page {
    format: KvFormat,
    /// Numbers of the format, two halves in the place of a float.
    k: Buffer,
    v: Buffer,
    _counted: Counted,
}

static LIVE: AtomicUsize = AtomicUsize::new(0);
static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Pages that all sequences of the program hold together, one that several share counted once.
pub fn live_pages() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// Bytes of their keys and values.
pub fn live_page_bytes() -> usize {
    LIVE_BYTES.load(Ordering::Relaxed)
}

/// Part of every page, so that none can come or go uncounted; its bytes.
#[derive(Debug)]
struct Counted(usize);

impl Counted {
    fn new(bytes: usize) -> Self {
        LIVE.fetch_add(1, Ordering::Relaxed);
        LIVE_BYTES.fetch_add(bytes, Ordering::Relaxed);
        Self(bytes)
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Self::new(self.0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Ordering::Relaxed);
        LIVE_BYTES.fetch_sub(self.0, Ordering::Relaxed);
    }
}

impl Page {
    fn new(shape: &Attention, format: KvFormat) -> Self {
        let len = format.floats(shape.kv_heads * PAGE * shape.head_dim);
        // The places of tokens that are not there yet are computed with and thrown away, so they must hold numbers.
        let zeros = || {
            let mut buffer = Buffer::new(len);
            buffer.fill(0.0);
            buffer
        };
        Self { format, k: zeros(), v: zeros(), _counted: Counted::new(2 * len * size_of::<f32>()) }
    }

    pub(super) fn format(&self) -> KvFormat {
        self.format
    }

    /// Keys of a head, `[head_dim, PAGE]`. The page must be of this kind of number.
    #[inline(always)]
    pub(super) fn keys<E: Element>(&self, head: usize, dim: usize) -> &[E] {
        &cast_slice::<f32, E>(&self.k)[head * dim * PAGE..][..dim * PAGE]
    }

    /// Values of a head, `[PAGE, head_dim]`. The page must be of this kind of number.
    #[inline(always)]
    pub(super) fn values<E: Element>(&self, head: usize, dim: usize) -> &[E] {
        &cast_slice::<f32, E>(&self.v)[head * dim * PAGE..][..dim * PAGE]
    }

    /// Puts a token at a place of the page: its keys, turned, and its values, of all heads.
    fn put<E: Element>(&mut self, at: usize, dim: usize, k: &[f32], v: &[f32]) {
        let (keys, values) = (cast_slice_mut::<f32, E>(&mut self.k), cast_slice_mut::<f32, E>(&mut self.v));
        let mut narrow = vec![<E as bytemuck::Zeroable>::zeroed(); k.len()];
        E::narrow(&mut narrow, k);
        for (keys, k) in keys.chunks_exact_mut(dim * PAGE).zip(narrow.chunks_exact(dim)) {
            keys.iter_mut().skip(at).step_by(PAGE).zip(k).for_each(|(to, k)| *to = *k);
        }
        for (values, v) in values.chunks_exact_mut(dim * PAGE).zip(v.chunks_exact(dim)) {
            E::narrow(&mut values[at * dim..][..dim], v);
        }
    }
}

/// Puts the keys, turned to their positions, and the values of new tokens of one sequence behind the `past` ones that its pages hold. A page
/// that others share is copied first.
pub fn store_paged(shape: &Attention, format: KvFormat, pages: &mut Vec<Arc<Page>>, past: usize, qkv: &[f32]) {
    let (dim, width) = (shape.head_dim, shape.row_width());
    let isa = Isa::current();
    let mut turned = vec![0.0; shape.kv_heads * dim];
    for (r, row) in qkv.chunks_exact(width).enumerate() {
        let (page, at) = ((past + r) / PAGE, (past + r) % PAGE);
        if page == pages.len() {
            pages.push(Arc::new(Page::new(shape, format)));
        }
        let page = Arc::make_mut(&mut pages[page]);
        let (k, v) = row[shape.q_width()..].split_at(shape.kv_heads * dim);
        for (turned, k) in turned.chunks_exact_mut(dim).zip(k.chunks_exact(dim)) {
            shape.turned(isa, turned, k, past + r);
        }
        match format {
            KvFormat::F32 => page.put::<f32>(at, dim, &turned, v),
            KvFormat::F16 => page.put::<f16>(at, dim, &turned, v),
        }
    }
}

/// Keys and values of one head as rows, `[total, head_dim]` each; `wide` is room for those of a page.
pub(super) fn gather(pages: &[Arc<Page>], head: usize, dim: usize, wide: &mut [f32], k: &mut [f32], v: &mut [f32]) {
    match pages.first().map(|page| page.format) {
        None => {}
        Some(KvFormat::F32) => rows_of::<f32>(pages, head, dim, wide, k, v),
        Some(KvFormat::F16) => rows_of::<f16>(pages, head, dim, wide, k, v),
    }
}

fn rows_of<E: Element>(pages: &[Arc<Page>], head: usize, dim: usize, wide: &mut [f32], k: &mut [f32], v: &mut [f32]) {
    let wide = &mut wide[..dim * PAGE];
    for ((k, v), page) in k.chunks_mut(PAGE * dim).zip(v.chunks_mut(PAGE * dim)).zip(pages) {
        E::widen(wide, page.keys::<E>(head, dim));
        for (at, k) in k.chunks_exact_mut(dim).enumerate() {
            k.iter_mut().zip(wide.iter().skip(at).step_by(PAGE)).for_each(|(to, from)| *to = *from);
        }
        let len = v.len();
        E::widen(v, &page.values::<E>(head, dim)[..len]);
    }
}
