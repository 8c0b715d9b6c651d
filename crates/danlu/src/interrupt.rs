//! Ctrl-C: the first asks the work to save and stop, the second ends the program at once.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C, a termination signal and a closed terminal are requests to stop.
///
/// # Errors
/// When it is called twice, or the system refuses.
pub fn install() -> Result<()> {
    ctrlc::set_handler(request).context("cannot listen for Ctrl-C")
}

/// Asks to stop, as Ctrl-C does; a live view that reads keys calls it.
pub fn request() {
    if ASKED.swap(true, Ordering::SeqCst) {
        ratatui::restore();
        std::process::exit(130);
    }
}

/// Becomes true with the first request.
pub fn flag() -> &'static AtomicBool {
    &ASKED
}

pub fn requested() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// Forgets a request that was answered, so that an interactive prompt can go on.
pub fn clear() {
    ASKED.store(false, Ordering::SeqCst);
}
