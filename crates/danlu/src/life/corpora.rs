//! From what a recipe names as a source to a corpus that is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use danlu_data::corpus::{self, Corpus};
use danlu_data::source::{Source, resolve};
use danlu_data::{AddOptions, HeldOut, Progress, add, catalogue};

/// What a corpus is asked to be.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// A corpus already added, an entry of the catalogue, `crates`, a file, a folder or a glob.
    pub source: &'a str,
    pub held_out: f64,
    pub seed: u64,
}

/// The corpus of `wanted.source`, made now when it is not there yet. A path whose files have changed since is read again.
///
/// # Errors
/// When the source cannot be found, fetched or read.
pub fn corpus(home: &Path, wanted: &Wanted, progress: &mut dyn Progress) -> Result<Corpus> {
    let (name, source) = identify(home, wanted.source)?;
    let Some(source) = source else { return Corpus::open_in(home, &name) };
    let stamp_file = home.join("cache").join("stamps").join(&name);
    let stamp = match &source {
        Kind::Path(path) => Some(stamp(path)?),
        Kind::Catalogue | Kind::Crates => None,
    };
    let fresh = stamp.is_none() || fs::read_to_string(&stamp_file).ok() == stamp;
    if fresh && let Ok(corpus) = Corpus::open_in(home, &name) {
        return Ok(corpus);
    }
    let source = match source {
        Kind::Path(path) => Source::Path(path),
        Kind::Crates => Source::Crates,
        Kind::Catalogue => fetch(home, &name, progress)?,
    };
    let options = AddOptions {
        home: home.to_path_buf(),
        seed: wanted.seed,
        held_out: HeldOut { fraction: wanted.held_out, ..HeldOut::default() },
        ..AddOptions::new(&name, vec![source])?
    };
    let report = add(&options, progress)?;
    progress.note(&format!(
        "{} documents kept of {} read; danlu data show {name} says what was dropped and why",
        report.train.documents + report.held_out.documents,
        report.read.documents
    ));
    if let Some(stamp) = stamp {
        danlu_files::write_atomic_bytes(&stamp_file, stamp.as_bytes())?;
    }
    Corpus::open_in(home, &name)
}

enum Kind {
    Catalogue,
    Crates,
    Path(String),
}

/// The name of the corpus for a source, and how it is made; nothing when it was added by hand under that name.
fn identify(home: &Path, source: &str) -> Result<(String, Option<Kind>)> {
    if source == "crates" {
        return Ok((source.into(), Some(Kind::Crates)));
    }
    if is_entry(source)? {
        return Ok((source.into(), Some(Kind::Catalogue)));
    }
    if corpus::list(home)?.iter().any(|corpus| corpus.manifest.name == source) {
        return Ok((source.into(), None));
    }
    let path = std::path::absolute(expand(source))?.display().to_string();
    // The folder's name is for people, the hash keeps apart what has the same name.
    let plain = |c: char| if c.is_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
    let stem: String = Path::new(&path).file_stem().unwrap_or_default().to_string_lossy().chars().map(plain).take(40).collect();
    let stem = stem.trim_matches('-');
    let name = format!("{}-{}", if stem.is_empty() { "text" } else { stem }, &danlu_files::hash_bytes(path.as_bytes())[..8]);
    Ok((name, Some(Kind::Path(path))))
}

/// Whether the catalogue has text of this name.
///
/// # Errors
/// When the catalogue itself is damaged.
pub fn is_entry(name: &str) -> Result<bool> {
    Ok(catalogue::entries()?.iter().any(|entry| entry.name == name && entry.kind == catalogue::Kind::Text))
}

/// An entry of the catalogue as files on this machine.
///
/// # Errors
/// When none of the places it can be had from can be reached.
pub fn fetch(home: &Path, name: &str, progress: &mut dyn Progress) -> Result<Source> {
    let fetched = catalogue::fetch_in(&home.join("cache"), &catalogue::find(name)?, progress);
    Ok(fetched.with_context(|| format!("{name} cannot be fetched"))?.source)
}

/// Shells leave `~` alone inside quotes and recipes.
fn expand(source: &str) -> PathBuf {
    match (source.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(source),
    }
}

/// Changes when a file is added, removed or edited.
fn stamp(path: &str) -> Result<String> {
    let files = resolve(&[Source::Path(path.to_string())], &[])?.files;
    let mut text = String::new();
    for file in files {
        let modified = fs::metadata(&file.path).and_then(|about| about.modified()).ok();
        let at = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        text.push_str(&format!("{} {} {}\n", file.path.display(), file.bytes, at.as_nanos()));
    }
    Ok(danlu_files::hash_bytes(text.as_bytes()))
}
