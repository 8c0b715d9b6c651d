//! Few-shot evaluation: a model is asked with some demonstrations before each question, and no weight moves
//! ([Brown et al. 2020](https://arxiv.org/abs/2005.14165)).

mod exercises;
mod file;

use std::path::Path;

use anyhow::Result;
use danlu_data::Progress;
use danlu_engine::Generator;
use danlu_eval::{Likelihood, Question, calibrated, interval, likelihoods};
use danlu_registry::{Measure, Role, SetRecord};
use serde::Serialize;
use serde_json::{Value, json};

use exercises::{Exercise, Exercises, NOTHING};
pub use file::{FewShot, Task};

/// What a model came to on a task with a number of demonstrations.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub task: String,
    pub shots: usize,
    pub draws: usize,
    pub items: usize,
    /// The share of questions that are answered right, on average over draws.
    pub right: Share,
    /// The lowest and the highest share of a single draw.
    pub range: (f64, f64),
    /// With the labels' own bias taken away.
    pub calibrated: Option<Share>,
    /// What always saying the most frequent label would come to.
    pub most_frequent: Option<f64>,
    /// BLAKE3 of all that was asked; rows with the same hash can be compared.
    pub hash: String,
}

/// A share with its 95 % interval over questions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Share {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl Share {
    /// Of how often each question was answered right. The draws of a question are one item: questions are what was sampled independently.
    fn of(items: &[f64]) -> Self {
        let pairs: Vec<(f64, f64)> = items.iter().map(|&right| (right, 1.0)).collect();
        let (low, high) = interval(&pairs);
        Self { value: items.iter().sum::<f64>() / items.len().max(1) as f64, low, high }
    }
}

/// Asks all of a task; rows in the order of the numbers of demonstrations. `each` is told of every question that was asked. What does not fit
/// into the model's context is left out with a note.
///
/// # Errors
/// When the task's questions cannot be had, or the model cannot be asked.
pub fn measure(
    home: &Path,
    generator: &Generator,
    file: &FewShot,
    task: &Task,
    each: &mut dyn FnMut(&Value) -> Result<()>,
    progress: &mut dyn Progress,
) -> Result<Vec<Row>> {
    let exercises = Exercises::read(home, file, task, progress)?;
    let asker = Asker { generator, file, task, exercises: &exercises };
    let mut rows = vec![];
    for &shots in &file.shots {
        let draws = if shots == 0 { 1 } else { file.draws };
        let context = generator.decoder().context();
        let heads: Vec<String> = (0..draws).map(|draw| asker.head(shots, draw)).collect();
        let left_out = |longest: usize| {
            format!(
                "{} with {shots} demonstrations is left out: {longest} tokens do not fit into the model's context of {context}",
                task.name
            )
        };
        // Before every question is put behind demonstrations that are too long already.
        let lengths = heads.iter().map(|head| Ok(generator.encode(head)?.len())).collect::<Result<Vec<usize>>>()?;
        if let Some(&longest) = lengths.iter().max().filter(|longest| **longest > context) {
            progress.note(&left_out(longest));
            continue;
        }
        let asked = heads.iter().map(|head| asker.questions(head)).collect::<Result<Vec<Asked>>>()?;
        let longest = asked.iter().flat_map(|draw| &draw.questions).map(Question::len).max().unwrap_or(0);
        if longest > context {
            progress.note(&left_out(longest));
            continue;
        }
        progress.start(&format!("{} with {shots} before", task.name), Some((draws * exercises.asked.len()) as u64), "questions");
        let mut all = Vec::with_capacity(draws);
        for (draw, asked) in asked.iter().enumerate() {
            let found = likelihoods(generator.decoder(), &asked.questions)?;
            asker.tell(shots, draw, asked, &found, each)?;
            all.push(asker.judged(found));
            progress.at(((draw + 1) * exercises.asked.len()) as u64);
        }
        rows.push(asker.row(shots, &asked, &all)?);
    }
    Ok(rows)
}

/// The questions of one draw: those that are asked, and behind them those that say nothing.
struct Asked {
    texts: Vec<String>,
    questions: Vec<Question>,
}

/// Which questions of a draw were answered right, as they are and calibrated.
struct Judged {
    right: Vec<bool>,
    calibrated: Option<Vec<bool>>,
}

struct Asker<'a> {
    generator: &'a Generator,
    file: &'a FewShot,
    task: &'a Task,
    exercises: &'a Exercises,
}

impl Asker<'_> {
    fn calibrates(&self) -> bool {
        self.file.calibrate && !self.task.open
    }

    /// The demonstrations of a draw, as they stand before a question.
    fn head(&self, shots: usize, draw: usize) -> String {
        let task = self.task;
        let one = |one: &Exercise| task.question(&one.text) + &task.said(&one.answer) + &task.between;
        self.exercises.demonstrations(shots, self.file.seed.wrapping_add(draw as u64)).map(one).collect()
    }

    fn questions(&self, head: &str) -> Result<Asked> {
        let (task, exercises) = (self.task, self.exercises);
        let tokens = |text: &str| self.generator.tokenizer().encode(text);
        let labels = exercises.labels.iter().map(|label| tokens(&task.said(label))).collect::<Result<Vec<_>>>()?;
        let (mut texts, mut questions) = (vec![], vec![]);
        let nothing = NOTHING.iter().filter(|_| self.calibrates());
        let asked = exercises.asked.iter().map(|one| (one.text.as_str(), Some(&one.answer)));
        for (text, answer) in asked.chain(nothing.map(|text| (*text, None))) {
            let text = head.to_owned() + &task.question(text);
            let prompt = self.generator.encode(&text)?;
            if prompt.is_empty() && answer.is_none() {
                // Without demonstrations and words of its own a prompt of nothing is nothing.
                continue;
            }
            // An answer of its own must also end where it ends.
            let answers = match answer.filter(|_| task.open) {
                Some(answer) => vec![tokens(&(task.said(answer) + &task.between))?],
                None => labels.clone(),
            };
            questions.push(Question { prompt, answers });
            texts.push(text);
        }
        Ok(Asked { texts, questions })
    }

    fn judged(&self, found: Vec<Vec<Likelihood>>) -> Judged {
        let (asked, nothing) = found.split_at(self.exercises.asked.len());
        if self.task.open {
            return Judged {
                right: asked.iter().map(|answers| answers.iter().all(|one| one.greedy)).collect(),
                calibrated: None,
            };
        }
        let numbers = |answers: &Vec<Likelihood>| answers.iter().map(|one| one.log_prob).collect::<Vec<f64>>();
        let is = |i: usize, log_probs: &[f64]| self.exercises.labels[best(log_probs)] == self.exercises.asked[i].answer;
        let of_nothing: Vec<Vec<f64>> = nothing.iter().map(numbers).collect();
        let calibrated = |(i, answers)| is(i, &calibrated(&numbers(answers), &of_nothing));
        Judged {
            right: asked.iter().enumerate().map(|(i, answers)| is(i, &numbers(answers))).collect(),
            calibrated: self.calibrates().then(|| asked.iter().enumerate().map(calibrated).collect()),
        }
    }

    fn row(&self, shots: usize, asked: &[Asked], all: &[Judged]) -> Result<Row> {
        let items = self.exercises.asked.len();
        let shares = |of: &[&Vec<bool>]| -> Vec<f64> {
            let right = |i: usize| of.iter().filter(|draw| draw[i]).count() as f64 / of.len().max(1) as f64;
            (0..items).map(right).collect()
        };
        let of_draw = |draw: &Judged| draw.right.iter().filter(|right| **right).count() as f64 / items.max(1) as f64;
        let of_draws: Vec<f64> = all.iter().map(of_draw).collect();
        let calibrated: Vec<&Vec<bool>> = all.iter().filter_map(|draw| draw.calibrated.as_ref()).collect();
        let texts: Vec<&Vec<String>> = asked.iter().map(|draw| &draw.texts).collect();
        let answers: Vec<&String> = self.exercises.asked.iter().map(|one| &one.answer).collect();
        Ok(Row {
            task: self.task.name.clone(),
            shots,
            draws: all.len(),
            items,
            right: Share::of(&shares(&all.iter().map(|draw| &draw.right).collect::<Vec<_>>())),
            range: (of_draws.iter().copied().fold(1.0, f64::min), of_draws.iter().copied().fold(0.0, f64::max)),
            calibrated: (!calibrated.is_empty()).then(|| Share::of(&shares(&calibrated))),
            most_frequent: (!self.task.open).then(|| self.exercises.most_frequent()),
            hash: danlu_files::hash_bytes(&serde_json::to_vec(&(texts, answers, &self.exercises.labels, self.task.open))?),
        })
    }

    fn tell(
        &self,
        shots: usize,
        draw: usize,
        asked: &Asked,
        found: &[Vec<Likelihood>],
        each: &mut dyn FnMut(&Value) -> Result<()>,
    ) -> Result<()> {
        let begin = self.generator.encode("")?;
        for (i, (text, found)) in asked.texts.iter().zip(found).enumerate() {
            let exercise = self.exercises.asked.get(i);
            let answers: Vec<String> = match exercise.filter(|_| self.task.open) {
                Some(one) => vec![self.task.said(&one.answer) + &self.task.between],
                None => self.exercises.labels.iter().map(|label| self.task.said(label)).collect(),
            };
            each(&json!({
                "task": self.task.name, "shots": shots, "draw": draw, "begin": begin, "prompt": text, "answers": answers,
                "log_probs": found.iter().map(|one| one.log_prob).collect::<Vec<_>>(),
                "greedy": found.iter().map(|one| one.greedy).collect::<Vec<_>>(),
                "right": exercise.map(|one| &one.answer),
            }))?;
        }
        Ok(())
    }
}

fn best(log_probs: &[f64]) -> usize {
    let ahead = |best: usize, i: usize| if log_probs[i] > log_probs[best] { i } else { best };
    (0..log_probs.len()).fold(0, ahead)
}

/// Rows as a model's record keeps them.
pub fn records(rows: &[Row]) -> Vec<SetRecord> {
    let record = |row: &Row, share: Share, unit: &str, label: &str| SetRecord {
        set: format!("{}, {} shots", row.task, row.shots),
        unit: unit.into(),
        label: label.into(),
        higher_is_better: true,
        role: Role::Also,
        measure: Measure { value: share.value, low: Some(share.low), high: Some(share.high) },
        items: row.items as u64,
        hash: danlu_files::hash_bytes(format!("{unit} {}", row.hash).as_bytes()),
        change: None,
    };
    let both = |row: &Row| {
        let plain = record(row, row.right, "few_shot_accuracy", "of answers right");
        let other = row.calibrated.map(|share| record(row, share, "calibrated_accuracy", "of answers right, calibrated"));
        std::iter::once(plain).chain(other).collect::<Vec<_>>()
    };
    rows.iter().flat_map(both).collect()
}

/// Whether a file is one of few-shot tasks, whatever else is wrong with it.
pub fn is_one(path: &Path) -> bool {
    let text = danlu_files::read_text_bounded(path, file::LIMIT);
    text.is_ok_and(|text| toml::from_str::<toml::Table>(&text).is_ok_and(|table| table.contains_key("task")))
}
