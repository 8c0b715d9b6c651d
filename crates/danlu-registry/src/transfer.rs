use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::id::{ModelId, ModelRef};
use crate::record::{FILE, FileRecord};
use crate::registry::{Registry, hash_files};

/// The outcome of comparing a model's files with its `danlu.json`.
#[derive(Debug, Serialize)]
pub struct Verified {
    pub id: ModelId,
    pub files: usize,
    pub bytes: u64,
    pub damage: Vec<Damage>,
}

/// One file that is not as it was registered.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    pub file: String,
    /// `missing`, `changed` or `unknown` (there, but not registered).
    pub what: &'static str,
}

impl Registry {
    /// Copies a model's folder to `to`, whole or not at all, after checking its files. With `force` a folder already there is replaced.
    ///
    /// # Errors
    /// When `to` holds something and `force` is off, or a file is damaged.
    pub fn export(&self, wanted: &ModelRef, to: &Path, force: bool) -> Result<ModelId> {
        let verified = self.verify(wanted)?;
        if let Some(damage) = verified.damage.first() {
            bail!(
                "{} is not exported, since its file {} is {}; see `danlu models verify {}`",
                verified.id,
                damage.file,
                damage.what,
                verified.id
            );
        }
        let to = absolute(to)?;
        if to.is_file() {
            bail!("{} is a file; give a folder to export to", to.display());
        }
        let empty = fs::read_dir(&to).map_or(true, |mut entries| entries.next().is_none());
        if !empty && !force {
            bail!("{} is not empty; give another folder, or --force to replace what is there", to.display());
        }
        let from = self.folder(&verified.id);
        danlu_files::write_folder_atomic(&to, |dir| {
            for entry in fs::read_dir(&from)? {
                let path = entry?.path();
                let name = path.file_name().context("a file without a name")?;
                fs::copy(&path, dir.join(name)).with_context(|| format!("cannot copy {}", path.display()))?;
            }
            Ok(())
        })?;
        Ok(verified.id)
    }

    /// Hashes every file of a model and compares with what was registered.
    ///
    /// # Errors
    /// When there is no such model or its folder cannot be read; damage is reported in the result.
    pub fn verify(&self, wanted: &ModelRef) -> Result<Verified> {
        let record = self.show(wanted)?;
        let id = record.id();
        let dir = self.folder(&id);
        let found = hash_files(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        Ok(Verified { id, files: record.files.len(), bytes: record.bytes(), damage: compare(&record.files, &found) })
    }

    /// Moves nothing and asks nothing: deletes one version's folder.
    ///
    /// # Errors
    /// When other models name it as their parent and `force` is off, since their lineage would lose it.
    pub fn remove(&self, wanted: &ModelRef, force: bool) -> Result<ModelId> {
        let id = self.resolve(wanted)?;
        let children: Vec<String> =
            self.list()?.iter().filter(|r| r.lineage.parent.as_ref() == Some(&id)).map(|r| r.id().to_string()).collect();
        if !children.is_empty() && !force {
            bail!("{id} is the parent of {}; --force removes it all the same", children.join(", "));
        }
        fs::remove_dir_all(self.folder(&id)).with_context(|| format!("cannot remove {id}"))?;
        let _ = self.list();
        Ok(id)
    }
}

fn compare(registered: &BTreeMap<String, FileRecord>, found: &BTreeMap<String, FileRecord>) -> Vec<Damage> {
    let lost = registered.iter().filter_map(|(file, was)| match found.get(file) {
        None => Some(Damage { file: file.clone(), what: "missing" }),
        Some(is) if is != was => Some(Damage { file: file.clone(), what: "changed" }),
        Some(_) => None,
    });
    let added = found.keys().filter(|file| !registered.contains_key(*file) && *file != FILE);
    lost.chain(added.map(|file| Damage { file: file.clone(), what: "unknown" })).collect()
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} is not a path", path.display()))
}
