use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use danlu_data::labelled::EncodedExample;
use danlu_models::Task;

use super::{Classify, ClassifyData};

/// A labelled text as a classifier reads it.
#[derive(Debug, Clone)]
pub struct ClassifyRow {
    /// The text itself, for people.
    pub source: String,
    /// Its tokens, where there is a backbone to read them.
    pub text: Option<EncodedExample>,
    /// Its features, where there are any.
    pub features: Vec<(u32, f32)>,
    pub target: Target,
}

/// What is to be said of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    Class(u32),
    Number(f32),
    /// Of each word, as the tokens have it.
    Tags,
}

impl Target {
    pub(super) fn class(self) -> u32 {
        if let Self::Class(class) = self { class } else { danlu_ops::IGNORE }
    }

    pub(super) fn number(self) -> f32 {
        if let Self::Number(number) = self { number } else { 0.0 }
    }
}

impl ClassifyRow {
    /// Tokens that go through the model; one where only features do.
    pub fn cost(&self) -> u64 {
        self.text.as_ref().map_or(1, |text| text.ids.len() as u64)
    }

    /// The labels it shows, by their places.
    fn classes(&self) -> Vec<u32> {
        match (self.target, &self.text) {
            (Target::Class(class), _) => vec![class],
            (Target::Tags, Some(text)) => text.tags.iter().copied().filter(|tag| *tag != danlu_ops::IGNORE).collect(),
            _ => vec![],
        }
    }
}

impl Classify {
    /// What a row is, for people.
    pub(super) fn said(&self, row: &ClassifyRow) -> String {
        match row.target {
            Target::Class(class) => self.labels[class as usize].clone(),
            Target::Number(number) => number.to_string(),
            Target::Tags => row.classes().into_iter().map(|tag| self.labels[tag as usize].as_str()).collect::<Vec<_>>().join(" "),
        }
    }
}

/// The gates before the first step.
pub(super) fn check(data: &ClassifyData) -> Result<()> {
    let ClassifyData { train, held_out, labels, task, .. } = data;
    ensure!(!train.is_empty(), "there is no labelled text to train on");
    ensure!(!held_out.is_empty(), "no labelled text is held out to measure with; raise `data.held_out` or give more texts");
    if *task == Task::Number {
        let first = train[0].target;
        ensure!(
            train.iter().any(|row| row.target != first),
            "all {} numbers to train on are {}; there is nothing to learn",
            train.len(),
            first.number()
        );
        return Ok(());
    }
    let shown = |rows: &[super::ClassifyRow]| rows.iter().flat_map(ClassifyRow::classes).collect::<BTreeSet<u32>>();
    let (learned, asked) = (shown(train), shown(held_out));
    if let [only] = learned.iter().collect::<Vec<_>>()[..] {
        bail!(
            "all {} texts to train on have the label {:?}; there is nothing to tell apart",
            train.len(),
            labels[*only as usize]
        );
    }
    for (place, label) in labels.iter().enumerate() {
        let place = place as u32;
        ensure!(
            learned.contains(&place) || asked.contains(&place),
            "no text has the label {label:?}; take it out of `classify.labels`, or give texts that have it"
        );
        ensure!(
            learned.contains(&place),
            "the label {label:?} is on held-out texts alone and never seen in training; give more texts that have it, or leave them out"
        );
    }
    Ok(())
}
