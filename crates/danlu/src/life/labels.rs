//! A classifier that is there already, asked about texts.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use danlu_data::labelled::{Example, Features, Frame, Label};
use danlu_data::tokenizer::Tokenizer;
use danlu_models::{Backbone, Classifier, HeadConfig, SparseRows, Task, Texts, folder};
use serde::Serialize;

use super::kinds::FEATURES;

/// A classifier with what it reads texts with.
pub struct Labeller {
    classifier: Classifier,
    frame: Option<Frame>,
    features: Option<Features>,
}

/// What it says of a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// The labels with their probabilities, the likeliest first.
    Classes(Vec<(String, f64)>),
    Number(f64),
    /// Each word with its tag.
    Tags(Vec<(String, String)>),
}

impl Labeller {
    /// Reads a classifier's folder.
    ///
    /// # Errors
    /// When it holds another kind of model, or a file is missing or damaged.
    pub fn open(dir: &Path) -> Result<Self> {
        let (classifier, _) = folder::load_classifier(dir, &danlu_ops::device())?;
        let head = classifier.config();
        let features = if head.features > 0 { Some(Features::load(&dir.join(FEATURES))?) } else { None };
        if let Some(features) = &features {
            ensure!(
                features.len() == head.features,
                "{} describes {} features and the model has {}",
                dir.join(FEATURES).display(),
                features.len(),
                head.features
            );
        }
        let context = classifier.backbone.as_ref().map(Backbone::context);
        let frame = context.map(|context| Frame::new(Tokenizer::load(dir)?, context)).transpose()?;
        Ok(Self { classifier, frame, features })
    }

    pub fn head(&self) -> &HeadConfig {
        self.classifier.config()
    }

    /// The names of the numbers that must be given with each text.
    pub fn columns(&self) -> Vec<&str> {
        let Some(features) = &self.features else { return vec![] };
        let columns = features.columns();
        let known = features.numbers();
        features.names().take(known).skip(known - columns).collect()
    }

    /// What the model says of a text, by itself. Of tags, the words are what stands between spaces, or each character where there are none.
    ///
    /// # Errors
    /// When a text cannot be encoded.
    pub fn ask(&self, text: &str, pair: Option<&str>, numbers: Vec<f64>) -> Result<Answer> {
        let head = self.head();
        let words = |text: &str| text.split_whitespace().map(|word| (word.to_string(), String::new())).collect();
        let label = if head.task == Task::Tags { Label::Tags(words(text)) } else { Label::Number(0.0) };
        let example = Example { text: text.to_string(), pair: pair.map(str::to_string), label, numbers };
        // Every word is asked about, so every word has a first token that counts.
        let encoded = self.frame.as_ref().map(|frame| frame.example(&example, |_| Some(0))).transpose()?;
        let texts = encoded.as_ref().map(|text| Texts::new([(&text.ids[..], &text.kinds[..])]));
        let features = self.features.as_ref().map(|features| {
            let mut rows = SparseRows::default();
            rows.push(&features.of(&example));
            rows
        });
        let states = texts.and_then(|texts| self.classifier.states(&texts, false));
        let logits = self.classifier.head(states, features.as_ref());
        let width = logits.dims()[1];
        let logits =
            logits.into_data().try_into_vec::<f32>().map_err(|error| anyhow::anyhow!("logits are not floats: {error:?}"))?;
        Ok(match head.task {
            Task::Number => Answer::Number(f64::from(*logits.first().context("the model gives no number")?)),
            Task::Classes => {
                let mut all: Vec<(String, f64)> = head.labels.iter().cloned().zip(softmax(&logits)).collect();
                all.sort_by(|a, b| b.1.total_cmp(&a.1));
                Answer::Classes(all)
            }
            Task::Tags => {
                let Label::Tags(words) = &example.label else { return Ok(Answer::Tags(vec![])) };
                let tags = encoded.iter().flat_map(|text| &text.tags).zip(logits.chunks(width));
                let counted = tags.filter(|(tag, _)| **tag != danlu_data::sampler::IGNORE);
                let best = |row: &[f32]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(place, _)| place);
                let names = counted.map(|(_, row)| head.labels[best(row)].clone());
                Answer::Tags(words.iter().map(|(word, _)| word.clone()).zip(names).collect())
            }
        })
    }
}

/// Probabilities of logits.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let parts: Vec<f64> = logits.iter().map(|x| f64::from(x - most).exp()).collect();
    let sum: f64 = parts.iter().sum();
    parts.into_iter().map(|part| part / sum).collect()
}
