//! Durable files: every file of danlu is written to a temporary name, synced and renamed, so that a crash at any instant leaves
//! either the old file or the new one.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Writes `path` through `fill`: a temporary file beside it, then sync, then rename over it. The directory is created when missing.
///
/// # Errors
/// Whatever `fill` returns, or the file system's error with the path. The old file is untouched then.
pub fn write_atomic(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let dir = parent(path);
    fs::create_dir_all(dir).with_context(|| format!("cannot create the folder {}", dir.display()))?;
    let temporary = temporary_name(path);
    let written = (|| {
        let file = File::create(&temporary).with_context(|| format!("cannot write {}", temporary.display()))?;
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        fill(&mut writer)?;
        let file = writer.into_inner().map_err(|e| e.into_error())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_dir(dir)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| format!("{} was not written; what was there before is unchanged", path.display()))
}

/// [`write_atomic`] for bytes already in memory.
pub fn write_atomic_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic(path, |file| Ok(file.write_all(bytes)?))
}

/// Fills a folder under a temporary name beside `path`, syncs every file in it, and renames it to `path`. A folder already there is
/// replaced. Readers see the whole folder or none of it.
pub fn write_folder_atomic(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let dir = parent(path);
    fs::create_dir_all(dir).with_context(|| format!("cannot create the folder {}", dir.display()))?;
    let temporary = temporary_name(path);
    let _ = fs::remove_dir_all(&temporary);
    let written = (|| {
        fs::create_dir(&temporary).with_context(|| format!("cannot create the folder {}", temporary.display()))?;
        fill(&temporary)?;
        sync_tree(&temporary)?;
        if path.exists() {
            let old = temporary.with_extension("old");
            fs::rename(path, &old)?;
            fs::rename(&temporary, path)?;
            fs::remove_dir_all(&old)?;
        } else {
            fs::rename(&temporary, path)?;
        }
        sync_dir(dir)
    })();
    if written.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    written.with_context(|| format!("{} was not written", path.display()))
}

/// Reads a whole file that must not be larger than `limit` bytes.
///
/// # Errors
/// When the file cannot be read, or is larger; nothing is allocated for a file that is too large.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let size = file.metadata()?.len();
    if size > limit {
        bail!("{} has {size} bytes; at most {limit} are read from a file of this kind", path.display());
    }
    let mut bytes = Vec::with_capacity(size as usize);
    // The file may grow while it is read, so the reader is bounded as well as the size.
    file.take(limit).read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
}

/// [`read_bounded`] for UTF-8 text.
pub fn read_text_bounded(path: &Path, limit: u64) -> Result<String> {
    String::from_utf8(read_bounded(path, limit)?).map_err(|e| {
        anyhow::anyhow!("{} is not UTF-8: the first bad byte is at offset {}", path.display(), e.utf8_error().valid_up_to())
    })
}

/// BLAKE3 of a file's contents, in hexadecimal, read in pieces.
pub fn hash_file(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    hasher.update_reader(file).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// BLAKE3 of bytes, in hexadecimal.
pub fn hash_bytes(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// The folder danlu keeps everything in: `$DANLU_HOME`, or `~/.danlu`.
///
/// # Errors
/// When neither `DANLU_HOME` nor the user's home folder is known.
pub fn home() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("DANLU_HOME").filter(|p| !p.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    std::env::home_dir()
        .map(|home| home.join(".danlu"))
        .context("no home folder is known; set DANLU_HOME to the folder danlu may use")
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Beside the target, hidden, and of this process, so that two writers never share a temporary file.
fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)?.sync_all()?;
    Ok(())
}

fn sync_tree(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_atomic_bytes(&path, b"old").unwrap();
        let failed = write_atomic(&path, |file| {
            file.write_all(b"half")?;
            bail!("no more")
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the temporary file is gone");
    }

    #[test]
    fn a_folder_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        for name in ["one", "two"] {
            write_folder_atomic(&path, |folder| Ok(fs::write(folder.join(name), name)?)).unwrap();
        }
        assert!(!path.join("one").exists());
        assert_eq!(fs::read(path.join("two")).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_over_its_limit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, b"12345").unwrap();
        let message = read_bounded(&path, 4).unwrap_err().to_string();
        assert!(message.contains("5 bytes") && message.contains("at most 4"), "{message}");
        assert_eq!(read_bounded(&path, 5).unwrap(), b"12345");
    }
}
