//! The catalogue: data and models that danlu knows by name, each with its licence and the places it can be had from.
//!
//! A place is reached through its ordinary client (`pip`, `npm`, `apt-get`, `hf`), so mirrors and proxies that are set up for those work
//! here too, and no server's name is written anywhere in this program.

mod archive;
mod client;
mod fetch;
mod help;
mod labelled;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

pub use fetch::{Fetched, fetch, fetch_in};

/// One thing that can be fetched by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub name: String,
    #[serde(default)]
    pub kind: Kind,
    pub title: String,
    /// ISO 639-1.
    pub language: String,
    /// An SPDX expression where there is one.
    pub licence: String,
    /// Globs over the paths inside a source; `inner.zip!*.json` are those inside an archive that lies in it.
    #[serde(default)]
    pub files: Vec<String>,
    pub shape: Shape,
    /// Where it can be had, in the order in which the places are tried.
    #[serde(default, rename = "source")]
    pub sources: Vec<Place>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    #[default]
    Text,
    /// Conversations, answers with preferences: what models are tuned on.
    Chat,
    /// Texts with labels: what classifiers learn from.
    Labelled,
    /// Paragraphs by name, which other languages have too: what translation is learned from.
    Parallel,
    /// Pictures with labels.
    Images,
    /// Pictures with transparency, of which labelled scenes are put together.
    Stamps,
    Model,
}

/// How the contents of a file become documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Shape {
    /// The files are used as they are.
    Files,
    /// JSON: an array or object of records; a document is the text of these fields, where present.
    Records { fields: Vec<String> },
    /// JSON: an array or object of records with the texts named `text` somewhere in `messages`; a message a line.
    Conversations { messages: String, text: String },
    /// A document a line.
    Lines,
    /// `word/tag word/tag`; the words are put together to text again.
    Tagged,
    /// [`Shape::Tagged`] with a document a line.
    TaggedLines,
    /// A labelled text a line; the label is that of the file, by its name.
    LabelledLines { labels: BTreeMap<String, String> },
    /// JSON as of [`Shape::Records`]: the text of these fields, with what the field `label` says of it; a record whose label is one of `except`
    /// says nothing and is left out.
    LabelledRecords {
        fields: Vec<String>,
        label: String,
        #[serde(default)]
        except: Vec<String>,
    },
    /// `word/tag word/tag`, with the tags: a record a line.
    TaggedWords,
    /// A compressed dictionary in dictd's format: entries begin at the margin after an empty line.
    Dictionary,
    /// Pages of a program's help; a document a page.
    Help,
    /// The questions that pages of help answer, as conversations.
    Questions,
    /// The paragraphs of pages of help, each with its page, its name there and its language.
    Paragraphs,
    /// The sources in the local cargo registry.
    Crates,
    /// Made when it is asked for: [`crate::prompts::arithmetic`].
    Arithmetic { level: u8 },
    /// Made when it is asked for: [`crate::prompts::copying`].
    Copying,
}

/// Where an entry can be had.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "client", rename_all = "lowercase", deny_unknown_fields)]
pub enum Place {
    /// A repository of the model hub, by the hub's own client.
    Hf {
        repository: String,
    },
    Pip {
        package: String,
        version: String,
        file: String,
        blake3: String,
    },
    Npm {
        package: String,
        version: String,
        file: String,
        blake3: String,
    },
    Apt {
        package: String,
    },
    /// On this machine already, for instance as an installed package.
    Path {
        path: String,
    },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Hf { repository } => write!(f, "hf {repository}"),
            Self::Pip { package, version, .. } => write!(f, "pip {package}=={version}"),
            Self::Npm { package, version, .. } => write!(f, "npm {package}@{version}"),
            Self::Apt { package } => write!(f, "apt {package}"),
            Self::Path { path } => write!(f, "path {path}"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    entry: Vec<Entry>,
}

/// Everything in the catalogue.
pub fn entries() -> Result<Vec<Entry>> {
    let file: File = toml::from_str(include_str!("catalogue.toml")).context("the catalogue inside the program")?;
    Ok(file.entry)
}

/// The entry of that name.
///
/// # Errors
/// When there is none; the message lists the names there are.
pub fn find(name: &str) -> Result<Entry> {
    let entries = entries()?;
    let names: Vec<_> = entries.iter().map(|entry| entry.name.clone()).collect();
    match entries.into_iter().find(|entry| entry.name == name) {
        Some(entry) => Ok(entry),
        None => bail!("the catalogue has no {name:?}; it has {}", names.join(", ")),
    }
}
