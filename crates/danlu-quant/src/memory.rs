//! Memory that weights lie in: aligned to a cache line, on huge pages where the system has them.
//!
//! Decoding reads all weights once for each token, and with pages of 4 KiB much of that time goes into finding pages. Most weights are smaller
//! than a huge page, so that they share regions of many.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::threads::{SendPtr, for_each};

const LINE: usize = 64;
const HUGE_PAGE: usize = 2 << 20;
/// Bytes of a region that weights share. What nobody was given of it is address space, not memory.
const SHARED: usize = if cfg!(miri) { HUGE_PAGE } else { 64 << 20 };

/// What was written when it was made. The region lives as long as anything in it.
pub(crate) struct Memory {
    region: Arc<Region>,
    first: usize,
    len: usize,
}

struct Region {
    ptr: *mut u8,
    layout: Layout,
}

// SAFETY: a region owns its memory, and its bytes are reached through the one `Memory` that was given them.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// The region that is being given away, and how much of it is gone.
static OPEN: Mutex<(Weak<Region>, usize)> = Mutex::new((Weak::new(), 0));

impl Memory {
    /// `len` bytes, in pieces of `piece` (the last may be shorter), each zeros until `fill(index, piece)` has written it. All threads take part: the
    /// first touch of a page, for which the system clears it, takes as long as writing what belongs there.
    pub fn filled(len: usize, piece: usize, fill: impl Fn(usize, &mut [u8]) + Sync) -> Self {
        let size = len.checked_next_multiple_of(LINE).expect("a length that memory can have");
        let (region, first) = if size > SHARED / 2 { (Arc::new(Region::new(size)), 0) } else { Self::shared(size) };
        // SAFETY: the place lies inside the region.
        let bytes = SendPtr(unsafe { region.ptr.add(first) });
        let piece = piece.max(1);
        for_each(len.div_ceil(piece), |index| {
            let start = index * piece;
            let count = piece.min(len - start);
            // SAFETY: these bytes of the region were given to nobody else, pieces of different indices do not overlap, and each is run once. They
            // are zeros before they are a slice.
            let bytes = unsafe {
                let from = bytes.get().add(start);
                from.write_bytes(0, count);
                std::slice::from_raw_parts_mut(from, count)
            };
            fill(index, bytes);
        });
        Self { region, first, len }
    }

    fn shared(size: usize) -> (Arc<Region>, usize) {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let (region, used) = &mut *open;
        if let Some(region) = region.upgrade()
            && *used + size <= SHARED
        {
            let first = *used;
            *used += size;
            return (region, first);
        }
        let region = Arc::new(Region::new(SHARED));
        *open = (Arc::downgrade(&region), size);
        (region, 0)
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: these bytes of the region are this memory's, and were written when it was made.
        unsafe { std::slice::from_raw_parts(self.region.ptr.add(self.first), self.len) }
    }
}

impl Region {
    fn new(size: usize) -> Self {
        let align = if size >= HUGE_PAGE { HUGE_PAGE } else { LINE };
        let layout = Layout::from_size_align(size.max(LINE), align).expect("a size that memory can have");
        // SAFETY: the layout is not empty.
        let ptr = unsafe { alloc(layout) };
        if ptr.is_null() {
            handle_alloc_error(layout);
        }
        // It is advice: nothing depends on the answer.
        #[cfg(all(target_os = "linux", not(miri)))]
        if size >= HUGE_PAGE {
            // SAFETY: the range lies inside the allocation, and this advice does not change what memory holds.
            unsafe { libc::madvise(ptr.cast(), size / HUGE_PAGE * HUGE_PAGE, libc::MADV_HUGEPAGE) };
        }
        Self { ptr, layout }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.ptr, self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zero_and_do_not_overlap() {
        let sizes = [0, 1, 64, 65, 1000, SHARED / 2 + 1, 7, SHARED / 2, SHARED / 2];
        let made = |(i, size): (usize, &usize)| {
            Memory::filled(*size, 1 << 20, |piece, bytes| {
                assert_eq!(bytes.len(), (size - (piece << 20)).min(1 << 20));
                assert!([bytes.first(), bytes.last()].iter().all(|end| *end == Some(&0)));
                bytes.fill(i as u8 + 1);
            })
        };
        let all: Vec<Memory> = sizes.iter().enumerate().map(made).collect();
        for (i, memory) in all.iter().enumerate() {
            assert_eq!(memory.bytes().len(), sizes[i]);
            assert!(memory.bytes().as_ptr().addr().is_multiple_of(LINE));
            assert!(memory.bytes().iter().all(|byte| *byte == i as u8 + 1), "{i}");
        }
    }
}
