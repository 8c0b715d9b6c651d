//! One labelled text, and how a record becomes one.

use serde_json::{Map, Value, json};

/// A text, or two that stand beside each other, and what is to be said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    pub text: String,
    pub pair: Option<String>,
    pub label: Label,
    /// The user's own numbers beside the text, in the order of [`Columns::numbers`].
    pub numbers: Vec<f64>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Label {
    Class(String),
    Number(f64),
    /// The text's words in order, each with its tag; the text is these words put together.
    Tags(Vec<(String, String)>),
}

/// What kind of label a text has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    Classes,
    Numbers,
    Tags,
}

/// Which keys of a record, or columns of a table, hold what. Without a name the usual ones are tried.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    pub text: Option<String>,
    pub pair: Option<String>,
    pub label: Option<String>,
    pub numbers: Vec<String>,
}

const TEXTS: [&str; 6] = ["text", "sentence", "review", "content", "comment", "sentence1"];
const LABELS: [&str; 6] = ["label", "class", "category", "sentiment", "score", "rating"];
const WORDS: [&str; 3] = ["tokens", "words", "text"];
const TAGS: [&str; 5] = ["tags", "ner_tags", "pos_tags", "labels", "label"];
/// More characters than any model reads; what is longer is no text but a mistake.
const LONGEST: usize = 1 << 20;

impl Example {
    /// Where the text falls when some are held out: a hash of what is read, so that repeats fall together whatever file they are in.
    pub fn lot(&self, seed: u64) -> u64 {
        let hash = blake3::hash(json!([seed, key(&self.text), self.pair.as_deref().map(key)]).to_string().as_bytes());
        u64::from_le_bytes(std::array::from_fn(|i| hash.as_bytes()[i]))
    }

    /// What makes two texts the same one: their words, whatever space is between them.
    pub fn key(&self) -> (String, Option<String>) {
        (key(&self.text), self.pair.as_deref().map(key))
    }

    /// The example of a record.
    ///
    /// # Errors
    /// What is wrong with the record, for its line in the report.
    pub fn of(record: &Value, columns: &Columns, labels: Labels) -> Result<Self, String> {
        let record = record.as_object().ok_or("is no object with a text and a label")?;
        let mut numbers = vec![];
        for name in &columns.numbers {
            let value = record.get(name).ok_or_else(|| missing(record, name))?;
            numbers.push(number(value).ok_or_else(|| format!("has {name:?} = {}, which is not a number", short(value)))?);
        }
        if labels == Labels::Tags {
            let words = list(record, "words", columns.text.as_deref(), &WORDS)?;
            let tags = list(record, "tags", columns.label.as_deref(), &TAGS)?;
            if words.len() != tags.len() || words.is_empty() {
                return Err(format!(
                    "has {} words and {} tags; there must be as many, and at least one",
                    words.len(),
                    tags.len()
                ));
            }
            if let Some(at) = words.iter().chain(&tags).position(|part| part.trim().is_empty()) {
                return Err(format!("has an empty word or tag at place {}", at % words.len() + 1));
            }
            let label = Label::Tags(words.into_iter().zip(tags).collect());
            return Ok(Self { text: label.words(), pair: None, label, numbers });
        }
        let text = text(record, columns.text.as_deref(), &TEXTS)?;
        let pair = columns.pair.as_deref().map(|name| self::text(record, Some(name), &[])).transpose()?;
        let (name, value) = find(record, "label", columns.label.as_deref(), &LABELS)?;
        let label = match (labels, value) {
            (_, Value::Null) => return Err(format!("has no {name:?}")),
            (Labels::Numbers, value) => {
                Label::Number(number(value).ok_or_else(|| format!("has {name:?} = {}, which is not a number", short(value)))?)
            }
            (_, Value::String(class)) if class.trim().is_empty() => return Err(format!("has an empty {name:?}")),
            (_, Value::String(class)) => Label::Class(class.trim().to_owned()),
            (_, Value::Number(_) | Value::Bool(_)) => Label::Class(value.to_string()),
            _ => return Err(format!("has {name:?} = {}, which is no label", short(value))),
        };
        Ok(Self { text, pair, label, numbers })
    }
}

impl Label {
    /// The words put together: with a space between them, but not where one side is written without.
    fn words(&self) -> String {
        let Self::Tags(words) = self else { return String::new() };
        let mut text = String::new();
        for (word, _) in words {
            if spaced(text.chars().next_back(), word.chars().next()) {
                text.push(' ');
            }
            text.push_str(word);
        }
        text
    }
}

/// Whether two words are written with a space between them.
pub(crate) fn spaced(before: Option<char>, after: Option<char>) -> bool {
    let dense = |c: char| matches!(u32::from(c), 0x2e80..=0x9fff | 0xf900..=0xfaff | 0xff00..=0xffef | 0x20000..=0x3ffff | 0x2014..=0x2026);
    matches!((before, after), (Some(a), Some(b)) if !dense(a) && !dense(b))
}

fn key(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn find<'a>(
    record: &'a Map<String, Value>,
    what: &str,
    named: Option<&str>,
    usual: &[&str],
) -> Result<(&'a str, &'a Value), String> {
    let found = match named {
        Some(name) => record.get_key_value(name).ok_or_else(|| missing(record, name))?,
        None => usual
            .iter()
            .find_map(|name| record.get_key_value(*name))
            .ok_or_else(|| format!("has no {what}: none of {} is among its keys {}", usual.join(", "), keys(record)))?,
    };
    Ok((found.0.as_str(), found.1))
}

fn text(record: &Map<String, Value>, named: Option<&str>, usual: &[&str]) -> Result<String, String> {
    match find(record, "text", named, usual)? {
        (_, Value::String(text)) if text.len() > LONGEST => {
            Err(format!("has a text of {} bytes; at most {LONGEST} are read", text.len()))
        }
        (_, Value::String(text)) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        (name, Value::String(_) | Value::Null) => Err(format!("has an empty {name:?}")),
        (name, other) => Err(format!("has {name:?} = {}, which is no text", short(other))),
    }
}

/// A list of words, or a text whose words stand between spaces.
fn list(record: &Map<String, Value>, what: &str, named: Option<&str>, usual: &[&str]) -> Result<Vec<String>, String> {
    let (name, value) = find(record, what, named, usual)?;
    match value {
        Value::Array(words) => words
            .iter()
            .map(|word| match word {
                Value::String(word) => Ok(word.clone()),
                Value::Number(number) => Ok(number.to_string()),
                other => Err(format!("has {} in {name:?}, which is no word", short(other))),
            })
            .collect(),
        Value::String(text) => Ok(text.split_whitespace().map(str::to_owned).collect()),
        other => Err(format!("has {name:?} = {}, which is no list", short(other))),
    }
}

fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::String(text) => text.trim().parse().ok()?,
        Value::Bool(yes) => f64::from(u8::from(*yes)),
        other => other.as_f64()?,
    };
    number.is_finite().then_some(number)
}

fn missing(record: &Map<String, Value>, name: &str) -> String {
    format!("has no {name:?}; its keys are {}", keys(record))
}

fn keys(record: &Map<String, Value>) -> String {
    record.keys().take(20).map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}
