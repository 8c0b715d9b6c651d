//! The questions of a task: those that demonstrate it, and those that are asked.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use danlu_data::labelled::{self, Columns, Label, Labels};
use danlu_data::sampler::shuffled;
use danlu_data::{Progress, chat, prompts};

use super::file::{FewShot, Task};
use crate::life::gate::spread;
use crate::life::kinds::sft;

/// More labels are no labels.
const MOST_LABELS: usize = 100;
/// What says nothing of what is asked, as in Zhao et al.
pub const NOTHING: [&str; 3] = ["N/A", "", "[MASK]"];

/// A text with what is to be said of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Exercise {
    pub text: String,
    pub answer: String,
}

/// A task's questions.
pub struct Exercises {
    /// What demonstrations are drawn from.
    pub train: Vec<Exercise>,
    pub asked: Vec<Exercise>,
    /// What is weighed against each other, sorted; empty where each question has its own answer.
    pub labels: Vec<String>,
}

impl Exercises {
    /// # Errors
    /// When the source cannot be had, or is too small for what the file asks.
    pub fn read(home: &Path, file: &FewShot, task: &Task, progress: &mut dyn Progress) -> Result<Self> {
        let place = sft::conversations(home, &task.source, progress)?;
        let (all, out) = if task.open {
            let records = prompts::read(&[place])?.records;
            let asked: Vec<chat::Conversation> = records.iter().map(|record| record.asked.clone()).collect();
            let out = chat::held_out(&asked, file.held_out, sft::SPLIT);
            let answered = records.iter().zip(out).filter_map(|(record, out)| {
                let answer = record.reference.answer.clone()?;
                Some((Exercise { text: task.shortened(&record.text()), answer: task.shortened(&answer) }, out))
            });
            answered.unzip::<_, _, Vec<_>, Vec<_>>()
        } else {
            let examples = labelled::read(&[place], &Columns::default(), Labels::Classes)?.examples;
            let out = labelled::held_out(&examples, file.held_out, sft::SPLIT);
            let all = examples.iter().map(|example| {
                let Label::Class(class) = &example.label else { return Ok(None) };
                let answer = match task.labels.is_empty() {
                    true => class.clone(),
                    false => {
                        let said = task.labels.get(class);
                        said.with_context(|| format!("the data has the label {class:?}, which `labels` does not say"))?.clone()
                    }
                };
                Ok(Some(Exercise { text: task.shortened(&example.text), answer }))
            });
            let all = all.collect::<Result<Vec<_>>>()?;
            all.into_iter().zip(out).filter_map(|(one, out)| Some((one?, out))).unzip()
        };
        let (mut train, mut asked) = (vec![], vec![]);
        for (exercise, out) in all.into_iter().zip(out) {
            // An empty answer could not be weighed.
            if !exercise.answer.is_empty() {
                if out { asked.push(exercise) } else { train.push(exercise) }
            }
        }
        let labels: BTreeSet<String> =
            if task.open { BTreeSet::new() } else { train.iter().chain(&asked).map(|one| one.answer.clone()).collect() };
        let most = file.shots.last().copied().unwrap_or(0);
        ensure!(
            asked.len() >= 2,
            "{} has {} held-out questions with an answer; two are needed to measure",
            task.source,
            asked.len()
        );
        ensure!(train.len() >= most, "{} has {} questions to demonstrate with, and {most} are wanted", task.source, train.len());
        ensure!(
            task.open || (2..=MOST_LABELS).contains(&labels.len()),
            "{} has {} different labels; from 2 to {MOST_LABELS} can be weighed against each other, and `open = true` is for answers of their own",
            task.source,
            labels.len()
        );
        Ok(Self { train, asked: spread(asked, file.items), labels: labels.into_iter().collect() })
    }

    /// `count` different demonstrations of a draw; fewer of the same draw are the first of them.
    pub fn demonstrations(&self, count: usize, seed: u64) -> impl Iterator<Item = &Exercise> {
        (0..count as u64).map(move |i| &self.train[shuffled(i, self.train.len() as u64, seed) as usize])
    }

    /// The share of the most frequent answer: what is right without reading a question.
    pub fn most_frequent(&self) -> f64 {
        let count = |label: &String| self.asked.iter().filter(|one| one.answer == *label).count();
        self.labels.iter().map(count).max().unwrap_or(0) as f64 / self.asked.len().max(1) as f64
    }
}
