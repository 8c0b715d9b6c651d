//! API keys: random, shown once, kept as hashes with their rates.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use blake3::Hash;

use crate::rates::{Allowance, Rates};

/// A file of keys is small.
const LIMIT: u64 = 1 << 20;

/// The keys that are let in. A key has 256 random bits, so that its plain hash tells nothing about it.
#[derive(Debug, Default)]
pub struct Keys {
    keys: Vec<Key>,
}

/// A key that is let in.
#[derive(Debug)]
pub struct Key {
    pub name: String,
    hash: Hash,
    rates: Rates,
    /// What is left of its rates; it begins anew when the server does.
    pub allowance: Arc<Allowance>,
}

const REQUESTS: &str = "requests_per_minute";
const TOKENS: &str = "tokens_per_minute";

impl Key {
    fn new(name: String, hash: Hash, rates: Rates) -> Self {
        Self { name, hash, rates, allowance: Arc::new(Allowance::new(rates, Instant::now())) }
    }

    /// `name hash`, and then `requests_per_minute=60` and `tokens_per_minute=20000` where it has such rates.
    fn parse(line: &str) -> Result<Self> {
        let mut words = line.split_whitespace();
        let (Some(name), Some(Ok(hash))) = (words.next(), words.next().map(Hash::from_hex)) else {
            bail!("is not a name and a hash");
        };
        let mut rates = Rates::default();
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let value = value.parse::<u32>().ok().filter(|value| *value > 0);
            match key {
                REQUESTS => rates.requests = Some(value.with_context(|| format!("has no whole number above 0 in {word:?}"))?),
                TOKENS => rates.tokens = Some(value.with_context(|| format!("has no whole number above 0 in {word:?}"))?),
                _ => bail!("has {word:?} after the hash; {REQUESTS}=N and {TOKENS}=N are known"),
            }
        }
        Ok(Self::new(name.to_owned(), hash, rates))
    }

    fn line(&self) -> String {
        let mut line = format!("{} {}", self.name, self.hash.to_hex());
        for (key, rate) in [(REQUESTS, self.rates.requests), (TOKENS, self.rates.tokens)] {
            if let Some(rate) = rate {
                // Writing to a string does not fail.
                let _ = write!(line, " {key}={rate}");
            }
        }
        line + "\n"
    }
}

impl Keys {
    /// Reads a file with a name, a hash and rates in each line; lines that begin with `#` are comments.
    ///
    /// # Errors
    /// Names the line that is none of these, or says that there is no key.
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
            let key = Key::parse(line).map_err(|error| error.context(format!("{}:{} is no key", path.display(), i + 1)))?;
            keys.push(key);
        }
        Ok(Self { keys })
    }

    /// Makes a key called `name` with these rates, adds its hash to the file, which is created when missing, and returns the key, which is
    /// kept nowhere.
    ///
    /// # Errors
    /// When the name is taken or has a space, a rate is zero, or the file cannot be read or written.
    pub fn create(path: &Path, name: &str, rates: Rates) -> Result<String> {
        ensure!(
            !name.is_empty() && !name.starts_with('#') && !name.contains(char::is_whitespace),
            "{name:?} cannot be the name of a key: it must have no spaces and not begin with #"
        );
        ensure!(
            rates.requests != Some(0) && rates.tokens != Some(0),
            "a rate of 0 would let nothing in; leave the key out instead"
        );
        let mut keys = if path.exists() { Self::parse(path)?.keys } else { vec![] };
        ensure!(keys.iter().all(|known| known.name != name), "{} has a key {name} already", path.display());
        let secret = blake3::Hash::from_bytes(rand::random());
        let key = format!("sk-danlu-{}", secret.to_hex());
        keys.push(Key::new(name.to_owned(), blake3::hash(key.as_bytes()), rates));
        let lines: String = keys.iter().map(Key::line).collect();
        let text = format!(
            "# API keys of danlu, as BLAKE3 hashes; remove a line to withdraw its key. After the hash may stand its rates:\n\
             # {REQUESTS}=60 {TOKENS}=20000\n{lines}"
        );
        danlu_files::write_atomic_bytes(path, text.as_bytes())?;
        Ok(key)
    }

    /// Which key it is, in a time that does not depend on how much of it is right.
    pub fn find(&self, key: &str) -> Option<&Key> {
        let hash = blake3::hash(key.as_bytes());
        // Hashes compare in constant time, and all are compared.
        self.keys.iter().fold(None, |found, known| if known.hash == hash { Some(known) } else { found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_kept_as_a_hash_and_recognized() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let ann = Keys::create(&path, "ann", Rates::default()).unwrap();
        let rates = Rates { requests: Some(3), tokens: Some(500) };
        let bob = Keys::create(&path, "bob", rates).unwrap();
        Keys::create(&path, "carl", Rates { tokens: Some(7), ..Rates::default() }).unwrap();
        assert!(Keys::create(&path, "ann", rates).unwrap_err().to_string().contains("has a key ann already"));
        assert!(Keys::create(&path, "a b", rates).is_err() && Keys::create(&path, "#a", rates).is_err());
        assert!(Keys::create(&path, "dora", Rates { requests: Some(0), tokens: None }).is_err());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&ann) && !text.contains(&ann["sk-danlu-".len()..]));
        let keys = Keys::read(&path).unwrap();
        let known = |key: &str| keys.find(key).map(|key| (key.name.as_str(), key.rates));
        assert_eq!((known(&ann), known(&bob)), (Some(("ann", Rates::default())), Some(("bob", rates))));
        assert!(known("sk-danlu-0").is_none() && known("").is_none());
    }

    #[test]
    fn a_line_that_is_no_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let refused = |text: String| {
            std::fs::write(&path, text).unwrap();
            format!("{:#}", Keys::read(&path).unwrap_err())
        };
        assert!(refused("# nothing\n".to_owned()).contains("--new-api-key"));
        assert!(refused("# one\nann 1234\n".to_owned()).contains("keys:2"));
        let hash = "0".repeat(64);
        for (rate, says) in [("tokens_per_minute=0", "above 0"), ("requests_per_minute=many", "above 0"), ("weeks=1", "weeks=1")]
        {
            let message = refused(format!("ann {hash} {rate}\n"));
            assert!(message.contains("keys:1") && message.contains(says), "{message}");
        }
    }
}
