//! A corpus: cleaned documents on disk, in two splits, with a manifest.
//!
//! `data/<name>/` holds `train/documents-00000.jsonl.zst`, …, `held_out/documents-00000.jsonl.zst`, …, `manifest.json`, `report.json`,
//! `report.txt` and `quarantine.jsonl`. The folder is written whole or not at all.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::clean::CleanOptions;
use crate::report::{Count, Report};
use crate::source::Document;
use crate::split::HeldOut;

/// The version of the folder's layout; a folder of another one is refused.
pub(crate) const LAYOUT: u32 = 1;
/// A manifest or report is small; a larger file is not ours.
const MANIFEST_LIMIT: u64 = 64 << 20;

/// Which side of the held-out split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    Train,
    HeldOut,
}

impl Split {
    /// The folder of the split.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::HeldOut => "held_out",
        }
    }
}

/// One file of documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Relative to the corpus folder.
    pub file: String,
    pub documents: u64,
    /// Bytes of UTF-8 text, before JSON and compression.
    pub bytes: u64,
    /// BLAKE3 of the file.
    pub blake3: String,
}

/// The contents of one split.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitManifest {
    pub documents: u64,
    pub bytes: u64,
    pub parts: Vec<Part>,
}

/// `manifest.json`: what the corpus is and how it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub layout: u32,
    pub name: String,
    /// BLAKE3 over the hashes of all parts: the identity of the corpus in lineage.
    pub hash: String,
    /// BLAKE3 over the texts that passed the rules, in order: equal for equal inputs, whatever the split.
    pub documents_hash: String,
    /// The sources as they were asked for.
    pub sources: Vec<String>,
    pub seed: u64,
    pub clean: CleanOptions,
    pub deduplicate: bool,
    pub held_out_rule: HeldOut,
    pub train: SplitManifest,
    pub held_out: SplitManifest,
}

impl Manifest {
    pub fn split(&self, split: Split) -> &SplitManifest {
        match split {
            Split::Train => &self.train,
            Split::HeldOut => &self.held_out,
        }
    }
}

pub(crate) fn count(split: &SplitManifest) -> Count {
    Count { documents: split.documents, bytes: split.bytes }
}

/// An opened corpus.
#[derive(Clone, Debug)]
pub struct Corpus {
    folder: PathBuf,
    pub manifest: Manifest,
}

impl Corpus {
    /// Opens the corpus of this name in danlu's home.
    ///
    /// # Errors
    /// When there is none, with the names there are.
    pub fn open(name: &str) -> Result<Self> {
        Self::open_in(&danlu_files::home()?, name)
    }

    /// [`Self::open`] in another home.
    pub fn open_in(home: &Path, name: &str) -> Result<Self> {
        let folder = folder(home, name)?;
        if !folder.join("manifest.json").exists() {
            let names: Vec<_> = list(home)?.into_iter().map(|corpus| corpus.manifest.name).collect();
            let known = if names.is_empty() { "none yet".to_owned() } else { names.join(", ") };
            bail!("there is no corpus {name:?} (there are: {known}); make it with `danlu data add`");
        }
        Self::open_folder(&folder)
    }

    /// Opens a corpus by its folder.
    pub fn open_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("manifest.json");
        let text = danlu_files::read_text_bounded(&path, MANIFEST_LIMIT)?;
        let manifest: Manifest =
            serde_json::from_str(&text).with_context(|| format!("{} is not a corpus manifest", path.display()))?;
        if manifest.layout != LAYOUT {
            bail!("{} has layout {}, this program reads {LAYOUT}; add the corpus again", path.display(), manifest.layout);
        }
        Ok(Self { folder: folder.to_path_buf(), manifest })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What was kept and dropped when the corpus was made.
    pub fn report(&self) -> Result<Report> {
        let path = self.folder.join("report.json");
        let text = danlu_files::read_text_bounded(&path, MANIFEST_LIMIT)?;
        serde_json::from_str(&text).with_context(|| format!("{} is not a corpus report", path.display()))
    }

    /// The documents of a split in their order, streamed.
    pub fn documents(&self, split: Split) -> Documents {
        let files: Vec<_> = self.manifest.split(split).parts.iter().map(|part| self.folder.join(&part.file)).collect();
        Documents { files: files.into_iter(), open: None, line: String::new() }
    }

    /// Reads every part against its hash.
    ///
    /// # Errors
    /// The first part that is missing or differs.
    pub fn verify(&self) -> Result<()> {
        for part in self.manifest.train.parts.iter().chain(&self.manifest.held_out.parts) {
            let path = self.folder.join(&part.file);
            if danlu_files::hash_file(&path)? != part.blake3 {
                bail!("{} is not what the manifest says it is; add the corpus again", path.display());
            }
        }
        Ok(())
    }
}

/// All corpora of a home, by name. A folder without a readable manifest is left out.
pub fn list(home: &Path) -> Result<Vec<Corpus>> {
    let data = home.join("data");
    if !data.exists() {
        return Ok(Vec::new());
    }
    let mut corpora = Vec::new();
    for entry in std::fs::read_dir(&data).with_context(|| format!("cannot read {}", data.display()))? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with('.')
            && let Ok(corpus) = Corpus::open_folder(&entry.path())
        {
            corpora.push(corpus);
        }
    }
    corpora.sort_by(|a, b| a.manifest.name.cmp(&b.manifest.name));
    Ok(corpora)
}

/// The folder of a corpus.
///
/// # Errors
/// When the name could leave the data folder or hide in it.
pub(crate) fn folder(home: &Path, name: &str) -> Result<PathBuf> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.starts_with('.') || name.len() > 100 || !name.chars().all(plain) {
        bail!("{name:?} cannot name a corpus; use letters, digits, '-', '_' and '.', not starting with '.'");
    }
    Ok(home.join("data").join(name))
}

/// A stream of documents; see [`Corpus::documents`].
pub struct Documents {
    files: std::vec::IntoIter<PathBuf>,
    open: Option<OpenPart>,
    line: String,
}

struct OpenPart {
    path: PathBuf,
    /// The number of the line last read.
    number: u64,
    lines: BufReader<zstd::Decoder<'static, BufReader<File>>>,
}

impl Documents {
    fn read(&mut self) -> Result<Option<Document>> {
        loop {
            if let Some(OpenPart { path, number, lines }) = &mut self.open {
                self.line.clear();
                *number += 1;
                let place = || format!("{} line {number} cannot be read; add the corpus again", path.display());
                if lines.read_line(&mut self.line).with_context(place)? > 0 {
                    return serde_json::from_str(&self.line).map(Some).with_context(place);
                }
                self.open = None;
            }
            let Some(path) = self.files.next() else { return Ok(None) };
            let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
            let lines = BufReader::with_capacity(1 << 18, zstd::Decoder::new(file)?);
            self.open = Some(OpenPart { path, number: 0, lines });
        }
    }
}

impl Iterator for Documents {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}
