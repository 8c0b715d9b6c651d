//! Runs on disk, for whoever looks at them from outside: which there are, whether they are going on, their logs, and how they are asked to
//! stop. A run's process holds a lock in its folder for as long as it lives, so that a killed one is not taken for one that goes on.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::id::check_name;

const RECIPE: &str = "recipe.toml";
const RECORD: &str = "run.json";
const LOG: &str = "metrics.jsonl";
const LOCK: &str = ".lock";
const STOP: &str = ".stop";
/// Recipes and records are a few kilobytes.
const LIMIT: u64 = 1 << 20;
/// How much of a log is read at a time, in bytes.
const PIECE: u64 = 1 << 20;
/// The last of a log, in which its newest row is looked for.
const TAIL: u64 = 64 << 10;
/// More folders than anybody looks through.
const MOST: usize = 10_000;

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    Running,
    /// It was asked to stop and will, after its step.
    Stopping,
    /// It can be gone on with.
    Stopped,
    /// It made its model.
    Finished,
}

/// A run in a few words.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub name: String,
    pub state: RunState,
    /// The model it ended in.
    pub model: Option<String>,
    /// The newest row of its training.
    pub last: Option<Map<String, Value>>,
    /// When its log or record was written last, in seconds since 1970.
    pub updated: u64,
}

/// A piece of a log.
#[derive(Debug, Clone, Serialize)]
pub struct Rows {
    /// Where the piece begins: 0 where the place that was asked for is none in this log, since it has been cut.
    pub begin: u64,
    pub rows: Vec<Map<String, Value>>,
    /// From where to read on.
    pub end: u64,
    /// Whether there is more already.
    pub more: bool,
}

/// The runs under one danlu home.
pub struct Runs {
    folder: PathBuf,
}

impl Runs {
    pub fn of(home: &Path) -> Self {
        Self { folder: home.join("runs") }
    }

    /// All runs, what was written last first.
    ///
    /// # Errors
    /// When the folder cannot be read; none is no error.
    pub fn list(&self) -> Result<Vec<Run>> {
        if !self.folder.exists() {
            return Ok(vec![]);
        }
        let entries = fs::read_dir(&self.folder).with_context(|| format!("cannot read {}", self.folder.display()))?;
        let mut runs = vec![];
        for entry in entries.take(MOST) {
            // What has no recipe is not yet a run, or none.
            if let Some(name) = entry?.file_name().to_str()
                && let Ok(run) = self.show(name)
            {
                runs.push(run);
            }
        }
        runs.sort_by(|a, b| b.updated.cmp(&a.updated).then_with(|| a.name.cmp(&b.name)));
        Ok(runs)
    }

    /// The folder of a run.
    ///
    /// # Errors
    /// When there is no such run.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        let folder = self.folder.join(name);
        ensure!(folder.join(RECIPE).is_file(), "there is no run {name:?}");
        Ok(folder)
    }

    /// One run.
    ///
    /// # Errors
    /// When there is no such run.
    pub fn show(&self, name: &str) -> Result<Run> {
        let folder = self.folder(name)?;
        let record = self.record(name).unwrap_or(Value::Null);
        let model = record.get("model").and_then(Value::as_str).map(str::to_owned);
        let state = match (is_held(&folder), &model) {
            (true, _) if folder.join(STOP).exists() => RunState::Stopping,
            (true, _) => RunState::Running,
            (false, Some(_)) => RunState::Finished,
            (false, None) => RunState::Stopped,
        };
        let updated = [LOG, RECORD, RECIPE].iter().filter_map(|file| written(&folder.join(file))).max().unwrap_or(0);
        Ok(Run { name: name.to_owned(), state, model, last: newest(&folder.join(LOG)), updated })
    }

    /// Its recipe, as it was begun with.
    ///
    /// # Errors
    /// When there is no such run, or the file cannot be read.
    pub fn recipe(&self, name: &str) -> Result<String> {
        danlu_files::read_text_bounded(&self.folder(name)?.join(RECIPE), LIMIT)
    }

    /// `run.json`.
    ///
    /// # Errors
    /// When there is no such run, or the file cannot be read.
    pub fn record(&self, name: &str) -> Result<Value> {
        let path = self.folder(name)?.join(RECORD);
        let text = danlu_files::read_text_bounded(&path, LIMIT)?;
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// The rows of a run's log from the byte `from` on, a piece of at most one megabyte. A row that is still being written is left for later.
    ///
    /// # Errors
    /// When there is no such run, or its log is none.
    pub fn rows(&self, name: &str, from: u64) -> Result<Rows> {
        let path = self.folder(name)?.join(LOG);
        if !path.exists() {
            return Ok(Rows { begin: 0, rows: vec![], end: 0, more: false });
        }
        let mut file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let begin = if ends_row(&mut file, from)? { from } else { 0 };
        file.seek(SeekFrom::Start(begin))?;
        let mut bytes = vec![];
        (&mut file).take(PIECE).read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let more = bytes.len() as u64 == PIECE;
        ensure!(whole > 0 || !more, "{} has a line of more than {PIECE} bytes, so it is no log of a run", path.display());
        let rows = bytes[..whole].split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        Ok(Rows { begin, rows, end: begin + whole as u64, more })
    }

    /// Asks a run to save and stop, as Ctrl-C does.
    ///
    /// # Errors
    /// When there is no such run, or its folder cannot be written.
    pub fn ask_to_stop(&self, name: &str) -> Result<()> {
        let path = self.folder(name)?.join(STOP);
        File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }
}

/// A run's folder, held by the process that trains it; let go when this is dropped, or the process ends.
pub struct Held {
    folder: PathBuf,
    _lock: File,
}

impl Held {
    /// Takes the folder, and forgets that it was asked to stop before.
    ///
    /// # Errors
    /// When another process has it, or it cannot be written.
    pub fn take(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
        let path = folder.join(LOCK);
        let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        // Whoever looks whether it is held holds it for an instant.
        for attempt in 0.. {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if attempt < 20 => std::thread::sleep(Duration::from_millis(50)),
                Err(TryLockError::WouldBlock) => bail!("{} is being trained by another process", folder.display()),
                Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("cannot lock {}", path.display())),
            }
        }
        let held = Self { folder: folder.to_path_buf(), _lock: lock };
        held.asked_to_stop();
        Ok(held)
    }

    /// Whether the run was asked to stop since this was last called.
    pub fn asked_to_stop(&self) -> bool {
        fs::remove_file(self.folder.join(STOP)).is_ok()
    }
}

fn is_held(folder: &Path) -> bool {
    // Where locks do not work, nothing is known to go on.
    OpenOptions::new()
        .read(true)
        .open(folder.join(LOCK))
        .is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn written(path: &Path) -> Option<u64> {
    let at = fs::metadata(path).ok()?.modified().ok()?;
    Some(at.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// Whether a row ends right before the byte `at`, or `at` is the beginning.
fn ends_row(file: &mut File, at: u64) -> Result<bool> {
    if at == 0 || at > file.metadata()?.len() {
        return Ok(at == 0);
    }
    file.seek(SeekFrom::Start(at - 1))?;
    let mut byte = [0];
    file.read_exact(&mut byte)?;
    Ok(byte == *b"\n")
}

/// The newest row of training.
fn newest(log: &Path) -> Option<Map<String, Value>> {
    let mut file = File::open(log).ok()?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL))).ok()?;
    let mut bytes = vec![];
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    let mut rows = bytes.rsplit(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    rows.find(|row: &Map<String, Value>| row.get("kind").and_then(Value::as_str) == Some("train"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(home: &Path, name: &str) -> PathBuf {
        let folder = home.join("runs").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(RECIPE), "name = \"a\"\n").unwrap();
        fs::write(folder.join(RECORD), "{\"model_name\": \"a\", \"model\": null}").unwrap();
        folder
    }

    #[test]
    fn a_run_is_what_its_folder_says() {
        let home = tempfile::tempdir().unwrap();
        let runs = Runs::of(home.path());
        assert!(runs.list().unwrap().is_empty());
        let folder = run(home.path(), "a");
        fs::create_dir_all(home.path().join("runs/empty")).unwrap();
        let state = || runs.show("a").unwrap().state;
        assert_eq!(state(), RunState::Stopped);
        let held = Held::take(&folder).unwrap();
        assert_eq!(state(), RunState::Running);
        assert!(!held.asked_to_stop());
        runs.ask_to_stop("a").unwrap();
        assert_eq!(state(), RunState::Stopping);
        assert!(held.asked_to_stop() && !held.asked_to_stop());
        assert!(Held::take(&folder).is_err(), "it is held");
        drop(held);
        runs.ask_to_stop("a").unwrap();
        assert!(!Held::take(&folder).unwrap().asked_to_stop(), "an old request is forgotten");
        fs::write(folder.join(RECORD), "{\"model\": \"a@1\"}").unwrap();
        assert_eq!(state(), RunState::Finished);
        let names: Vec<String> = runs.list().unwrap().into_iter().map(|run| run.name).collect();
        assert_eq!(names, ["a"]);
        for name in ["", "..", "../a", "a/b", ".lock", "none"] {
            assert!(runs.show(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_log_is_read_as_it_grows() {
        let home = tempfile::tempdir().unwrap();
        let runs = Runs::of(home.path());
        let log = run(home.path(), "a").join(LOG);
        assert!(runs.rows("a", 7).unwrap().rows.is_empty());
        let row = |step: u64| format!("{{\"step\":{step},\"kind\":\"train\",\"loss\":1.5}}\n");
        fs::write(&log, row(1) + "{\"step\":2,\"ki").unwrap();
        let first = runs.rows("a", 0).unwrap();
        assert_eq!((first.rows.len(), first.end, first.more), (1, row(1).len() as u64, false));
        fs::write(&log, row(1) + &row(2) + &row(3)).unwrap();
        let second = runs.rows("a", first.end).unwrap();
        assert_eq!((second.begin, second.rows.len(), second.rows[1]["step"].as_u64()), (first.end, 2, Some(3)));
        assert_eq!(runs.show("a").unwrap().last.unwrap()["step"], 3);
        // A resumed run has cut its log.
        fs::write(&log, row(1)).unwrap();
        assert_eq!(runs.rows("a", second.end).unwrap().begin, 0);
        assert_eq!(runs.rows("a", 5).unwrap().begin, 0, "in the middle of a row");
        fs::write(&log, row(1).repeat(40_000)).unwrap();
        let piece = runs.rows("a", 0).unwrap();
        assert!(piece.more && piece.end <= PIECE && piece.rows.len() > 20_000);
        fs::write(&log, "x".repeat(2 << 20)).unwrap();
        assert!(runs.rows("a", 0).is_err());
    }
}
