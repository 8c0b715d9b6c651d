//! Memory for many floats, on huge pages where the system has them.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Cache lines, and the widest vectors.
pub const ALIGN: usize = 64;
const HUGE_PAGE: usize = 2 << 20;

/// `len` floats, zeros at first, aligned to a cache line; as many as fill a huge page are aligned to one.
pub struct Memory {
    ptr: NonNull<f32>,
    len: usize,
}

// SAFETY: it is the only owner of its memory, as a `Box<[f32]>` is.
unsafe impl Send for Memory {}
// SAFETY: shared, it is only read.
unsafe impl Sync for Memory {}

impl Memory {
    pub fn zeroed(len: usize) -> Self {
        let layout = Self::layout(len);
        let memory = match mapped::map(layout.size()) {
            Some(memory) => memory,
            // SAFETY: the layout is never empty.
            None => unsafe { alloc_zeroed(layout) },
        };
        let Some(ptr) = NonNull::new(memory.cast::<f32>()) else { handle_alloc_error(layout) };
        Self { ptr, len }
    }

    fn layout(len: usize) -> Layout {
        let bytes = len.max(1).checked_mul(size_of::<f32>()).expect("the size of a buffer overflows");
        Layout::from_size_align(bytes, ALIGN).expect("the size of a buffer overflows")
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn bytes(&self) -> usize {
        self.len * size_of::<f32>()
    }

    pub fn as_slice(&self) -> &[f32] {
        // SAFETY: `len` initialized floats, which are only read while they are shared.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above, and this is the only reference to them.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let (layout, memory) = (Self::layout(self.len), self.ptr.as_ptr().cast());
        // SAFETY: made in `zeroed` with the same layout, one way or the other, which its size alone decides.
        unsafe {
            if !mapped::unmap(memory, layout.size()) {
                dealloc(memory, layout);
            }
        }
    }
}

/// Large memory comes from the system itself: it is zeroed there, so that nobody has to touch it before the system has been asked for huge
/// pages, which it gives only to what has not been touched; and it leaves the process when it is freed, where the C library keeps what it
/// once had (180 MB beside a step of GPT-2 small).
#[cfg(all(target_os = "linux", not(miri)))]
mod mapped {
    use super::HUGE_PAGE;

    /// A multiple of every usual size of a page.
    const PAGE: usize = 64 << 10;

    /// Zeroed bytes that begin at a huge page, null when there are none, or nothing where there are too few of them to be mapped.
    pub fn map(bytes: usize) -> Option<*mut u8> {
        if bytes < HUGE_PAGE {
            return None;
        }
        let Some(all) = bytes.checked_next_multiple_of(PAGE).and_then(|size| size.checked_add(HUGE_PAGE)) else {
            return Some(std::ptr::null_mut());
        };
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, of which nobody else knows. What it has more than is asked for, before the first huge page and after the
        // last byte, is given back at once; both begin and end at pages. The advice changes nothing but what backs the memory.
        unsafe {
            let start = libc::mmap(std::ptr::null_mut(), all, access, flags, -1, 0);
            if start == libc::MAP_FAILED {
                return Some(std::ptr::null_mut());
            }
            let before = (start as usize).next_multiple_of(HUGE_PAGE) - start as usize;
            let memory = start.byte_add(before);
            if before > 0 {
                libc::munmap(start, before);
            }
            if before < HUGE_PAGE {
                libc::munmap(memory.byte_add(all - HUGE_PAGE), HUGE_PAGE - before);
            }
            libc::madvise(memory, bytes / HUGE_PAGE * HUGE_PAGE, libc::MADV_HUGEPAGE);
            Some(memory.cast())
        }
    }

    /// Gives back what [`map`] gave for as many bytes; false where it gave nothing.
    ///
    /// # Safety
    /// Nobody uses the memory any more.
    pub unsafe fn unmap(memory: *mut u8, bytes: usize) -> bool {
        let large = bytes >= HUGE_PAGE;
        if large {
            // SAFETY: a mapping of this size, which the caller vouches is not used.
            unsafe { libc::munmap(memory.cast(), bytes.next_multiple_of(PAGE)) };
        }
        large
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
mod mapped {
    pub fn map(_: usize) -> Option<*mut u8> {
        None
    }

    /// # Safety
    /// None is asked for.
    pub unsafe fn unmap(_: *mut u8, _: usize) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_and_aligned_whatever_its_size() {
        for len in [0, 1, 17, HUGE_PAGE / 4 - 1, HUGE_PAGE / 4, HUGE_PAGE / 4 + 1, 3 * HUGE_PAGE] {
            let mut memory = Memory::zeroed(len);
            assert_eq!((memory.len(), memory.bytes()), (len, 4 * len));
            assert!(memory.as_slice().iter().all(|&x| x == 0.0), "{len}");
            let align = if cfg!(all(target_os = "linux", not(miri))) && 4 * len >= HUGE_PAGE { HUGE_PAGE } else { ALIGN };
            assert!((memory.as_slice().as_ptr() as usize).is_multiple_of(align), "{len}");
            memory.as_mut_slice().fill(1.0);
        }
    }
}
