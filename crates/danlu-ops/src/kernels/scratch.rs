//! Scratch memory that each thread keeps: aligned, on huge pages where the system has them, never zeroed again.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;

const HUGE_PAGE: usize = 2 << 20;

/// A block of `f32`, aligned to a cache line, or to a huge page when it is as large as one.
pub struct Block {
    ptr: *mut f32,
    len: usize,
    layout: Layout,
}

// SAFETY: a `Block` owns its memory.
unsafe impl Send for Block {}

impl Block {
    pub fn new(len: usize) -> Self {
        let bytes = len.max(16).checked_mul(size_of::<f32>()).expect("scratch size overflows");
        let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { 64 };
        let layout = Layout::from_size_align(bytes.next_multiple_of(align), align).expect("scratch size overflows");
        // SAFETY: the layout is not empty.
        let ptr = unsafe { alloc_zeroed(layout) }.cast::<f32>();
        if ptr.is_null() {
            handle_alloc_error(layout);
        }
        advise_huge(ptr.cast(), layout.size());
        Self { ptr, len, layout }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: the block owns `len` initialised elements.
        unsafe { std::slice::from_raw_parts_mut(self.ptr, self.len) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.ptr.cast(), self.layout) }
    }
}

/// Asks the system to back this memory by huge pages. It is advice: nothing depends on the answer.
pub fn advise_huge(ptr: *mut u8, bytes: usize) {
    #[cfg(target_os = "linux")]
    {
        let start = (ptr as usize).next_multiple_of(HUGE_PAGE);
        let end = (ptr as usize + bytes) / HUGE_PAGE * HUGE_PAGE;
        if end > start {
            // SAFETY: the range lies inside the caller's allocation, and this advice does not change what memory holds.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (ptr, bytes);
}

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
    static BLOCKS: [Cell<Option<Block>>; 6] = const { [const { Cell::new(None) }; 6] };
}

/// Lends `len` elements of this thread's scratch memory, with whatever was left in them.
pub fn with<R>(which: Use, len: usize, body: impl FnOnce(&mut [f32]) -> R) -> R {
    let taken = BLOCKS.with(|blocks| blocks[which as usize].take());
    let mut block = match taken {
        Some(block) if block.len() >= len => block,
        // Growing by half as much again keeps a sequence of slightly larger requests from allocating each time.
        Some(block) => Block::new(len.max(block.len() + block.len() / 2)),
        None => Block::new(len),
    };
    let result = body(&mut block.as_mut_slice()[..len]);
    BLOCKS.with(|blocks| blocks[which as usize].set(Some(block)));
    result
}
