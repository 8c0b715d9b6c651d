//! `[classify]` and `[features]`: what is said of texts or pictures, from which labels, and by which way.

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Labelled texts and how a model learns from them, for the objectives `classify`, `regression` and `token-classify`; and of `image-classify` the
/// way, the labels and the rate of the head.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClassifySpec {
    /// How the model that is there is used; a network of pictures without `model.from` learns from initial weights.
    pub way: Way,
    /// The key or column of the text; of the words, in token-classify. Automatic: text, sentence, review, content, comment, tokens, words.
    pub text: Option<String>,
    /// The key or column of a second text that stands beside the first.
    pub pair: Option<String>,
    /// The key or column of the label. Automatic: label, class, category, sentiment, score, rating, tags.
    pub label: Option<String>,
    /// All labels there are, in the order of the outputs. Empty: those in the data, sorted.
    pub labels: Vec<String>,
    /// What stands for a text. Automatic: bert's first token, a decoder's last.
    pub pooling: Option<Pooling>,
    /// Peak learning rate of the new head, which starts from nothing. Automatic: ten times `optimizer.rate`, at least 0.001;
    /// of pictures, that rate itself, and beside an adapter 0.002.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub head_rate: Option<f64>,
    /// The weight of going on to predict the next token of the labelled texts, beside their labels, with a decoder whose embedding is its output
    /// head: it keeps what pretraining taught (0.5 in Radford 2018). 0 for none.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub auxiliary: f64,
}

/// A way of using a model for a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Everything in the model moves, under a new head; `[tune]` can say that less does, or slower.
    #[default]
    FineTune,
    /// Fine-tuning with the features of `[features]` joined to what the model makes of a text or a picture.
    Features,
    /// Transfer: the model stays as it is and only what stands above its layers learns, which costs one reading of each text, or of each picture
    /// as it is, unchanged by `[image]`; `[tune]` can say that its last layers learn too.
    Transfer,
    /// The model stays as it is and `[adapter]` learns beside it, with the head.
    Lora,
    /// A model of the same shape, or of that of `[model]`, from initial weights: what the labels alone can teach.
    Scratch,
    /// No model: the features of `[features]` alone decide.
    Linear,
}

/// What stands for a text as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The first token, through bert's pooler.
    First,
    /// The last token, which has seen all others in a decoder.
    Last,
    /// The mean of all tokens.
    Mean,
}

/// Numbers about a text or a picture that stand beside what a model makes of it, for `classify.way` "features" and "linear". Of a picture:
/// `gradients`, `brightness` and `cell`; of a text the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FeaturesSpec {
    /// Lengths, and shares of kinds of characters.
    pub counts: bool,
    /// Runs of so many characters, from the shortest to the longest, weighed by their rarity (Spärck Jones 1972). Empty for none.
    pub ngrams: Vec<usize>,
    /// How many runs are kept, the most frequent.
    #[schemars(range(min = 1, max = 4_000_000))]
    pub ngram_limit: usize,
    /// A file with a word in each line and behind a tab the name of its group: how often words of each group are there.
    pub lexicon: Option<String>,
    /// Keys or columns of the data that hold numbers.
    pub columns: Vec<String>,
    /// In each cell of a picture how much brightness changes in which direction (histograms of oriented gradients, Dalal 2005).
    pub gradients: bool,
    /// The mean and deviation of a picture's brightness, and the mean of each of its cells.
    pub brightness: bool,
    /// The side of a cell, in pixels.
    #[schemars(range(min = 1, max = 1024))]
    pub cell: usize,
    /// Peak learning rate of the features' weights, which start from zero.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub rate: f64,
}

impl Default for FeaturesSpec {
    fn default() -> Self {
        FeaturesSpec {
            counts: true,
            ngrams: vec![1, 3],
            ngram_limit: 50_000,
            lexicon: None,
            columns: vec![],
            gradients: true,
            brightness: true,
            cell: 4,
            rate: 0.02,
        }
    }
}

impl Way {
    pub const ALL: [Way; 6] = [Way::Linear, Way::Scratch, Way::Transfer, Way::Lora, Way::FineTune, Way::Features];

    /// As recipes write it.
    pub fn name(self) -> &'static str {
        match self {
            Way::FineTune => "fine-tune",
            Way::Features => "features",
            Way::Transfer => "transfer",
            Way::Lora => "lora",
            Way::Scratch => "scratch",
            Way::Linear => "linear",
        }
    }

    /// Whether it starts from a model that is there.
    pub fn needs_model(self) -> bool {
        !matches!(self, Way::Scratch | Way::Linear)
    }

    pub fn has_features(self) -> bool {
        matches!(self, Way::Features | Way::Linear)
    }
}

impl FeaturesSpec {
    pub(super) fn validate(&self) -> Result<()> {
        ensure!(
            matches!(self.ngrams[..], [] | [_, _]),
            "`features.ngrams` has {} numbers; give two, the shortest and the longest run, or none",
            self.ngrams.len()
        );
        if let [low, high] = self.ngrams[..] {
            ensure!(
                (1..=8).contains(&low) && (low..=8).contains(&high),
                "`features.ngrams` is [{low}, {high}]; runs have from 1 to 8 characters, the shorter first"
            );
        }
        Ok(())
    }
}

impl ClassifySpec {
    pub(super) fn validate(&self) -> Result<()> {
        let mut sorted = self.labels.clone();
        sorted.sort();
        sorted.dedup();
        ensure!(sorted.len() == self.labels.len(), "`classify.labels` names a label twice");
        ensure!(
            self.labels.len() != 1,
            "`classify.labels` has one label; there must be two to tell apart, or none for those in the data"
        );
        Ok(())
    }
}
