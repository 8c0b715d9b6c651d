//! Memory of the CPU forms: aligned buffers that go back to a pool when the last tensor that holds them is dropped.
//!
//! A training step asks for the same sizes again and again. The system's allocator would give large ones back to the kernel
//! and fault every page in anew, which costs more than many of the operations themselves. The pool keeps them, in lists of
//! sizes a sixteenth apart, since rows of about as many tokens ask for about as much, and asks for huge pages. It is bounded:
//! together with what is in use it never holds more than an eighth above what was once in use at the same time; beyond that the
//! sizes that were asked for longest ago go back to the system.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::backend::flex::{FlexTensor, Layout as TensorLayout};
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes, DType, Shape};

/// Cache lines, and the widest vectors.
const ALIGN: usize = 64;
const HUGE_PAGE: usize = 2 << 20;
/// A multiple of every usual size of a page.
#[cfg(all(target_os = "linux", not(miri)))]
const PAGES: usize = 64 << 10;

/// A block of memory that owns its allocation and is always initialized.
struct Block {
    ptr: NonNull<f32>,
    len: usize,
}

// SAFETY: a block is the only owner of its memory, as a `Box<[f32]>` is.
unsafe impl Send for Block {}
// SAFETY: a shared block is only read.
unsafe impl Sync for Block {}

impl Block {
    fn layout(len: usize) -> Layout {
        let bytes = len.max(1).checked_mul(size_of::<f32>()).expect("a buffer's size overflows");
        let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { ALIGN };
        Layout::from_size_align(bytes, align).expect("a buffer's size overflows")
    }

    fn new(len: usize) -> Self {
        let layout = Self::layout(len);
        // SAFETY: the layout is never empty.
        let Some(ptr) = NonNull::new(unsafe { alloc_zeroed(layout) }.cast::<f32>()) else { handle_alloc_error(layout) };
        Self { ptr, len }
    }

    fn bytes(&self) -> usize {
        self.len * size_of::<f32>()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        release(self);
        // SAFETY: allocated in `new` with the same layout.
        unsafe { dealloc(self.ptr.as_ptr().cast(), Self::layout(self.len)) }
    }
}

/// `len` values of `f32` from the pool.
pub(crate) struct Buffer {
    /// Of at least so many. Taken only when the buffer is dropped.
    block: Option<Block>,
    len: usize,
}

impl Buffer {
    /// A buffer with whatever its last user left in it; the caller writes every element.
    pub(crate) fn new(len: usize) -> Self {
        Self { block: Some(pool().take(len)), len }
    }

    pub(crate) fn copy_of(values: &[f32]) -> Self {
        let mut buffer = Self::new(values.len());
        buffer.copy_from_slice(values);
        buffer
    }

    fn block(&self) -> &Block {
        self.block.as_ref().expect("a buffer holds its block until it is dropped")
    }

    /// The buffer as a tensor. Panics when the shape has another number of elements.
    pub(crate) fn into_tensor<const D: usize>(self, shape: [usize; D]) -> FlexTensor {
        let bytes = self.len * size_of::<f32>();
        assert_eq!(shape.iter().product::<usize>(), self.len(), "a tensor of shape {shape:?} needs another number of values");
        // SAFETY: the controller gives out `bytes` initialized bytes, always the same ones, aligned for `f32`.
        let bytes = unsafe { Bytes::from_controller(Box::new(Controller(self)), bytes) };
        FlexTensor::new(bytes, TensorLayout::contiguous(Shape::new(shape)), DType::F32)
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        Self::copy_of(self)
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer of {} values", self.len())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            pool().give(block);
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        let block = self.block();
        // SAFETY: the block owns at least `len` initialized values, and a shared buffer is only read.
        unsafe { std::slice::from_raw_parts(block.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        let block = self.block();
        // SAFETY: as above, and this is the only reference to the buffer.
        unsafe { std::slice::from_raw_parts_mut(block.ptr.as_ptr(), self.len) }
    }
}

/// Lets Burn's tensors hold a buffer.
struct Controller(Buffer);

impl AllocationController for Controller {
    fn alloc_align(&self) -> usize {
        ALIGN
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self, _: AccessPolicy) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.0);
        // SAFETY: initialized bytes may be seen as possibly uninitialized ones; the trait forbids writing uninitialized data.
        Ok(unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) })
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let bytes: &[u8] = bytemuck::cast_slice(&self.0);
        // SAFETY: initialized bytes may be seen as possibly uninitialized ones.
        Ok(unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) })
    }
}

/// Free blocks of one length.
#[derive(Default)]
struct Shelf {
    free: Vec<Block>,
    /// When the length was last asked for.
    asked: u64,
}

#[derive(Default)]
struct Pool {
    shelves: BTreeMap<usize, Shelf>,
    clock: u64,
    /// Bytes in free blocks, in use, and most ever in use.
    free: usize,
    used: usize,
    peak: usize,
}

fn pool() -> MutexGuard<'static, Pool> {
    static POOL: Mutex<Pool> = Mutex::new(Pool { shelves: BTreeMap::new(), clock: 0, free: 0, used: 0, peak: 0 });
    // Every change below leaves the pool whole, so a panic elsewhere does not spoil it.
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The size of the block that `len` values are kept in.
fn class(len: usize) -> usize {
    let step = len.max(16).ilog2() - 4;
    len.checked_next_multiple_of(1 << step).expect("a buffer's size overflows")
}

impl Pool {
    fn take(&mut self, len: usize) -> Block {
        let len = class(len);
        let bytes = len * size_of::<f32>();
        self.clock += 1;
        self.used += bytes;
        self.peak = self.peak.max(self.used);
        let shelf = self.shelves.entry(len).or_default();
        shelf.asked = self.clock;
        if let Some(block) = shelf.free.pop() {
            self.free -= bytes;
            return block;
        }
        self.shrink();
        let block = Block::new(len);
        advise_huge(&block);
        block
    }

    fn give(&mut self, block: Block) {
        self.used -= block.bytes();
        self.free += block.bytes();
        self.shelves.entry(block.len).or_default().free.push(block);
        self.shrink();
    }

    fn release(&mut self) {
        self.shelves.clear();
        self.free = 0;
        self.peak = self.used;
    }

    /// Gives blocks back to the system until the bound holds.
    fn shrink(&mut self) {
        let bound = self.peak + self.peak / 8;
        while self.used + self.free > bound {
            let oldest = self.shelves.values_mut().filter(|shelf| !shelf.free.is_empty()).min_by_key(|shelf| shelf.asked);
            let Some(block) = oldest.and_then(|shelf| shelf.free.pop()) else { break };
            self.free -= block.bytes();
        }
        self.shelves.retain(|_, shelf| !shelf.free.is_empty() || shelf.asked + 10_000 > self.clock);
    }
}

/// Gives the pages of a large block that is dropped back to the system. The C library would keep them: after the first free of a mapping
/// it serves blocks of that size from its heap, whose holes stay in memory (180 MB beside a step of GPT-2 small).
fn release(block: &Block) {
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        // Whole pages of any size that systems have.
        let whole = block.bytes() / PAGES * PAGES;
        if block.bytes() >= HUGE_PAGE {
            // SAFETY: the range lies in the block, whose start is aligned to a huge page, and nothing reads the block any more; what
            // the pages hold becomes zero.
            unsafe { libc::madvise(block.ptr.as_ptr().cast(), whole, libc::MADV_DONTNEED) };
        }
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = block;
}

/// Asks the system to back the block by huge pages. It is advice: nothing depends on the answer.
fn advise_huge(block: &Block) {
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        let whole = block.bytes() / HUGE_PAGE * HUGE_PAGE;
        if whole > 0 {
            // SAFETY: the range lies in the block, whose start is aligned to a huge page, and the advice does not change
            // what memory holds.
            unsafe { libc::madvise(block.ptr.as_ptr().cast(), whole, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = block;
}

/// Gives the buffers that are not in use back to the system, and forgets how much was ever in use: for when one kind of work is
/// over and another, which needs other buffers, begins.
pub fn release_buffers() {
    pool().release();
}

/// Bytes of the buffers in use and of those the pool keeps.
pub fn pool_bytes() -> (usize, usize) {
    let pool = pool();
    (pool.used, pool.free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_come_back() {
        for len in [0, 1, 17, 1000, 600_000] {
            let mut buffer = Buffer::new(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr() as usize % ALIGN, 0);
            buffer.fill(1.0);
            let copy = Buffer::copy_of(&buffer);
            assert_eq!(copy[..], buffer[..]);
        }
    }

    #[test]
    fn blocks_are_at_most_a_sixteenth_larger_than_what_is_asked_for() {
        for len in (0..2000).chain([544 * 3072, 551 * 3072, 49_152 * 576]) {
            assert!((len..=len + len / 16).contains(&class(len)), "{len}");
        }
        let mut pool = Pool::default();
        let block = pool.take(544 * 3072);
        let memory = block.ptr;
        pool.give(block);
        assert_eq!(pool.take(551 * 3072).ptr, memory);
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_bound() {
        let mut pool = Pool::default();
        for round in 0..50 {
            let blocks: Vec<Block> = (1..20).map(|i| pool.take(i * 10 + round)).collect();
            blocks.into_iter().for_each(|block| pool.give(block));
            assert!(pool.used == 0 && pool.free <= pool.peak + pool.peak / 8, "round {round}: {} bytes are kept", pool.free);
        }
        let kept: usize = pool.shelves.values().flat_map(|shelf| &shelf.free).map(Block::bytes).sum();
        assert_eq!(kept, pool.free);
        let held = pool.take(10);
        pool.release();
        assert!(pool.shelves.is_empty() && pool.free == 0 && pool.used == held.bytes());
        pool.give(held);
    }

    #[test]
    fn a_tensor_holds_its_buffer_and_a_clone_is_written_apart() {
        let tensor = Buffer::copy_of(&[1.0, 2.0, 3.0, 4.0]).into_tensor([2, 2]);
        let mut other = tensor.clone();
        other.storage_mut::<f32>()[0] = 9.0;
        assert_eq!(tensor.as_slice::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(other.as_slice::<f32>().unwrap(), [9.0, 2.0, 3.0, 4.0]);
    }
}
