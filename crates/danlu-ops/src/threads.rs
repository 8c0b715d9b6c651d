/// Sets how many threads the CPU forms use. Call it before the first operation: the pool is made once. Results do not depend
/// on the number. Returns whether it took effect.
pub fn set_threads(threads: usize) -> bool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().is_ok()
}

/// How many threads the CPU forms use.
pub fn threads() -> usize {
    rayon::current_num_threads()
}
