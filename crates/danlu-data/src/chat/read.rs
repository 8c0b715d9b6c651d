//! Reading conversations from files: JSON lines, JSON arrays and parquet, packed or not.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, bail};
use serde_json::Value;

use super::form::{self, Form};
use super::{Conversation, Role};
use crate::source::{BadRecord, Raw, Reader, Source, resolve};

/// How many records may be bad before reading stops: this many at most, or this share of all, whichever is more.
const BAD_RECORDS: usize = 20;
const BAD_SHARE: f64 = 0.05;
/// Examples of bad records in a message.
const SHOWN: usize = 3;

/// Records of one kind, and what became of the others.
#[derive(Clone, Debug)]
pub struct Records<T> {
    /// In the order of the files.
    pub records: Vec<T>,
    /// The form of each file, detected from its first record.
    pub forms: Vec<(String, Form)>,
    /// Records that were passed over: file and line (or number), and the reason.
    pub bad: Vec<BadRecord>,
}

/// The conversations of `sources`, each with an assistant's answer to learn from.
///
/// # Errors
/// When a source does not exist, or more records are bad than a few: the first of them, with file, line and reason.
pub fn read(sources: &[Source]) -> Result<Records<Conversation>> {
    read_with(sources, |record| {
        let (form, conversation) = form::conversation(record)?;
        if !conversation.messages.iter().any(|message| message.role == Role::Assistant) {
            return Err("has no answer of an assistant".to_owned());
        }
        Ok((form, conversation))
    })
}

/// [`read`] of records that hold more than a conversation (pairs of answers, labels): `parse` gets each record and says what it is, or why
/// it cannot be used.
///
/// # Errors
/// As [`read`].
pub fn read_with<T>(sources: &[Source], parse: impl Fn(&Value) -> Result<(Form, T), String>) -> Result<Records<T>> {
    let inputs = resolve(sources, &[])?;
    let mut found = Records { records: Vec::new(), forms: Vec::new(), bad: inputs.bad };
    for file in inputs.files {
        let label = file.label.clone();
        let mut form = None;
        for raw in Reader::json(file) {
            match one(raw, &parse, &mut form, &label) {
                Ok(record) => found.records.push(record),
                Err(bad) => found.bad.push(bad),
            }
        }
        found.forms.extend(form.map(|form| (label, form)));
    }
    let total = found.records.len() + found.bad.len();
    if found.bad.len() > BAD_RECORDS.max((total as f64 * BAD_SHARE) as usize) || found.records.is_empty() {
        bail!(
            "{} of {total} records cannot be used, which is too many to go on without them:{}",
            found.bad.len(),
            found.examples()
        );
    }
    Ok(found)
}

fn one<T>(
    raw: Raw,
    parse: impl Fn(&Value) -> Result<(Form, T), String>,
    expected: &mut Option<Form>,
    label: &str,
) -> Result<T, BadRecord> {
    let (place, bytes) = match raw {
        Raw::Bad(bad) => return Err(bad),
        Raw::Record { place, bytes, .. } => (place, bytes),
        Raw::File(file) => {
            let reason = "is not JSON, JSON lines or parquet; conversations are read from those".to_owned();
            return Err(BadRecord { origin: file.label.clone(), reason, bytes: file.bytes });
        }
    };
    let size = bytes.len() as u64;
    let mut read = || {
        let record: Value = serde_json::from_slice(&bytes).map_err(|error| format!("is not JSON: {error}"))?;
        let (form, found) = parse(&record)?;
        match *expected.get_or_insert(form) {
            same if same == form => Ok(found),
            other => Err(format!("is of the form {form}, and the file's first record is of the form {other}")),
        }
    };
    read().map_err(|reason| {
        let origin = place.map_or_else(|| label.to_owned(), |place| format!("{label}:{place}"));
        BadRecord { origin, reason, bytes: size }
    })
}

impl<T> Records<T> {
    /// What was read, for a person: the form of each file and what was passed over.
    pub fn summary(&self) -> String {
        let mut forms: BTreeMap<Form, Vec<&str>> = BTreeMap::new();
        self.forms.iter().for_each(|(file, form)| forms.entry(*form).or_default().push(file));
        let name = |path: &str| path.rsplit(['/', '\\']).next().unwrap_or(path).to_owned();
        let forms = forms.iter().map(|(form, files)| match files.as_slice() {
            [one] => format!("{} is {form}", name(one)),
            many => format!("{} files are {form}", many.len()),
        });
        let mut text = format!("{} records; {}", self.records.len(), forms.collect::<Vec<_>>().join(", "));
        if !self.bad.is_empty() {
            let _ = write!(text, "; {} could not be used:{}", self.bad.len(), self.examples());
        }
        text
    }

    fn examples(&self) -> String {
        let mut text = String::new();
        for bad in self.bad.iter().take(SHOWN) {
            let _ = write!(text, "\n  {} {}", bad.origin, bad.reason);
        }
        if self.bad.len() > SHOWN {
            let _ = write!(text, "\n  …");
        }
        text
    }
}
