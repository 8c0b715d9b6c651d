//! A file of tasks that are asked in context: what stands in it, its bounds, and how a text becomes a question.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use danlu_train::recipe::StorySpec;
use serde::Deserialize;

/// Such a file may have this many bytes.
pub const LIMIT: u64 = 1 << 20;

/// Tasks, and with how many demonstrations each is asked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FewShot {
    pub name: String,
    /// What it retells, for `danlu train --list`.
    pub story: StorySpec,
    /// Numbers of demonstrations that stand before a question.
    pub shots: Vec<usize>,
    /// How often demonstrations are drawn anew, from 1 to 100; without any there is nothing to draw.
    pub draws: usize,
    /// Held-out questions of a task, taken evenly, at least 2.
    pub items: usize,
    /// The share that is held out: the same as a recipe's, so that what a model was trained on is not what it is asked.
    pub held_out: f64,
    /// Decides which demonstrations are drawn.
    pub seed: u64,
    /// Also take away what labels have before anything is asked (Zhao 2021).
    pub calibrate: bool,
    #[serde(rename = "task")]
    pub tasks: Vec<Task>,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Task {
    pub name: String,
    /// Texts with labels, or questions with answers: a file, or a name of the catalogue.
    pub source: String,
    /// What is asked of a text, which stands at `{text}`.
    pub prompt: String,
    /// What follows, the label or the answer at `{label}`.
    pub answer: String,
    /// What stands between a demonstration and the next, and ends an answer.
    pub between: String,
    /// In which words each label of the data is said. Empty: as it is there.
    pub labels: BTreeMap<String, String>,
    /// Each question has an answer of its own, which is right when the model writes just that; else labels are weighed against each other.
    pub open: bool,
    /// A text is cut after so many characters.
    pub characters: usize,
}

impl Default for FewShot {
    fn default() -> Self {
        Self {
            name: String::new(),
            story: StorySpec::default(),
            shots: vec![0, 1, 4, 8],
            draws: 3,
            items: 100,
            held_out: 0.1,
            seed: 0,
            calibrate: false,
            tasks: vec![],
        }
    }
}

impl Default for Task {
    fn default() -> Self {
        Self {
            name: String::new(),
            source: String::new(),
            prompt: String::new(),
            answer: " {label}".into(),
            between: "\n\n".into(),
            labels: BTreeMap::new(),
            open: false,
            characters: 400,
        }
    }
}

impl FewShot {
    /// # Errors
    /// When the file cannot be read, or something in it is wrong: what and where.
    pub fn load(path: &Path) -> Result<Self> {
        let text = danlu_files::read_text_bounded(path, LIMIT).context("a file of tasks could not be read")?;
        Self::from_toml(&text).with_context(|| format!("{} is no file of few-shot tasks", path.display()))
    }

    /// # Errors
    /// As [`FewShot::load`].
    pub fn from_toml(text: &str) -> Result<Self> {
        let mut file: Self = toml::from_str(text)?;
        file.shots.sort_unstable();
        file.shots.dedup();
        ensure!(!file.tasks.is_empty(), "it has no [[task]]");
        let most = file.shots.last().context("`shots` is empty; give numbers of demonstrations, such as [0, 1, 4, 8]")?;
        ensure!(*most <= 1000 && file.shots.len() <= 32, "`shots` has at most 32 numbers, from 0 to 1000");
        ensure!((1..=100).contains(&file.draws), "`draws` is {}; it must be from 1 to 100", file.draws);
        ensure!((2..=10_000).contains(&file.items), "`items` is {}; it must be from 2 to 10000", file.items);
        ensure!(file.held_out > 0.0 && file.held_out < 1.0, "`held_out` is {}; it must be above 0 and below 1", file.held_out);
        let mut names = BTreeSet::new();
        for task in &file.tasks {
            task.check().with_context(|| format!("in the task {:?}", task.name))?;
            ensure!(names.insert(&task.name), "two tasks are called {:?}", task.name);
        }
        Ok(file)
    }
}

impl Task {
    fn check(&self) -> Result<()> {
        ensure!(!self.name.is_empty() && !self.source.is_empty(), "a task has a `name` and a `source`");
        ensure!(self.prompt.contains("{text}"), "`prompt` has no {{text}}, where the text of a question stands");
        ensure!(self.answer.contains("{label}"), "`answer` has no {{label}}, where the label or the answer stands");
        ensure!(!self.between.is_empty(), "`between` is empty, so that nothing would end an answer");
        ensure!((1..=10_000).contains(&self.characters), "`characters` is {}; it must be from 1 to 10000", self.characters);
        ensure!(self.labels.is_empty() || !self.open, "`labels` are for tasks that are not `open`");
        let words: BTreeSet<&String> = self.labels.values().collect();
        ensure!(words.len() == self.labels.len(), "`labels` says two labels in the same words");
        Ok(())
    }

    /// The text in one line, cut where it is long.
    pub fn shortened(&self, text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(self.characters).collect()
    }

    /// What is asked of a text that is shortened already.
    pub fn question(&self, text: &str) -> String {
        self.prompt.replace("{text}", text)
    }

    pub fn said(&self, label: &str) -> String {
        self.answer.replace("{label}", label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = "[[task]]\nname = 'a'\nsource = 'x.jsonl'\nprompt = 'Q: {text}'\n";

    #[test]
    fn what_is_left_out_has_defaults() {
        let file = FewShot::from_toml(&format!("shots = [4, 0, 4]\n{TASK}")).unwrap();
        assert_eq!((file.shots, file.draws, file.calibrate), (vec![0, 4], 3, false));
        let task = &file.tasks[0];
        assert_eq!(task.question("a {label}"), "Q: a {label}");
        assert_eq!((task.said("yes").as_str(), task.between.as_str()), (" yes", "\n\n"));
        assert_eq!(Task { characters: 5, ..task.clone() }.shortened(" 一 二\n三四 "), "一 二 三");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("shots = [1]\n".to_owned(), "no [[task]]"),
            (format!("shot = [1]\n{TASK}"), "shot"),
            (format!("shots = []\n{TASK}"), "`shots` is empty"),
            (format!("draws = 0\n{TASK}"), "`draws` is 0"),
            (format!("{TASK}{TASK}"), "two tasks are called \"a\""),
            (format!("{TASK}answer = 'x'\n"), "{label}"),
            (TASK.replace("{text}", ""), "{text}"),
            (format!("{TASK}open = true\nlabels = {{ a = 'b' }}\n"), "not `open`"),
            (format!("{TASK}labels = {{ a = 'x', b = 'x' }}\n"), "same words"),
        ] {
            let error = format!("{:#}", FewShot::from_toml(&text).unwrap_err());
            assert!(error.contains(part), "{error:?} lacks {part:?}");
        }
    }
}
