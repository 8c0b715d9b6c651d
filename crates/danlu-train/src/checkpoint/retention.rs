//! Which checkpoints stay.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Deletes what the rule does not keep: the newest `keep` stay, and those at a multiple of `keep_every`. Called only after a newer one
/// is safely on the disk.
///
/// # Errors
/// When a folder cannot be deleted.
pub fn retain(checkpoints: &Path, keep: usize, keep_every: Option<u64>) -> Result<()> {
    let steps = super::list(checkpoints)?;
    let old = &steps[..steps.len().saturating_sub(keep.max(1))];
    for (step, folder) in old {
        if keep_every.is_some_and(|every| step % every == 0) {
            continue;
        }
        // Renamed first, so that a crash in the middle of deleting leaves no half checkpoint under a real name.
        let hidden = folder.with_file_name(format!(".deleting-{step}"));
        fs::rename(folder, &hidden)
            .and_then(|()| fs::remove_dir_all(&hidden))
            .with_context(|| format!("cannot delete the old checkpoint {}", folder.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::list;
    use super::*;

    #[track_caller]
    fn check(keep: usize, keep_every: Option<u64>, left: &[u64]) {
        let dir = tempfile::tempdir().unwrap();
        for step in [10, 20, 30, 40, 50, 60] {
            fs::create_dir(dir.path().join(format!("step-{step:08}"))).unwrap();
        }
        retain(dir.path(), keep, keep_every).unwrap();
        let steps: Vec<u64> = list(dir.path()).unwrap().into_iter().map(|(step, _)| step).collect();
        assert_eq!(steps, left, "keep {keep}, every {keep_every:?}");
    }

    #[test]
    fn the_newest_and_the_milestones_stay() {
        check(2, None, &[50, 60]);
        check(1, Some(20), &[20, 40, 60]);
        check(9, None, &[10, 20, 30, 40, 50, 60]);
        check(0, None, &[60]);
    }
}
