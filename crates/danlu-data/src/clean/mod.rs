//! Cleaning one document: normalise, find its language, take out lines, ask the rules. Pure functions of the document, so that any
//! number of threads gives the same corpus.

mod c4;
pub(crate) mod decode;
mod features;
mod language;
mod repetition;
mod rules;

use serde::{Deserialize, Serialize};

use crate::source::{Document, Kind};

pub use decode::normalise;
pub use features::Profile;
pub(crate) use features::unspaced_character;
pub use rules::{RULES, Rule};

/// What cleaning may drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CleanOptions {
    /// Whether the quality rules of Gopher, C4 and Codex are asked at all.
    pub quality: bool,
    /// The fewest words of a text (or characters of one written without spaces, where 20 are asked for at most). Gopher has 50.
    pub min_words: usize,
    /// Keep only these languages, by ISO 639-3 code (`eng`, `cmn`); code has none and stays. Empty keeps all.
    pub languages: Vec<String>,
}

impl Default for CleanOptions {
    fn default() -> Self {
        Self { quality: true, min_words: 50, languages: Vec::new() }
    }
}

/// What became of a document.
pub(crate) struct Cleaned {
    /// Normalised, with its language.
    pub document: Document,
    /// Why it is dropped: the rule's step name, what it says, and what was measured.
    pub dropped: Option<(String, String, String)>,
    /// Lines taken out, by rule: number and bytes.
    pub lines_removed: Vec<(&'static str, u64, u64)>,
}

/// Cleans a document.
pub(crate) fn clean(mut document: Document, options: &CleanOptions) -> Cleaned {
    document.text = normalise(document.text);
    let mut lines_removed = Vec::new();
    let dropped = judge(&mut document, options, &mut lines_removed);
    Cleaned { document, dropped, lines_removed }
}

/// Where a step stands in the order of judgement, for the report.
pub(crate) fn step_order(step: &str) -> usize {
    let before = ["empty", "language", "c4: curly bracket"];
    let index = before.iter().position(|name| *name == step);
    index.unwrap_or_else(|| before.len() + RULES.iter().position(|rule| rule.name == step).unwrap_or(RULES.len()))
}

/// The step that drops a text, with what was measured; nothing when the text stays.
pub fn judge_text(text: &str, kind: Kind, options: &CleanOptions) -> Option<(String, String)> {
    let document = Document { text: text.to_owned(), origin: String::new(), kind, language: None };
    clean(document, options).dropped.map(|(step, _, why)| (step, why))
}

fn judge(
    document: &mut Document,
    options: &CleanOptions,
    lines_removed: &mut Vec<(&'static str, u64, u64)>,
) -> Option<(String, String, String)> {
    let drop = |step: &str, rule: &str, why: String| Some((step.to_owned(), rule.to_owned(), why));
    if document.text.is_empty() {
        return drop("empty", "nothing is left after decoding", "no text".to_owned());
    }
    if document.kind != Kind::Code {
        document.language = language::detect(&document.text);
        let wanted = |language: &String| options.languages.contains(language);
        if !options.languages.is_empty() && !document.language.as_ref().is_some_and(wanted) {
            let found = document.language.as_deref().unwrap_or("not told apart").to_owned();
            return drop("language", &format!("only {} is kept", options.languages.join(", ")), found);
        }
    }
    if !options.quality {
        return None;
    }
    if document.kind == Kind::Web {
        if let Some((step, rule)) = c4::page(&document.text) {
            return drop(step, rule, String::new());
        }
        document.text = c4::keep_lines(&document.text, lines_removed);
    }
    rules::first_broken(document, options)
        .map(|(rule, why)| (rule.name.to_owned(), format!("{} ({})", rule.says, rule.paper), why))
}
