//! How long work tells its caller where it is; the caller draws it (a terminal bar, plain lines, nothing).

/// Receives the course of long work. Every method has an empty default, and `()` ignores everything.
pub trait Progress: Send {
    /// A stage begins ("read and clean", "find near-duplicates", …). `total` is in `unit`s, when known.
    fn start(&mut self, _stage: &str, _total: Option<u64>, _unit: &'static str) {}
    /// `done` units of the current stage are complete.
    fn at(&mut self, _done: u64) {}
    /// Something the user should read now, one line.
    fn note(&mut self, _line: &str) {}
}

impl Progress for () {}
