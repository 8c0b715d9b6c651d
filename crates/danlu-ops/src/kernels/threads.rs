//! The one decision about threads: how many there are, and how a loop is shared out among them.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// 0 until it is set: then the processor's own count is taken.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Uses `n` threads from now on; 0 means as many as the processor has.
pub fn set_threads(n: usize) {
    THREADS.store(n, Ordering::Relaxed);
}

/// How many threads a parallel loop uses.
pub fn threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => rayon::current_num_threads(),
        n => n,
    }
}

/// Runs `body(i)` for every `i` in `0..count`, on all threads. Threads take the next `i` as they come free, so a body must write
/// to its own place only and the result must not depend on who ran it. A loop inside a loop runs on the thread it is in.
pub fn for_each(count: usize, body: impl Fn(usize) + Sync) {
    let threads = threads().min(count);
    if threads <= 1 || INSIDE.get() {
        (0..count).for_each(body);
        return;
    }
    let next = AtomicUsize::new(0);
    let work = || {
        INSIDE.set(true);
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                break;
            }
            body(i);
        }
        INSIDE.set(false);
    };
    rayon::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|_| work());
        }
        work();
    });
}

/// Cuts `data` into pieces of `chunk` elements (the last may be shorter) and runs `body(index, piece)` on all threads.
pub fn for_each_chunk<T: Send>(data: &mut [T], chunk: usize, body: impl Fn(usize, &mut [T]) + Sync) {
    let len = data.len();
    let base = SendPtr(data.as_mut_ptr());
    for_each(len.div_ceil(chunk), |i| {
        let start = i * chunk;
        // SAFETY: pieces of different `i` do not overlap, all lie inside `data`, and each `i` is run once.
        let piece = unsafe { std::slice::from_raw_parts_mut(base.get().add(start), chunk.min(len - start)) };
        body(i, piece);
    });
}

/// A pointer that a parallel loop may carry to its threads; whoever uses it says why the places written are disjoint.
pub(crate) struct SendPtr<T>(pub *mut T);

impl<T> SendPtr<T> {
    pub fn get(&self) -> *mut T {
        self.0
    }
}

// SAFETY: the pointer itself may move between threads; each dereference carries its own reason.
unsafe impl<T: Send> Send for SendPtr<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SendPtr<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn every_index_runs_once_at_any_number_of_threads() {
        for count in [0, 1, 2, 7, 1000] {
            let seen = Mutex::new(vec![0; count]);
            for_each(count, |i| seen.lock().unwrap()[i] += 1);
            assert!(seen.into_inner().unwrap().iter().all(|&n| n == 1), "{count}");
        }
    }

    #[test]
    fn chunks_cover_the_slice_and_loops_nest() {
        let mut data = vec![0usize; 1003];
        for_each_chunk(&mut data, 10, |i, piece| {
            let base = SendPtr(piece.as_mut_ptr());
            // SAFETY: one element for each index of the inner loop.
            for_each(piece.len(), |j| unsafe { *base.get().add(j) = i * 10 + j });
        });
        assert!(data.iter().enumerate().all(|(i, &v)| i == v));
    }
}
