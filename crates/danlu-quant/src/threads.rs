//! The one decision about threads: how many there are, and how a loop is shared out among them.
//!
//! A training step has thousands of short parallel loops in a row. Waking a sleeping thread takes tens of microseconds, so the
//! workers here wait a little for the next loop before they sleep, and the thread that calls takes part in the work.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a worker waits for the next loop before it sleeps.
const PATIENCE: Duration = Duration::from_micros(500);

/// 0 until it is set: then the processor's own count is taken.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Uses `n` threads from now on; 0 means as many as the processor has. Results do not depend on it.
pub fn set_threads(n: usize) {
    THREADS.store(n, Ordering::Relaxed);
}

/// How many threads a parallel loop uses.
pub fn threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => {
            static AVAILABLE: OnceLock<usize> = OnceLock::new();
            *AVAILABLE.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
        }
        n => n,
    }
}

/// Runs `body(i)` for every `i` in `0..count`, on all threads. Threads take the next `i` as they come free, so a body must write
/// to its own place only and the result must not depend on who ran it. A loop inside a loop runs on the thread it is in, and
/// so does one that another thread's loop leaves no workers for. A panic in a body is passed on to the caller.
pub fn for_each(count: usize, body: impl Fn(usize) + Sync) {
    let threads = threads().min(count);
    if threads <= 1 || INSIDE.get() {
        (0..count).for_each(body);
        return;
    }
    let Some(mut turn) = POOL.turn() else {
        (0..count).for_each(body);
        return;
    };
    turn.start(threads - 1);
    let next = AtomicUsize::new(0);
    POOL.run(threads - 1, &|| {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                break;
            }
            body(i);
        }
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
pub struct SendPtr<T>(pub *mut T);

impl<T> SendPtr<T> {
    /// The pointer itself.
    pub fn get(&self) -> *mut T {
        self.0
    }
}

// SAFETY: the pointer itself may move between threads; each dereference carries its own reason.
unsafe impl<T: Send> Send for SendPtr<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SendPtr<T> {}

type Job = *const (dyn Fn() + Sync);

/// Set in [`Pool::gate`] while workers may join the job.
const OPEN: usize = 1 << 16;
/// Added to the gate for each job, so that a worker joins a job at most once.
const NEXT_JOB: usize = 1 << 17;

struct Pool {
    /// How many workers are inside the job (low 16 bits), whether it is open, and its number.
    gate: AtomicUsize,
    /// Read by workers that are inside only; written while none is.
    job: UnsafeCell<Option<Job>>,
    /// Workers with an index below this may join.
    wanted: AtomicUsize,
    sleeping: AtomicUsize,
    bed: Mutex<()>,
    bell: Condvar,
    /// Held by the thread whose job it is; counts the workers that have been started.
    turn: Mutex<usize>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written by the holder of `turn` while the gate is closed and nobody is inside, and read by those inside only.
unsafe impl Sync for Pool {}

static POOL: Pool = Pool {
    gate: AtomicUsize::new(0),
    job: UnsafeCell::new(None),
    wanted: AtomicUsize::new(0),
    sleeping: AtomicUsize::new(0),
    bed: Mutex::new(()),
    bell: Condvar::new(),
    turn: Mutex::new(0),
    panic: Mutex::new(None),
};

impl Pool {
    /// The right to run a job, unless another thread has it.
    fn turn(&'static self) -> Option<Turn> {
        let started = match self.turn.try_lock() {
            Ok(started) => started,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return None,
        };
        INSIDE.set(true);
        Some(Turn { started })
    }

    /// Runs `work` here and on up to `workers` workers; returns when all of them have left it.
    fn run(&'static self, workers: usize, work: &(dyn Fn() + Sync)) {
        // SAFETY: only the lifetime changes. Workers use the pointer while they are inside, and `Closing` waits until none is.
        let job: Job = unsafe { std::mem::transmute::<*const (dyn Fn() + Sync + '_), *const (dyn Fn() + Sync)>(work) };
        // SAFETY: the caller holds the turn, the gate is closed and nobody is inside.
        unsafe { *self.job.get() = Some(job) };
        self.wanted.store(workers, Ordering::Relaxed);
        let gate = self.gate.load(Ordering::Relaxed);
        self.gate.store((gate + NEXT_JOB) | OPEN, Ordering::SeqCst);
        let closing = Closing(self);
        if self.sleeping.load(Ordering::SeqCst) > 0 {
            drop(self.bed.lock().unwrap_or_else(PoisonError::into_inner));
            self.bell.notify_all();
        }
        work();
        drop(closing);
        let panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn worker(&'static self, index: usize) {
        INSIDE.set(true);
        let mut last = 0;
        loop {
            let gate = self.wait(last, index);
            last = gate / NEXT_JOB;
            if self.gate.compare_exchange(gate, gate + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                // Another worker came in, or the job closed; look again at the same job.
                last = last.wrapping_sub(1);
                continue;
            }
            // SAFETY: this worker is inside, so the job is there and lives until it leaves.
            let job = unsafe { (*self.job.get()).map(|job| &*job) };
            if let Some(job) = job
                && let Err(panic) = catch_unwind(AssertUnwindSafe(job))
            {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
            self.gate.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for an open job other than number `last` that wants this worker; returns the gate as it was then.
    fn wait(&self, last: usize, index: usize) -> usize {
        let ready = || {
            let gate = self.gate.load(Ordering::SeqCst);
            (gate & OPEN != 0 && gate / NEXT_JOB != last && index < self.wanted.load(Ordering::Relaxed)).then_some(gate)
        };
        let start = Instant::now();
        loop {
            for _ in 0..64 {
                if let Some(gate) = ready() {
                    return gate;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() > PATIENCE {
                break;
            }
        }
        let mut bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        let gate = loop {
            if let Some(gate) = ready() {
                break gate;
            }
            bed = self.bell.wait(bed).unwrap_or_else(PoisonError::into_inner);
        };
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
        gate
    }
}

/// Closes the job and waits for the workers inside, also when the caller's own share panics.
struct Closing(&'static Pool);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.gate.fetch_and(!OPEN, Ordering::SeqCst);
        let mut spins = 0u32;
        while !self.0.gate.load(Ordering::Acquire).is_multiple_of(OPEN) {
            spins += 1;
            // A worker that the system has put aside needs the processor that this loop would burn.
            if spins.is_multiple_of(4096) {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

struct Turn {
    started: MutexGuard<'static, usize>,
}

impl Turn {
    /// Starts workers up to this many. With fewer than asked for, the caller does more of the work.
    fn start(&mut self, workers: usize) {
        while *self.started < workers {
            let index = *self.started;
            let spawned = std::thread::Builder::new().name(format!("danlu-{}", index + 1)).spawn(move || POOL.worker(index));
            if spawned.is_err() {
                break;
            }
            *self.started += 1;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_runs_once_at_any_number_of_threads() {
        for round in 0..200 {
            for count in [0, 1, 2, 7, 1000] {
                let seen: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                for_each(count, |i| {
                    seen[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(seen.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{count}");
            }
            if round % 50 == 0 {
                // Long enough for the workers to fall asleep.
                std::thread::sleep(Duration::from_millis(2));
            }
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

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_in_order() {
        for bad in [0, 3, 99] {
            let caught = catch_unwind(|| for_each(100, |i| assert_ne!(i, bad, "planned")));
            assert!(caught.is_err());
            let ran = AtomicUsize::new(0);
            for_each(100, |_| {
                ran.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(ran.into_inner(), 100);
        }
    }

    #[test]
    fn several_callers_at_once() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let sum = AtomicUsize::new(0);
                        for_each(50, |i| {
                            sum.fetch_add(i, Ordering::Relaxed);
                        });
                        assert_eq!(sum.into_inner(), 49 * 50 / 2);
                    }
                });
            }
        });
    }
}
