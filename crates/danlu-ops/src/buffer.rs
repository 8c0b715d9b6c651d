//! Memory of the CPU forms: aligned buffers that go back to a pool when the last tensor that holds them is dropped.
//!
//! A training step asks for the same sizes again and again. The system's allocator would give large ones back to the kernel
//! and fault every page in anew, which costs more than many of the operations themselves. The pool keeps them, in lists of
//! sizes a sixteenth apart, and gives out one that is up to an eighth too large where there is none of the size, since rows of
//! about as many tokens ask for about as much. It is bounded: together with what is in use it never holds more than a
//! thirty-second above what was once in use at the same time; beyond that the sizes that were asked for longest ago go back to
//! the system, and so does, when it is outgrown, a block that is a little too small, and at the end of other work than training
//! what only that work asked for.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::backend::flex::{FlexTensor, Layout as TensorLayout};
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes, DType, Shape};

use crate::kernels::memory::{ALIGN, Memory};

/// `len` values of `f32` from the pool.
pub(crate) struct Buffer {
    /// Of at least so many. Taken only when the buffer is dropped.
    block: Option<Memory>,
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

    fn block(&self) -> &Memory {
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
        &self.block().as_slice()[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        let block = self.block.as_mut().expect("a buffer holds its block until it is dropped");
        &mut block.as_mut_slice()[..self.len]
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
    free: Vec<Memory>,
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
    fn take(&mut self, len: usize) -> Memory {
        let len = class(len);
        self.clock += 1;
        self.shelves.entry(len).or_default().asked = self.clock;
        let near = len / 8;
        let block = match self.shelves.range_mut(len..=len + near).find(|(_, shelf)| !shelf.free.is_empty()) {
            Some((_, shelf)) => {
                shelf.asked = self.clock;
                shelf.free.pop()
            }
            None => None,
        };
        if let Some(block) = block {
            self.free -= block.bytes();
            self.used(block.bytes());
            return block;
        }
        self.used(len * size_of::<f32>());
        // What asked for a little less before asks for more now, if there is a free block of less.
        let outgrown = self.shelves.range_mut(len - near..len).rev().find_map(|(_, shelf)| shelf.free.pop());
        self.free -= outgrown.map_or(0, |block| block.bytes());
        self.shrink();
        Memory::zeroed(len)
    }

    fn used(&mut self, more: usize) {
        self.used += more;
        self.peak = self.peak.max(self.used);
    }

    fn give(&mut self, block: Memory) {
        self.used -= block.bytes();
        self.free += block.bytes();
        self.shelves.entry(block.len()).or_default().free.push(block);
        self.shrink();
    }

    /// Gives back what is free of the sizes that were asked for since `moment`.
    fn release(&mut self, moment: u64) {
        for shelf in self.shelves.values_mut().filter(|shelf| shelf.asked > moment) {
            self.free -= shelf.free.drain(..).map(|block| block.bytes()).sum::<usize>();
        }
    }

    /// Gives blocks back to the system until the bound holds.
    fn shrink(&mut self) {
        let bound = self.peak + self.peak / 32;
        while self.used + self.free > bound {
            let oldest = self.shelves.values_mut().filter(|shelf| !shelf.free.is_empty()).min_by_key(|shelf| shelf.asked);
            let Some(block) = oldest.and_then(|shelf| shelf.free.pop()) else { break };
            self.free -= block.bytes();
        }
        self.shelves.retain(|_, shelf| !shelf.free.is_empty() || shelf.asked + 10_000 > self.clock);
    }
}

/// Gives the buffers that are not in use back to the system, and forgets how much was ever in use: for when one kind of work is
/// over and another, which needs other buffers, begins.
pub fn release_buffers() {
    let mut pool = pool();
    pool.release(0);
    pool.peak = pool.used;
    drop(pool);
    trim();
}

/// Runs `work` and gives back the buffers of the sizes that it asked for: for work between the steps of a training, whose own buffers stay.
pub fn releasing_buffers<R>(work: impl FnOnce() -> R) -> R {
    let moment = pool().clock;
    let result = work();
    pool().release(moment);
    trim();
    result
}

/// Lets the C library give back what it keeps of small blocks that were freed, such as pages of keys and values.
fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    // SAFETY: it touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
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
        let memory = block.as_slice().as_ptr();
        pool.give(block);
        assert_eq!(pool.take(551 * 3072).as_slice().as_ptr(), memory);
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_bound() {
        let mut pool = Pool::default();
        for round in 0..50 {
            let blocks: Vec<Memory> = (1..20).map(|i| pool.take(i * 10 + round)).collect();
            blocks.into_iter().for_each(|block| pool.give(block));
            assert!(pool.used == 0 && pool.free <= pool.peak + pool.peak / 32, "round {round}: {} bytes are kept", pool.free);
        }
        let kept: usize = pool.shelves.values().flat_map(|shelf| &shelf.free).map(Memory::bytes).sum();
        assert_eq!(kept, pool.free);
        let held = pool.take(10);
        pool.release(0);
        assert!(pool.free == 0 && pool.used == held.bytes());
        pool.give(held);
    }

    #[test]
    fn a_block_is_used_again_where_it_is_near_enough_and_replaced_where_it_is_outgrown() {
        // As if more was in use once, so that nothing goes back because of the bound.
        let mut pool = Pool { peak: 1 << 20, ..Pool::default() };
        let block = pool.take(1024);
        pool.give(block);
        let block = pool.take(960);
        assert_eq!(block.len(), 1024);
        pool.give(block);
        let block = pool.take(800);
        assert_eq!(block.len(), class(800), "more than an eighth would be left over");
        pool.give(block);
        let block = pool.take(1100);
        assert_eq!(block.len(), class(1100));
        let free: Vec<usize> = pool.shelves.values().flat_map(|shelf| &shelf.free).map(Memory::len).collect();
        assert_eq!(free, [class(800)], "the block of 1024 was outgrown");
        pool.give(block);
    }

    #[test]
    fn only_what_was_asked_for_since_a_moment_goes_back() {
        // As if more was in use once, so that nothing goes back because of the bound.
        let mut pool = Pool { peak: 1 << 20, ..Pool::default() };
        let blocks = [pool.take(1000), pool.take(5000)];
        blocks.into_iter().for_each(|block| pool.give(block));
        let moment = pool.clock;
        let blocks = [pool.take(5000), pool.take(300)];
        blocks.into_iter().for_each(|block| pool.give(block));
        pool.release(moment);
        assert_eq!(pool.free, class(1000) * size_of::<f32>());
        assert_eq!(pool.shelves.values().map(|shelf| shelf.free.len()).sum::<usize>(), 1);
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
