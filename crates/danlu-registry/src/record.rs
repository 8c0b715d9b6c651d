use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::evaluation::{GateRecord, SetRecord};
use crate::id::ModelId;

/// The version of `danlu.json` this program writes.
pub(crate) const FORMAT: u32 = 1;
pub(crate) const FILE: &str = "danlu.json";
/// A `danlu.json` is a few kilobytes; a larger one is not ours.
const LIMIT: u64 = 16 << 20;

/// How far a model is from general: L0 general, L1 of an industry, L2 of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    L0,
    L1,
    L2,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::L0 => "L0",
            Self::L1 => "L1",
            Self::L2 => "L2",
        }
    }
}

impl std::str::FromStr for Level {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "L0" => Ok(Self::L0),
            "L1" => Ok(Self::L1),
            "L2" => Ok(Self::L2),
            _ => bail!("{text:?} is not a level; a level is L0 (general), L1 (an industry) or L2 (one task)"),
        }
    }
}

/// The recipe a model was made by: its whole text, so that the model can be made again from its folder alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RecipeRecord {
    pub name: String,
    pub hash: String,
    pub text: String,
}

/// A corpus a model was trained on, by the hash of its manifest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Data {
    pub name: String,
    pub manifest_hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
}

/// Where an imported model came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    pub from: String,
    pub licence: Option<String>,
    /// BLAKE3 of the file, when it came as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
}

/// A measured value with its 95 % interval where there is one, for example `bits_per_byte`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    pub value: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
}

/// What the maker of a model knows about it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ModelId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<RecipeRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<Data>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer_hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, Measure>,
    /// The evaluation sets of its line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<SetRecord>,
    /// None when it had no gate to pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateRecord>,
    /// Numbers about the model itself, for example `parameters` or `tokens_seen`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, serde_json::Value>,
}

/// One file of a model's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    pub bytes: u64,
    pub blake3: String,
}

/// `danlu.json`: everything known about one version of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub format: u32,
    pub name: String,
    pub version: u32,
    pub created: String,
    /// The version of danlu that made it.
    pub code_version: String,
    #[serde(flatten)]
    pub lineage: Lineage,
    pub files: BTreeMap<String, FileRecord>,
}

impl Record {
    pub fn id(&self) -> ModelId {
        ModelId { name: self.name.clone(), version: self.version }
    }

    /// The bytes of all its files.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }

    /// Reads `danlu.json` of the folder `dir`.
    ///
    /// # Errors
    /// When it is missing, not JSON of this shape, of a newer format, or not of the model the folder is named for.
    pub(crate) fn read(dir: &Path, id: &ModelId) -> Result<Self> {
        let path = dir.join(FILE);
        let text = danlu_files::read_text_bounded(&path, LIMIT)?;
        let record: Self = serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
        if record.format > FORMAT {
            bail!(
                "{} has format {}, and this danlu reads up to {FORMAT}; use the danlu that wrote it, or a newer one",
                path.display(),
                record.format
            );
        }
        if record.id() != *id {
            bail!("{} describes {}, but its folder is named {id}; rename one of them", path.display(), record.id());
        }
        Ok(record)
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        danlu_files::write_atomic_bytes(&dir.join(FILE), text.as_bytes())
    }
}
