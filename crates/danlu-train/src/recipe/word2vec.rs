//! `[word2vec]`: the windows that word vectors are learned from.

use danlu_ops::Form;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How words are learned from the words around them; for the objective `word2vec` (Mikolov 2013).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Word2vecSpec {
    /// From what a word is predicted.
    pub form: WindowForm,
    /// Words on either side that belong to a window at most; each window has from one to so many.
    #[schemars(range(min = 1, max = 100))]
    pub window: usize,
    /// Words drawn for each window that do not stand in its middle, by their frequency to the power of 3/4.
    #[schemars(range(min = 1, max = 100))]
    pub negative: usize,
    /// Words that are more than this share of the text are left out now and then; 0 keeps all.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub subsample: f64,
    /// The vectors as one more file of the model, in the original program's format.
    pub vectors: VectorsKind,
}

impl Default for Word2vecSpec {
    fn default() -> Self {
        Word2vecSpec { form: WindowForm::default(), window: 5, negative: 5, subsample: 1e-3, vectors: VectorsKind::default() }
    }
}

/// From what a word is predicted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WindowForm {
    /// From each word of its window: better for rare words.
    #[default]
    SkipGram,
    /// From the mean of the words of its window: several times as fast.
    Cbow,
}

impl WindowForm {
    /// As recipes write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SkipGram => "skip-gram",
            Self::Cbow => "cbow",
        }
    }
}

impl From<WindowForm> for Form {
    fn from(form: WindowForm) -> Self {
        match form {
            WindowForm::SkipGram => Form::SkipGram,
            WindowForm::Cbow => Form::Cbow,
        }
    }
}

/// A file of vectors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VectorsKind {
    /// None; `danlu embed export` writes it when it is wanted.
    #[default]
    None,
    /// `vectors.txt`.
    Text,
    /// `vectors.bin`.
    Binary,
}

impl VectorsKind {
    /// The file's name.
    pub fn file(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Text => Some("vectors.txt"),
            Self::Binary => Some("vectors.bin"),
        }
    }
}
