//! Labelled texts, and what they are read with: labels, features, a tokenizer.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use danlu_data::Progress;
use danlu_data::labelled::{self, Columns, Example, FeatureSpec, Features, Frame, Label, Labels, Lexicon};
use danlu_data::tokenizer::Tokenizer;
use danlu_models::{HeadConfig, Task};
use danlu_train::Recipe;
use danlu_train::objectives::classify::{ClassifyRow, Target};

use super::plan::task;
use crate::life::kinds::{DataRecord, sft};
use crate::life::prepare;

/// The labelled texts of all sources, each once.
pub fn examples(home: &Path, recipe: &Recipe, progress: &mut dyn Progress) -> Result<(Vec<DataRecord>, Vec<Example>)> {
    let spec = &recipe.classify;
    let columns = Columns {
        text: spec.text.clone(),
        pair: spec.pair.clone(),
        label: spec.label.clone(),
        numbers: if spec.way.has_features() { recipe.features.columns.clone() } else { vec![] },
    };
    let kind = match task(recipe) {
        Task::Classes => Labels::Classes,
        Task::Number => Labels::Numbers,
        Task::Tags => Labels::Tags,
    };
    let mut places = vec![];
    for source in &recipe.data.sources {
        places.push(sft::conversations(home, source, progress)?);
    }
    let found = labelled::read(&places, &columns, kind)?;
    progress.note(&format!("{}: {}", recipe.data.sources.join(", "), found.summary()));
    let mut hash = String::new();
    for example in &found.examples {
        hash.push_str(&danlu_files::hash_bytes(format!("{example:?}").as_bytes()));
    }
    let manifest_hash = danlu_files::hash_bytes(hash.as_bytes());
    Ok((vec![DataRecord { name: recipe.data.sources.join("+"), manifest_hash }], found.examples))
}

/// The labels in the order of the outputs: the recipe's, or those of the data, sorted.
pub fn labels(recipe: &Recipe, examples: &[Example]) -> Result<Vec<String>> {
    let mut found = BTreeSet::new();
    for example in examples {
        match &example.label {
            Label::Class(class) => drop(found.insert(class.clone())),
            Label::Tags(words) => found.extend(words.iter().map(|(_, tag)| tag.clone())),
            Label::Number(_) => {}
        }
    }
    let given = &recipe.classify.labels;
    if task(recipe) == Task::Number {
        return Ok(vec![]);
    }
    if let Some(other) = found.iter().find(|label| !given.is_empty() && !given.contains(label)) {
        bail!("the data has the label {other:?}, which `classify.labels` does not name; it names {}", given.join(", "));
    }
    ensure!(
        found.len() <= 4096,
        "the data has {} different labels; that is a column of numbers or texts and not of labels (for numbers there is \"regression\")",
        found.len()
    );
    if let (true, Some(only)) = (found.len() == 1, found.first()) {
        bail!("all {} texts have the label {only:?}; there is nothing to tell apart", examples.len());
    }
    Ok(if given.is_empty() { found.into_iter().collect() } else { given.clone() })
}

pub fn feature_spec(recipe: &Recipe) -> Result<FeatureSpec> {
    let spec = &recipe.features;
    Ok(FeatureSpec {
        counts: spec.counts,
        ngrams: if let [low, high] = spec.ngrams[..] { Some((low, high)) } else { None },
        ngram_limit: spec.ngram_limit,
        lexicon: spec.lexicon.as_ref().map(|path| Lexicon::load(Path::new(path)).context("`features.lexicon`")).transpose()?,
        columns: spec.columns.clone(),
    })
}

/// The tokenizer of the run, or of the model it starts from, or one learned from the training texts.
pub fn tokenizer(recipe: &Recipe, train: &[&Example], run: Option<&Path>) -> Result<Tokenizer> {
    let bytes = train.iter().map(|example| example.text.len()).sum();
    let texts = train.iter().flat_map(|example| [Some(&example.text), example.pair.as_ref()]).flatten();
    prepare::learned(recipe, bytes, texts, run)
}

pub fn row(example: &Example, head: &HeadConfig, frame: Option<&Frame>, features: Option<&Features>) -> Result<ClassifyRow> {
    let place = |label: &str| head.labels.iter().position(|known| known == label).map(|place| place as u32);
    let target = match &example.label {
        Label::Class(class) => Target::Class(place(class).with_context(|| format!("the label {class:?} is not known"))?),
        Label::Number(number) => Target::Number(*number as f32),
        Label::Tags(_) => Target::Tags,
    };
    Ok(ClassifyRow {
        source: example.text.clone(),
        text: frame.map(|frame| frame.example(example, place)).transpose()?,
        features: features.map_or(vec![], |features| features.of(example)),
        target,
    })
}
