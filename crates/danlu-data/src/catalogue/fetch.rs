//! Fetching an entry: the first place that can be reached, checked, and turned into files that a corpus is made from.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Entry, Place, Shape, archive, client, find, help, labelled, read};
use crate::Progress;
use crate::prompts::{self, arithmetic, copying};
use crate::source::Source;

/// What was fetched.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetched {
    pub entry: Entry,
    /// What to make a corpus from.
    pub source: Source,
    /// The place it came from.
    pub from: String,
}

/// In an entry's folder in the cache, beside its files: what they are, so that a changed catalogue fetches them again.
const STAMP: &str = "entry.json";
const MAX_STAMP: u64 = 16 << 20;

#[derive(Serialize, Deserialize)]
struct Stamp {
    entry: Entry,
    from: String,
    /// Relative to the folder, in order.
    files: Vec<String>,
}

/// Fetches the entry `name` into danlu's cache, or finds it there.
///
/// # Errors
/// When the catalogue has no such entry, or no place can be reached: what was tried and why it failed.
pub fn fetch(name: &str, progress: &mut dyn Progress) -> Result<Fetched> {
    fetch_in(&danlu_files::home()?.join("cache"), &find(name)?, progress)
}

/// [`fetch`] into a cache folder of the caller's.
pub fn fetch_in(cache: &Path, entry: &Entry, progress: &mut dyn Progress) -> Result<Fetched> {
    if entry.shape == Shape::Crates {
        return Ok(Fetched { entry: entry.clone(), source: Source::Crates, from: "the local cargo registry".to_owned() });
    }
    let folder = cache.join(&entry.name);
    if let Ok(stamp) = read_stamp(&folder)
        && stamp.entry == *entry
        && stamp.files.iter().all(|file| folder.join(file).is_file())
    {
        return Ok(fetched(entry, &folder, stamp));
    }
    if let Some(questions) = made(&entry.shape) {
        return Ok(fetched(entry, &folder, make(entry, &questions, &folder)?));
    }
    let packages = cache.join("packages");
    fs::create_dir_all(&packages).with_context(|| format!("cannot create the folder {}", packages.display()))?;
    let mut failures = Vec::new();
    for place in &entry.sources {
        progress.start(&format!("fetch {} from {place}", entry.name), None, "bytes");
        match reach(place, entry, &packages).and_then(|package| unpack(&package, entry, place, &folder)) {
            Ok(stamp) => return Ok(fetched(entry, &folder, stamp)),
            Err(error) => failures.push(format!("{place}: {error:#}")),
        }
    }
    bail!("{} could not be fetched:\n  {}", entry.name, failures.join("\n  "))
}

fn fetched(entry: &Entry, folder: &Path, stamp: Stamp) -> Fetched {
    let files = stamp.files.iter().map(|file| folder.join(file)).collect();
    let source = Source::Files { name: entry.name.clone(), files, text_keys: vec!["text".to_owned()] };
    Fetched { entry: entry.clone(), source, from: stamp.from }
}

fn read_stamp(folder: &Path) -> Result<Stamp> {
    Ok(serde_json::from_slice(&danlu_files::read_bounded(&folder.join(STAMP), MAX_STAMP)?)?)
}

/// The package of a place, checked. A file of the right name that is there already, put there by hand or by an earlier fetch, is used.
fn reach(place: &Place, entry: &Entry, packages: &Path) -> Result<PathBuf> {
    let (file, blake3) = match place {
        Place::Path { path } => return Ok(PathBuf::from(path)),
        Place::Apt { package } => return client::apt(package, packages),
        Place::Hf { repository } => {
            let folder = packages.join(repository.replace('/', "--"));
            client::hf(repository, &entry.files, &folder)?;
            return Ok(folder);
        }
        Place::Pip { file, blake3, .. } | Place::Npm { file, blake3, .. } => (file, blake3),
    };
    let path = packages.join(file);
    if path.is_file() && danlu_files::hash_file(&path)? == *blake3 {
        return Ok(path);
    }
    match place {
        Place::Pip { package, version, .. } => client::pip(package, version, file, packages),
        Place::Npm { package, version, .. } => client::npm(package, version, packages),
        Place::Hf { .. } | Place::Apt { .. } | Place::Path { .. } => Ok(()),
    }
    .with_context(|| format!("{file} can also be put into {} by hand", packages.display()))?;
    let found = danlu_files::hash_file(&path).with_context(|| format!("the client left no {file} in {}", packages.display()))?;
    if found != *blake3 {
        fs::remove_file(&path)?;
        bail!("{file} has the checksum {found}, not {blake3}; it is not what the catalogue means and was removed");
    }
    Ok(path)
}

/// Writes the entry's folder in the cache: its files as they are, or its documents as `documents.jsonl.zst`.
fn unpack(package: &Path, entry: &Entry, place: &Place, folder: &Path) -> Result<Stamp> {
    let mut stamp = Stamp { entry: entry.clone(), from: place.to_string(), files: Vec::new() };
    danlu_files::write_folder_atomic(folder, |folder| {
        if entry.shape == Shape::Files {
            archive::visit(package, &entry.files, &mut |name, contents| copy(folder, name, contents, &mut stamp.files))?;
            stamp.files.sort();
        } else {
            write_documents(package, entry, &folder.join(DOCUMENTS))?;
            stamp.files.push(DOCUMENTS.to_owned());
        }
        Ok(fs::write(folder.join(STAMP), serde_json::to_vec_pretty(&stamp)?)?)
    })?;
    Ok(stamp)
}

/// The questions of a shape that is made here, as records.
fn made(shape: &Shape) -> Option<Vec<String>> {
    let record = |question: &str, answer: &str| prompts::record(question, answer).to_string();
    match shape {
        Shape::Arithmetic { level } => {
            Some(arithmetic::questions(*level).iter().map(|(question, answer)| record(question, &answer.to_string())).collect())
        }
        Shape::Copying => Some(copying::questions().iter().map(|(question, answer)| record(question, answer)).collect()),
        _ => None,
    }
}

/// Writes the entry's folder in the cache with questions that are made here.
fn make(entry: &Entry, questions: &[String], folder: &Path) -> Result<Stamp> {
    const QUESTIONS: &str = "questions.jsonl";
    let stamp = Stamp { entry: entry.clone(), from: "this program".to_owned(), files: vec![QUESTIONS.to_owned()] };
    danlu_files::write_folder_atomic(folder, |folder| {
        fs::write(folder.join(QUESTIONS), questions.join("\n") + "\n")?;
        Ok(fs::write(folder.join(STAMP), serde_json::to_vec_pretty(&stamp)?)?)
    })?;
    Ok(stamp)
}

const DOCUMENTS: &str = "documents.jsonl.zst";

/// `name` has only plain components; see [`archive`].
fn copy(folder: &Path, name: &str, contents: &mut dyn Read, files: &mut Vec<String>) -> Result<()> {
    let path = folder.join("files").join(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    std::io::copy(contents, &mut File::create(&path).with_context(|| format!("cannot write {}", path.display()))?)?;
    files.push(format!("files/{name}"));
    Ok(())
}

fn write_documents(package: &Path, entry: &Entry, path: &Path) -> Result<()> {
    let mut out = zstd::Encoder::new(BufWriter::new(File::create(path)?), 3)?;
    let mut count = 0;
    let mut write = |record: serde_json::Value| -> Result<()> {
        serde_json::to_writer(&mut out, &record)?;
        out.write_all(b"\n")?;
        count += 1;
        Ok(())
    };
    if entry.shape == Shape::Questions {
        let mut all = Vec::new();
        archive::visit(package, &entry.files, &mut |name, contents| {
            all.extend(help::questions(&read::page(name, contents)?));
            Ok(())
        })?;
        for help::Question { page, question, answer } in help::distinct(all) {
            let messages = json!([{ "role": "user", "content": question }, { "role": "assistant", "content": answer }]);
            write(json!({ "group": page, "messages": messages }))?;
        }
    } else {
        archive::visit(package, &entry.files, &mut |name, contents| match &entry.shape {
            Shape::LabelledLines { labels } => labelled::lines(labels, name, contents, &mut write),
            Shape::LabelledRecords { fields, label, except } => labelled::records(fields, label, except, contents, &mut write),
            Shape::TaggedWords => labelled::tagged(contents, &mut write),
            Shape::Paragraphs => read::paragraphs(name, contents, &mut write),
            shape => read::documents(shape, name, &mut BufReader::new(contents), &mut |text| {
                if text.trim().is_empty() { Ok(()) } else { write(json!({ "text": text })) }
            }),
        })?;
    }
    out.finish()?.flush()?;
    if count == 0 {
        bail!("the package holds no document");
    }
    Ok(())
}
