//! Held-out labels: how many are right.

use std::time::Instant;

use anyhow::{Result, ensure};
use danlu_eval::{Better, Confusion, Measure, Unit, correlation, interval};
use danlu_models::{Classifier, Task};

use super::{Classify, ClassifyRow, Targets, guesses, numbers};

const ACCURACY: Unit = Unit { name: "accuracy", label: "of labels right", better: Better::Higher };
const TAG_ACCURACY: Unit = Unit { name: "accuracy", label: "of words tagged right", better: Better::Higher };
const ERROR: Unit = Unit { name: "rmse", label: "root mean square error", better: Better::Lower };
/// Tokens that are read at once.
const TOKENS: u64 = 4096;

impl Classify {
    pub(super) fn measured(&self, model: &Classifier, tokens: u64) -> Result<Measure> {
        let start = Instant::now();
        let every = (self.held_out.iter().map(ClassifyRow::cost).sum::<u64>() / tokens.max(1)).max(1) as usize;
        let chosen: Vec<usize> = (0..self.held_out.len()).step_by(every).collect();
        ensure!(!chosen.is_empty(), "no labelled text is held out to measure with");
        let mut confusion = Confusion::new(self.labels.len().max(1));
        // Of each text the right labels and all, or the squared error and one.
        let (mut pairs, mut values, mut cost, mut read) = (vec![], vec![], 0.0, 0);
        let mut rest = &chosen[..];
        while !rest.is_empty() {
            let mut sum = 0;
            let fits = |&&i: &&usize| {
                sum += self.held_out[i].cost();
                sum <= TOKENS
            };
            let (now, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            rest = later;
            let rows: Vec<&ClassifyRow> = now.iter().map(|&i| &self.held_out[i]).collect();
            read += rows.iter().map(|row| row.cost()).sum::<u64>();
            let places: Vec<usize> = now.iter().map(|&i| self.place(i)).collect();
            let given = self.given(&rows);
            let logits = self.logits(model, &given, &places);
            let mean = f64::from(self.cost(logits.clone(), &given.targets).into_scalar::<f32>());
            match &given.targets {
                Targets::Numbers(targets) => {
                    let guessed = numbers(logits);
                    for (is, guessed) in targets.iter().zip(guessed) {
                        let (is, guessed) = (f64::from(*is), f64::from(guessed));
                        pairs.push(((is - guessed).powi(2), 1.0));
                        values.push((is, guessed));
                    }
                    cost += mean * targets.len() as f64;
                }
                Targets::Classes(targets) => {
                    let mut guessed = guesses(logits).into_iter();
                    let mut targets = targets.iter();
                    let mut counted = 0;
                    for row in rows {
                        let labels = if self.task == Task::Tags { row.cost() as usize } else { 1 };
                        let (mut right, mut all) = (0.0, 0.0);
                        for (&is, guess) in targets.by_ref().take(labels).zip(guessed.by_ref()) {
                            if is != danlu_ops::IGNORE {
                                confusion.add(is as usize, guess);
                                right += f64::from(u8::from(is as usize == guess));
                                all += 1.0;
                            }
                        }
                        counted += all as usize;
                        pairs.push((right, all));
                    }
                    cost += mean * counted as f64;
                }
            }
        }
        let (sum, all) = pairs.iter().fold((0.0, 0.0), |(a, b), pair| (a + pair.0, b + pair.1));
        ensure!(cost.is_finite() && all > 0.0, "what the model says of the held-out texts is not a number; training diverged");
        let (low, high) = interval(&pairs);
        let (unit, value, low, high, others) = match self.task {
            Task::Number => (
                ERROR,
                (sum / all).sqrt(),
                low.sqrt(),
                high.sqrt(),
                vec![("correlation", correlation(&values)), ("loss", cost / all)],
            ),
            task => {
                let unit = if task == Task::Tags { TAG_ACCURACY } else { ACCURACY };
                (unit, sum / all, low, high, vec![("macro_f1", confusion.macro_f1()), ("loss", cost / all)])
            }
        };
        Ok(Measure {
            unit,
            value,
            low,
            high,
            items: pairs.len() as u64,
            tokens: read,
            bytes: 0,
            seconds: start.elapsed().as_secs_f64(),
            others,
        })
    }
}
