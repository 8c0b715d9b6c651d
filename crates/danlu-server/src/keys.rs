//! API keys: random, shown once, kept as hashes.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use blake3::Hash;

/// A file of keys is small.
const LIMIT: u64 = 1 << 20;

/// The keys that are let in. A key has 256 random bits, so that its plain hash tells nothing about it.
#[derive(Debug, Default)]
pub struct Keys {
    keys: Vec<(String, Hash)>,
}

impl Keys {
    /// Reads a file with a name and a hash in each line; lines that begin with `#` are comments.
    ///
    /// # Errors
    /// Names the line that is neither, or says that there is no key.
    pub fn read(path: &Path) -> Result<Self> {
        let keys = Self::parse(path)?;
        ensure!(
            !keys.keys.is_empty(),
            "{} holds no key; `danlu serve --api-key-file {} --new-api-key NAME` makes one",
            path.display(),
            path.display()
        );
        Ok(keys)
    }

    fn parse(path: &Path) -> Result<Self> {
        let text = danlu_files::read_text_bounded(path, LIMIT)?;
        let mut keys = vec![];
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
            let key = line.split_once(' ').and_then(|(name, hash)| Some((name.to_owned(), Hash::from_hex(hash.trim()).ok()?)));
            keys.push(key.with_context(|| format!("{}:{} is not a name and a hash", path.display(), i + 1))?);
        }
        Ok(Self { keys })
    }

    /// Makes a key called `name`, adds its hash to the file, which is created when missing, and returns the key, which is kept nowhere.
    ///
    /// # Errors
    /// When the name is taken or has a space, or the file cannot be read or written.
    pub fn create(path: &Path, name: &str) -> Result<String> {
        ensure!(
            !name.is_empty() && !name.starts_with('#') && !name.contains(char::is_whitespace),
            "{name:?} cannot be the name of a key: it must have no spaces and not begin with #"
        );
        let mut keys = if path.exists() { Self::parse(path)?.keys } else { vec![] };
        ensure!(keys.iter().all(|(known, _)| known != name), "{} has a key {name} already", path.display());
        let secret = blake3::Hash::from_bytes(rand::random());
        let key = format!("sk-danlu-{}", secret.to_hex());
        keys.push((name.to_owned(), blake3::hash(key.as_bytes())));
        let lines: String = keys.iter().map(|(name, hash)| format!("{name} {}\n", hash.to_hex())).collect();
        let text = format!("# API keys of danlu, as BLAKE3 hashes; remove a line to withdraw its key.\n{lines}");
        danlu_files::write_atomic_bytes(path, text.as_bytes())?;
        Ok(key)
    }

    /// The name of a key, in a time that does not depend on how much of it is right.
    pub fn name_of(&self, key: &str) -> Option<&str> {
        let hash = blake3::hash(key.as_bytes());
        // Hashes compare in constant time, and all are compared.
        self.keys.iter().fold(None, |found, (name, known)| if *known == hash { Some(name.as_str()) } else { found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_kept_as_a_hash_and_recognized() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let ann = Keys::create(&path, "ann").unwrap();
        let bob = Keys::create(&path, "bob").unwrap();
        assert!(Keys::create(&path, "ann").unwrap_err().to_string().contains("has a key ann already"));
        assert!(Keys::create(&path, "a b").is_err() && Keys::create(&path, "#a").is_err());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&ann) && !text.contains(&ann["sk-danlu-".len()..]));
        let keys = Keys::read(&path).unwrap();
        assert_eq!((keys.name_of(&ann), keys.name_of(&bob), keys.name_of("sk-danlu-0")), (Some("ann"), Some("bob"), None));
        std::fs::write(&path, "# nothing\n").unwrap();
        assert!(Keys::read(&path).unwrap_err().to_string().contains("--new-api-key"));
        std::fs::write(&path, "ann 1234\n").unwrap();
        assert!(Keys::read(&path).unwrap_err().to_string().contains("keys:1"));
    }
}
