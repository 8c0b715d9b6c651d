//! Checkpoints: a folder per step that is written whole or not at all, checked when read, and thrown away by a rule.

mod retention;
mod state;
mod tensors;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use danlu_files::{hash_file, read_bounded, read_text_bounded, write_folder_atomic};

pub use retention::retain;
pub use state::{FileHash, State};
pub use tensors::{NamedTensor, Pending, Values, read_tensors, write_tensors};

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
/// The checksum of [`STATE`], which holds those of the others.
const STATE_SUM: &str = "state.blake3";

/// What a run is at one step.
#[derive(Debug)]
pub struct Checkpoint {
    pub folder: PathBuf,
    pub state: State,
    pub model: Vec<NamedTensor>,
    pub optimizer: Vec<NamedTensor>,
}

/// Writes `checkpoints/step-00001000`; when it returns, everything is on the disk under its final name.
///
/// # Errors
/// The file system's. Checkpoints written before are untouched then.
pub fn save(checkpoints: &Path, mut state: State, model: &[Pending], optimizer: &[Pending]) -> Result<PathBuf> {
    let folder = checkpoints.join(folder_name(state.step));
    write_folder_atomic(&folder, |dir| {
        let mut files = BTreeMap::new();
        for (name, tensors) in [(MODEL, model), (OPTIMIZER, optimizer)] {
            let path = dir.join(name);
            write_tensors(&path, tensors)?;
            files.insert(name.to_string(), FileHash { bytes: fs::metadata(&path)?.len(), blake3: hash_file(&path)? });
        }
        state.files = files;
        let (text, sum) = state.to_json()?;
        fs::write(dir.join(STATE_SUM), sum)?;
        Ok(fs::write(dir.join(STATE), text)?)
    })
    .with_context(|| format!("the checkpoint of step {} was not saved", state.step))?;
    Ok(folder)
}

/// The newest checkpoint that is intact. Each one that is not is passed to `damaged` with the reason, and the one before it is tried;
/// nothing is deleted.
///
/// # Errors
/// When the folder cannot be listed, or there are checkpoints and none is intact.
pub fn latest(checkpoints: &Path, mut damaged: impl FnMut(&Path, &anyhow::Error)) -> Result<Option<Checkpoint>> {
    let steps = list(checkpoints)?;
    for (_, folder) in steps.iter().rev() {
        match load(folder) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(reason) => damaged(folder, &reason),
        }
    }
    if !steps.is_empty() {
        bail!("none of the {} checkpoints in {} is intact", steps.len(), checkpoints.display());
    }
    Ok(None)
}

/// Reads one checkpoint and verifies it.
///
/// # Errors
/// The first file that is missing, cut, changed or not what it should be.
pub fn load(folder: &Path) -> Result<Checkpoint> {
    let (text, sum) = (read_text_bounded(&folder.join(STATE), 1 << 24)?, read_text_bounded(&folder.join(STATE_SUM), 1 << 10)?);
    let state = State::from_json(&text, &sum).with_context(|| format!("{} is damaged", folder.join(STATE).display()))?;
    let read = |name: &str| -> Result<Vec<NamedTensor>> {
        let path = folder.join(name);
        let expected = state.files.get(name).with_context(|| format!("{} does not list {name}", folder.join(STATE).display()))?;
        let size = fs::metadata(&path).with_context(|| format!("cannot open {}", path.display()))?.len();
        ensure!(size == expected.bytes, "{} has {size} bytes, {} were written", path.display(), expected.bytes);
        let bytes = read_bounded(&path, expected.bytes)?;
        let hash = danlu_files::hash_bytes(&bytes);
        ensure!(hash == expected.blake3, "{} has changed since it was written: its checksum differs", path.display());
        read_tensors(&bytes).with_context(|| format!("{} is not a safetensors file of ours", path.display()))
    };
    let (model, optimizer) = (read(MODEL)?, read(OPTIMIZER)?);
    Ok(Checkpoint { folder: folder.to_path_buf(), state, model, optimizer })
}

/// The checkpoints of a run with their steps, oldest first. A folder that does not exist has none.
pub fn list(checkpoints: &Path) -> Result<Vec<(u64, PathBuf)>> {
    if !checkpoints.exists() {
        return Ok(vec![]);
    }
    let mut steps = Vec::new();
    for entry in fs::read_dir(checkpoints).with_context(|| format!("cannot list {}", checkpoints.display()))? {
        let entry = entry?;
        let step = entry.file_name().to_str().and_then(|name| name.strip_prefix("step-")?.parse().ok());
        steps.extend(step.map(|step: u64| (step, entry.path())));
    }
    steps.sort();
    Ok(steps)
}

fn folder_name(step: u64) -> String {
    format!("step-{step:08}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors(step: u64) -> Vec<NamedTensor> {
        // Values that a careless conversion would change.
        let special = [f32::MIN_POSITIVE / 2.0, -0.0, 1.0 / 3.0, step as f32, f32::MAX, 1e-42];
        vec![
            NamedTensor { name: "a.bias".into(), shape: vec![1], data: Values::F32(vec![step as f32]) },
            NamedTensor { name: "b.weight".into(), shape: vec![2, 3], data: Values::F32(special.to_vec()) },
            NamedTensor {
                name: "b.weight.exp_avg".into(),
                shape: vec![2, 3],
                data: Values::U8(vec![0, 255, 128, 1, 127, step as u8]),
            },
        ]
    }

    fn pending(tensors: Vec<NamedTensor>) -> Vec<Pending<'static>> {
        let one = |NamedTensor { name, shape, data }: NamedTensor| {
            let bytes = matches!(data, Values::U8(_));
            Pending { name, shape, bytes, read: Box::new(move || Ok(data.clone())) }
        };
        tensors.into_iter().map(one).collect()
    }

    fn saved(dir: &Path, steps: &[u64]) {
        for &step in steps {
            let state = State { step, position: step * 8, ..State::default() };
            save(dir, state, &pending(tensors(step)), &pending(tensors(step + 1))).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_read_or_has_another_size_leaves_no_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let save = |tensor: Pending| save(dir.path(), State::default(), &[tensor], &[]).map_err(|error| format!("{error:#}"));
        let tensor = |read| Pending { name: "a.bias".into(), shape: vec![2], bytes: false, read };
        let error = save(tensor(Box::new(|| bail!("it is lost")))).unwrap_err();
        assert!(error.contains("a.bias cannot be read") && error.contains("it is lost"), "{error}");
        let error = save(tensor(Box::new(|| Ok(Values::F32(vec![1.0]))))).unwrap_err();
        assert!(error.contains("a.bias has 4 bytes; its shape needs 8"), "{error}");
        assert!(list(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn what_is_saved_is_read_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        saved(dir.path(), &[7]);
        let read = latest(dir.path(), |_, e| panic!("{e:#}")).unwrap().unwrap();
        assert_eq!((read.state.step, read.state.position), (7, 56));
        for (written, read) in tensors(7).iter().chain(&tensors(8)).zip(read.model.iter().chain(&read.optimizer)) {
            assert_eq!((&written.name, &written.shape), (&read.name, &read.shape));
            let bits = |t: &NamedTensor| match &t.data {
                Values::F32(data) => data.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                Values::U8(data) => data.iter().map(|&x| x.into()).collect(),
            };
            assert_eq!(bits(written), bits(read));
        }
    }

    /// Damages the newest of three checkpoints; the one before must be used and the damage reported.
    #[track_caller]
    fn check(damage: impl Fn(&Path), message: &str) {
        let dir = tempfile::tempdir().unwrap();
        saved(dir.path(), &[1, 2, 3]);
        damage(&dir.path().join(folder_name(3)));
        let mut reports = Vec::new();
        let read =
            latest(dir.path(), |folder, reason| reports.push((folder.to_path_buf(), format!("{reason:#}")))).unwrap().unwrap();
        assert_eq!(read.state.step, 2);
        assert_eq!(reports.len(), 1);
        assert!(reports[0].0.ends_with("step-00000003") && reports[0].1.contains(message), "{reports:?} lacks {message:?}");
        assert!(dir.path().join(folder_name(3)).exists(), "evidence is not deleted");
    }

    #[test]
    fn a_damaged_checkpoint_is_passed_over() {
        let edit = |file: &'static str, edit: fn(&mut Vec<u8>)| {
            move |folder: &Path| {
                let mut bytes = fs::read(folder.join(file)).unwrap();
                edit(&mut bytes);
                fs::write(folder.join(file), bytes).unwrap();
            }
        };
        check(edit(MODEL, |b| b.truncate(b.len() - 3)), "bytes");
        check(edit(MODEL, |b| *b.last_mut().unwrap() ^= 1), "checksum");
        check(edit(OPTIMIZER, |b| b[0] ^= 0x80), "checksum");
        check(edit(STATE, |b| b.truncate(20)), "state.json");
        check(edit(STATE, |b| b[0] = 0xff), "UTF-8");
        check(edit(STATE, |b| *b = b"{}".to_vec()), "state.json");
        check(edit(STATE_SUM, |b| b.clear()), "state.json");
        check(|folder| fs::remove_file(folder.join(OPTIMIZER)).unwrap(), "cannot open");
    }

    #[test]
    fn no_checkpoint_is_none_and_only_damaged_ones_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(latest(&dir.path().join("none"), |_, _| ()).unwrap().is_none());
        saved(dir.path(), &[1]);
        fs::write(dir.path().join(folder_name(1)).join(STATE), "{").unwrap();
        assert!(latest(dir.path(), |_, _| ()).unwrap_err().to_string().contains("none of the 1"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(bytes: Vec<u8>, text: String, cut in 0usize..400, flip in 0usize..3200) {
            let _ = read_tensors(&bytes);
            let _ = State::from_json(&text, &danlu_files::hash_bytes(text.as_bytes()));
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a");
            write_tensors(&path, &pending(tensors(3))).unwrap();
            let mut bytes = fs::read(&path).unwrap();
            let bit = flip % (8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = read_tensors(&bytes);
            let _ = read_tensors(&bytes[..cut.min(bytes.len())]);
        }
    }

    #[test]
    fn an_unfinished_folder_is_not_a_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        saved(dir.path(), &[1]);
        fs::create_dir(dir.path().join(".step-00000009.1.tmp")).unwrap();
        fs::write(dir.path().join("notes"), "").unwrap();
        assert_eq!(list(dir.path()).unwrap().len(), 1);
    }
}
