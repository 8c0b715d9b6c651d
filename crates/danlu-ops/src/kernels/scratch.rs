//! Scratch memory that each thread keeps: aligned, on huge pages where the system has them, never zeroed again.

use std::cell::Cell;

use super::memory::Memory;

/// Which of a thread's scratch blocks: uses that are alive at the same time must differ, or the inner one allocates anew.
#[derive(Clone, Copy)]
pub enum Use {
    GemmA,
    GemmB,
    Attention,
    Queries,
    /// Of images, in convolutions.
    Columns,
    /// Of attention to pages, before they are joined.
    Parts,
}

thread_local! {
    static BLOCKS: [Cell<Option<Memory>>; 6] = const { [const { Cell::new(None) }; 6] };
}

/// Lends `len` elements of this thread's scratch memory, with whatever was left in them.
pub fn with<R>(which: Use, len: usize, body: impl FnOnce(&mut [f32]) -> R) -> R {
    let taken = BLOCKS.with(|blocks| blocks[which as usize].take());
    let mut block = match taken {
        Some(block) if block.len() >= len => block,
        // Growing by half as much again keeps a sequence of slightly larger requests from allocating each time.
        Some(block) => Memory::zeroed(len.max(block.len() + block.len() / 2)),
        None => Memory::zeroed(len),
    };
    let result = body(&mut block.as_mut_slice()[..len]);
    BLOCKS.with(|blocks| blocks[which as usize].set(Some(block)));
    result
}
