use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::card;
use crate::clock::timestamp;
use crate::evaluation::SetRecord;
use crate::id::{ModelId, ModelRef, check_name};
use crate::index::Index;
use crate::record::{FILE, FORMAT, FileRecord, Lineage, Record};

/// The models under one danlu home.
pub struct Registry {
    home: PathBuf,
    models: PathBuf,
}

/// A model's folder is flat and small in number of files; more means that the folder is something else.
const MOST_FILES: usize = 4096;

impl Registry {
    /// The registry under `home` (see [`danlu_files::home`]), created when missing.
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub fn open(home: &Path) -> Result<Self> {
        let models = home.join("models");
        fs::create_dir_all(&models).with_context(|| format!("cannot create the folder {}", models.display()))?;
        Ok(Self { home: home.to_path_buf(), models })
    }

    /// Where the files of a model are.
    pub fn folder(&self, id: &ModelId) -> PathBuf {
        self.models.join(id.to_string())
    }

    /// Copies the exported `folder` in as the next version of `name`, with its card and `danlu.json`. `check` is given the copy before it
    /// becomes visible, and is where the caller loads it again and compares: a model that fails it is not registered.
    ///
    /// # Errors
    /// A bad name, a folder that is no model's, what `check` returns, or the file system.
    pub fn register(
        &self,
        name: &str,
        folder: &Path,
        lineage: Lineage,
        check: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<ModelId> {
        check_name(name)?;
        let sources = model_files(folder)?;
        let _lock = self.lock()?;

        let version = self.ids()?.iter().filter(|id| id.name == name).map(|id| id.version).max().unwrap_or(0) + 1;
        let id = ModelId { name: name.to_string(), version };
        danlu_files::write_folder_atomic(&self.folder(&id), |dir| {
            for (file, source) in &sources {
                fs::copy(source, dir.join(file)).with_context(|| format!("cannot copy {}", source.display()))?;
            }
            let mut record = Record {
                format: FORMAT,
                name: id.name.clone(),
                version,
                created: timestamp(),
                code_version: env!("CARGO_PKG_VERSION").to_string(),
                lineage,
                files: BTreeMap::new(),
            };
            // An imported model keeps the card its authors wrote.
            if !sources.contains_key("README.md") {
                danlu_files::write_atomic_bytes(&dir.join("README.md"), card::text(&record, dir).as_bytes())?;
            }
            check(dir).with_context(|| format!("{id} was not registered, since its export did not pass the check"))?;
            record.files = hash_files(dir)?;
            record.write(dir)
        })?;
        // The index follows the folders by itself; a failure to write it is no failure to register.
        let _ = self.list();
        Ok(id)
    }

    /// All models, by name and version. A folder whose `danlu.json` cannot be read is left out here and explained by [`Self::show`].
    ///
    /// # Errors
    /// When the models folder cannot be read.
    pub fn list(&self) -> Result<Vec<Record>> {
        Index::open(&self.home.join("index.sqlite")).records(&self.models, &self.ids()?)
    }

    /// The record of one model.
    ///
    /// # Errors
    /// When there is no such model (the message names those near it), or its `danlu.json` is damaged.
    pub fn show(&self, wanted: &ModelRef) -> Result<Record> {
        let id = self.resolve(wanted)?;
        Record::read(&self.folder(&id), &id)
    }

    /// The version that is current when none is named: the newest that passed its gate, unless someone decided otherwise.
    ///
    /// # Errors
    /// When there is no such model, or all its versions are candidates.
    pub fn resolve(&self, wanted: &ModelRef) -> Result<ModelId> {
        let ids = self.ids()?;
        let same: Vec<&ModelId> = ids.iter().filter(|id| id.name == wanted.name).collect();
        let found = match wanted.version {
            Some(version) => same.iter().find(|id| id.version == version),
            None => {
                let current = self.current(&wanted.name)?;
                if let (None, [.., newest]) = (&current, &same[..]) {
                    bail!(
                        "{wanted} has only candidates, which did not pass their gate; name one, such as {newest}, or make it the current one with `danlu models promote {newest}`"
                    );
                }
                same.iter().find(|id| Some(**id) == current.as_ref())
            }
        };
        if let Some(id) = found {
            return Ok((*id).clone());
        }
        let near = |id: &&ModelId| same.is_empty() || id.name == wanted.name;
        let known: Vec<String> = ids.iter().filter(near).map(ModelId::to_string).collect();
        match known.as_slice() {
            [] => bail!("there is no model {wanted}, and no other yet; `danlu up` makes one"),
            known => bail!("there is no model {wanted}; there are: {}", known.join(", ")),
        }
    }

    /// Adds what a model came to on evaluation sets to its record. What it was measured on when it was registered stays as it is, with the
    /// change from its parent.
    ///
    /// # Errors
    /// When there is no such model, or its record cannot be written.
    pub fn note_sets(&self, id: &ModelId, sets: &[SetRecord]) -> Result<()> {
        let _lock = self.lock()?;
        let dir = self.folder(id);
        let mut record = Record::read(&dir, id)?;
        let known = record.lineage.sets.clone();
        let stays = |known: &SetRecord, new: &SetRecord| {
            known.hash == new.hash || (known.change.is_some() && (&known.set, &known.unit) == (&new.set, &new.unit))
        };
        let sets: Vec<&SetRecord> = sets.iter().filter(|set| !known.iter().any(|one| stays(one, set))).collect();
        for set in sets {
            record.lineage.sets.retain(|known| (&known.set, &known.unit) != (&set.set, &set.unit));
            record.lineage.sets.push(set.clone());
        }
        record.write(&dir)
    }

    /// Two processes must not take the same number or write the same record; the lock goes when the file is closed, also after a crash.
    pub(crate) fn lock(&self) -> Result<File> {
        let path = self.models.join(".lock");
        let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        lock.lock().context("cannot lock the models folder")?;
        Ok(lock)
    }

    pub(crate) fn models(&self) -> &Path {
        &self.models
    }

    /// The versions there are, sorted, from the folders' names.
    pub(crate) fn ids(&self) -> Result<Vec<ModelId>> {
        let entries = fs::read_dir(&self.models).with_context(|| format!("cannot read {}", self.models.display()))?;
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry?;
            // Anything else in the folder, such as a half-written `.name.tmp`, is not a model.
            if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok())
                && entry.path().is_dir()
            {
                ids.push(id);
            }
        }
        ids.sort();
        Ok(ids)
    }
}

/// The files of `folder` that belong to a model, by name: weights, configuration, tokenizer, card, licence. Files that would have to be
/// unpickled (`.bin`, `.pt`) are left behind; word2vec's binary vectors are none.
fn model_files(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    const KINDS: [&str; 7] = ["json", "safetensors", "txt", "model", "jinja", "md", "gguf"];
    let mut files = BTreeMap::new();
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    for entry in entries.take(MOST_FILES) {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let known = path.extension().and_then(|e| e.to_str()).is_some_and(|e| KINDS.contains(&e));
        let licence = name.starts_with("LICEN") || name.starts_with("NOTICE");
        let vectors = name == "vectors.bin";
        if (known || licence || vectors) && name != FILE && !name.starts_with('.') && path.is_file() {
            files.insert(name.to_string(), path);
        }
    }
    if !files.contains_key("config.json") && !files.contains_key("adapter_config.json") {
        bail!("{} has no config.json and no adapter_config.json, so it is not a model's folder", folder.display());
    }
    if !files.keys().any(|name| name.ends_with(".safetensors") || name.ends_with(".gguf")) {
        bail!("{} has no .safetensors file and no .gguf file; weights in other forms are not read", folder.display());
    }
    Ok(files)
}

/// Size and hash of every file in `dir` but `danlu.json`, which holds them.
pub(crate) fn hash_files(dir: &Path) -> Result<BTreeMap<String, FileRecord>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != FILE && entry.file_type()?.is_file() {
            files.insert(name, FileRecord { bytes: entry.metadata()?.len(), blake3: danlu_files::hash_file(&entry.path())? });
        }
    }
    Ok(files)
}
