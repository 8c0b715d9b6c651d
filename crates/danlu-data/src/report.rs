//! What became of every document on its way into a corpus.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::source::BadRecord;

/// Examples kept of each step, and the characters of text shown in each.
pub(crate) const EXAMPLES: usize = 3;
const EXAMPLE_CHARACTERS: usize = 100;
const REASON_CHARACTERS: usize = 240;

/// A number of documents and the bytes of their text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub documents: u64,
    pub bytes: u64,
}

impl Count {
    pub fn add(&mut self, bytes: u64) {
        self.documents += 1;
        self.bytes += bytes;
    }

    fn merge(&mut self, other: Self) {
        self.documents += other.documents;
        self.bytes += other.bytes;
    }
}

/// A document that a step dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    pub origin: String,
    /// What the step measured, or what it is a copy of.
    pub why: String,
    /// The beginning of its text, on one line.
    pub text: String,
}

/// One way for a document to be dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// What the rule says and the paper it comes from.
    pub rule: String,
    pub count: Count,
    pub examples: Vec<Example>,
}

/// The report of `data add`, also `report.json` and, as text, `report.txt` in the corpus folder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub name: String,
    pub sources: Vec<String>,
    pub files: Count,
    /// Documents that could be read, before any rule.
    pub read: Count,
    /// Records that could not be read; all are in `quarantine.jsonl`.
    pub quarantined: Dropped,
    /// Files that were passed over, by extension.
    pub skipped: BTreeMap<String, u64>,
    /// Lines taken out of documents that were kept.
    pub lines_removed: BTreeMap<String, Count>,
    /// Dropped documents by step, in the order of the steps.
    pub dropped: Vec<(String, Dropped)>,
    pub languages: BTreeMap<String, Count>,
    pub train: Count,
    pub held_out: Count,
    /// Seconds the whole took, not written to disk so that equal inputs give equal files.
    #[serde(skip)]
    pub seconds: f64,
}

impl Report {
    /// Counts a dropped document under `step`.
    pub(crate) fn drop_document(&mut self, step: &str, rule: &str, bytes: u64, example: impl FnOnce() -> Example) {
        let index = self.dropped.iter().position(|(name, _)| name == step).unwrap_or_else(|| {
            self.dropped.push((step.to_owned(), Dropped { rule: rule.to_owned(), ..Default::default() }));
            self.dropped.len() - 1
        });
        self.dropped[index].1.add(bytes, example);
    }

    /// Counts a record that could not be read.
    pub(crate) fn quarantine(&mut self, bad: &BadRecord) {
        self.quarantined.add(bad.bytes, || Example::new(&bad.origin, bad.reason.as_str(), ""));
    }

    /// Adds the counts of documents that came after those of `self`.
    pub(crate) fn merge(&mut self, later: Self) {
        self.read.merge(later.read);
        self.quarantined.merge(later.quarantined);
        for (rule, count) in later.lines_removed {
            self.lines_removed.entry(rule).or_default().merge(count);
        }
        for (step, dropped) in later.dropped {
            match self.dropped.iter_mut().find(|(name, _)| *name == step) {
                Some((_, mine)) => mine.merge(dropped),
                None => self.dropped.push((step, dropped)),
            }
        }
    }

    /// The report for a person: one line for each step, its examples below it.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, count: Count, note: &str| {
            let _ = writeln!(out, "{name:<28} {:>12} {:>12}  {note}", thousands(count.documents), size(count.bytes));
        };
        line("files", self.files, &self.sources.join(" "));
        line("documents read", self.read, "");
        line("quarantined", self.quarantined.count, "see quarantine.jsonl");
        for (step, dropped) in &self.dropped {
            line(&format!("- {step}"), dropped.count, &dropped.rule);
        }
        for (rule, count) in &self.lines_removed {
            line(&format!("- lines: {rule}"), *count, "lines taken out of documents that stay");
        }
        line("train", self.train, "");
        line("held out", self.held_out, "");
        if !self.languages.is_empty() {
            let mut languages: Vec<_> = self.languages.iter().collect();
            languages.sort_by_key(|(name, count)| (std::cmp::Reverse(count.bytes), *name));
            let shown: Vec<_> = languages.iter().take(8).map(|(name, count)| format!("{name} {}", size(count.bytes))).collect();
            let _ = writeln!(out, "languages: {}", shown.join(", "));
        }
        if !self.skipped.is_empty() {
            let mut skipped: Vec<_> = self.skipped.iter().collect();
            skipped.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), *name));
            let total: u64 = self.skipped.values().sum();
            let shown: Vec<_> = skipped.iter().take(8).map(|(name, count)| format!("{name} {count}")).collect();
            let _ =
                writeln!(out, "passed over, not a kind of file this reads: {} files ({})", thousands(total), shown.join(", "));
        }
        let all = self.dropped.iter().map(|(step, dropped)| (step.as_str(), dropped));
        for (step, dropped) in std::iter::once(("quarantined", &self.quarantined)).chain(all) {
            for example in &dropped.examples {
                let _ = writeln!(out, "  {step}: {}: {}", example.origin, example.why);
                if !example.text.is_empty() {
                    let _ = writeln!(out, "      {}", example.text);
                }
            }
        }
        out
    }
}

impl Dropped {
    fn merge(&mut self, later: Self) {
        self.count.merge(later.count);
        let free = EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(later.examples.into_iter().take(free));
    }

    pub(crate) fn add(&mut self, bytes: u64, example: impl FnOnce() -> Example) {
        self.count.add(bytes);
        if self.examples.len() < EXAMPLES {
            self.examples.push(example());
        }
    }
}

impl Example {
    pub(crate) fn new(origin: &str, why: impl Into<String>, text: &str) -> Self {
        let mut why = why.into();
        if let Some((end, _)) = why.char_indices().nth(REASON_CHARACTERS) {
            why.truncate(end);
            why.push('…');
        }
        // Only the beginning is looked at: a document may be megabytes without a space.
        let beginning: String = text.chars().take(4 * EXAMPLE_CHARACTERS).collect();
        let line: String = beginning.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(EXAMPLE_CHARACTERS).collect();
        Self { origin: origin.to_owned(), why, text: line }
    }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}
