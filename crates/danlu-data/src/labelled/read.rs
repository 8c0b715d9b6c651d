//! Reading labelled texts: JSON lines, JSON arrays and parquet; CSV and TSV with a head; CoNLL's words in lines.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, Read};

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::record::{Columns, Example, Label, Labels};
use crate::source::{BadRecord, InputFile, RECORD_LIMIT, Raw, Reader, Source, open, resolve};

/// How many records may be bad before reading stops: this many at most, or this share of all, whichever is more.
const BAD_RECORDS: usize = 20;
const BAD_SHARE: f64 = 0.05;
/// Examples of bad records in a message.
const SHOWN: usize = 3;
/// Labelled texts are held in memory, so that no more is read than this.
const MAX_BYTES: u64 = 4 << 30;

/// Labelled texts, each once, and what became of the others.
#[derive(Clone, Debug, Default)]
pub struct Labelled {
    /// In the order of the files.
    pub examples: Vec<Example>,
    /// Texts that were there before with the same label.
    pub repeats: usize,
    /// Different texts that were left out because they stand there with several labels.
    pub contradictions: usize,
    /// Records that could not be used: file and line, and the reason.
    pub bad: Vec<BadRecord>,
}

/// The labelled texts of `sources`. One that is there twice with the same label is read once; one with different classes or tags is left out.
///
/// # Errors
/// When a source does not exist, or more records are bad than a few: the first of them, with file, line and reason.
pub fn read(sources: &[Source], columns: &Columns, labels: Labels) -> Result<Labelled> {
    let inputs = resolve(sources, &[])?;
    let (mut all, mut bad, mut left) = (vec![], inputs.bad, MAX_BYTES);
    for file in inputs.files {
        records(file, labels, &mut left, &mut |origin, bytes, record| {
            let example = record.and_then(|record| Example::of(&record, columns, labels));
            match example {
                Ok(example) => all.push((example, origin)),
                Err(reason) => bad.push(BadRecord { origin, reason, bytes }),
            }
        });
    }
    let total = all.len() + bad.len();
    let found = once(all, bad);
    if found.bad.len() > BAD_RECORDS.max((total as f64 * BAD_SHARE) as usize) || found.examples.is_empty() {
        bail!(
            "{} of {total} records cannot be used, which is too many to go on without them:{}",
            found.bad.len(),
            found.reasons()
        );
    }
    Ok(found)
}

/// Gives every record of a file with its place and size, or the reason why there is none.
fn records(file: InputFile, labels: Labels, left: &mut u64, each: &mut dyn FnMut(String, u64, Result<Value, String>)) {
    let label = file.label.clone();
    let name = label.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").or(name.strip_suffix(".zst")).unwrap_or(&name);
    let table = name.ends_with(".csv").then_some(b',').or(name.ends_with(".tsv").then_some(b'\t'));
    if labels == Labels::Tags && [".conll", ".bio", ".iob", ".iob2", ".txt"].iter().any(|end| name.ends_with(end))
        || table.is_some()
    {
        let size = file.bytes;
        let opened = open(&file.path).map(|reader| reader.take(*left));
        let read = match (opened, table) {
            (Err(error), _) => Err(error.to_string()),
            (Ok(reader), Some(separator)) => rows(reader, separator, &label, each),
            (Ok(reader), None) => sentences(reader, &label, each),
        };
        if let Err(reason) = read {
            each(label, size, Err(reason));
        }
        *left = left.saturating_sub(size);
        return;
    }
    for raw in Reader::json(file) {
        match raw {
            Raw::Bad(bad) => each(bad.origin, bad.bytes, Err(bad.reason)),
            Raw::Record { place, bytes, .. } => {
                let origin = place.map_or_else(|| label.clone(), |place| format!("{label}:{place}"));
                let size = bytes.len() as u64;
                let record = match left.checked_sub(size) {
                    None => Err(format!("comes after {MAX_BYTES} bytes, the most that are held in memory")),
                    Some(rest) => {
                        *left = rest;
                        serde_json::from_slice(&bytes).map_err(|error| format!("is not JSON: {error}"))
                    }
                };
                each(origin, size, record);
            }
            Raw::File(file) => {
                let reason = "is not JSON, JSON lines, parquet, CSV or TSV; labelled texts are read from those".to_owned();
                each(label.clone(), file.bytes, Err(reason));
            }
        }
    }
}

/// A table with a head, as records of texts.
fn rows(
    reader: impl Read,
    separator: u8,
    label: &str,
    each: &mut dyn FnMut(String, u64, Result<Value, String>),
) -> Result<(), String> {
    let mut table = csv::ReaderBuilder::new().delimiter(separator).from_reader(reader);
    let head = table.byte_headers().map_err(|error| format!("has no head that can be read: {error}"))?.clone();
    let head: Vec<String> =
        head.iter().map(|name| String::from_utf8_lossy(name).trim_start_matches('\u{feff}').trim().to_owned()).collect();
    let mut row = csv::ByteRecord::new();
    loop {
        let line = table.position().line();
        match table.read_byte_record(&mut row) {
            Ok(false) => return Ok(()),
            // A row of another length: the reader has taken it and goes on behind it.
            Err(error) if !error.is_io_error() => {
                each(format!("{label}:{line}"), 0, Err(format!("is no row of this table: {error}")))
            }
            Err(error) => return Err(format!("cannot be read: {error}")),
            Ok(true) => {
                let size = row.as_slice().len();
                let record = if size > RECORD_LIMIT {
                    Err(format!("has {size} bytes; at most {RECORD_LIMIT} are read as one record"))
                } else {
                    let cell = |(name, cell): (&String, &[u8])| match std::str::from_utf8(cell) {
                        Ok(cell) => Ok((name.clone(), json!(cell))),
                        Err(error) => Err(format!("is not UTF-8 in the column {name:?}: {error}")),
                    };
                    head.iter().zip(row.iter()).map(cell).collect::<Result<Map<_, _>, _>>().map(Value::Object)
                };
                each(format!("{label}:{line}"), size as u64, record);
            }
        }
    }
}

/// Words in lines, the word first and its tag last; an empty line ends a sentence.
fn sentences(reader: impl BufRead, label: &str, each: &mut dyn FnMut(String, u64, Result<Value, String>)) -> Result<(), String> {
    let (mut words, mut tags, mut begun, mut wrong) = (vec![], vec![], 1, None);
    let mut end = |words: &mut Vec<String>, tags: &mut Vec<String>, begun: usize, wrong: &mut Option<String>| {
        let size = words.iter().map(String::len).sum::<usize>() as u64;
        let record = json!({"tokens": std::mem::take(words), "tags": std::mem::take(tags)});
        match wrong.take() {
            Some(reason) => each(format!("{label}:{begun}"), size, Err(reason)),
            None if size > 0 => each(format!("{label}:{begun}"), size, Ok(record)),
            None => {}
        }
    };
    for (number, line) in reader.lines().enumerate() {
        let line = line.map_err(|error| format!("cannot be read in line {}: {error}", number + 1))?;
        let parts: Vec<&str> = line.split_whitespace().collect();
        match parts[..] {
            [] => {
                end(&mut words, &mut tags, begun, &mut wrong);
                begun = number + 2;
            }
            ["-DOCSTART-", ..] => {}
            [word, .., tag] => {
                words.push(word.to_owned());
                tags.push(tag.to_owned());
            }
            [alone] => wrong = Some(format!("has the word {alone:?} without a tag in line {}", number + 1)),
        }
    }
    end(&mut words, &mut tags, begun, &mut wrong);
    Ok(())
}

/// Each text once. Numbers may differ for the same text, and are all kept.
fn once(all: Vec<(Example, String)>, bad: Vec<BadRecord>) -> Labelled {
    let mut found = Labelled { bad, ..Labelled::default() };
    // The first place of each text, and whether it stands there with another label.
    let mut first: HashMap<_, (usize, bool)> = HashMap::new();
    let mut kept: Vec<Option<Example>> = Vec::with_capacity(all.len());
    for (example, _) in all {
        if matches!(example.label, Label::Number(_)) {
            kept.push(Some(example));
            continue;
        }
        match first.entry(example.key()) {
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert((kept.len(), false));
                kept.push(Some(example));
            }
            std::collections::hash_map::Entry::Occupied(mut place) => {
                let (at, contradicted) = place.get_mut();
                if kept[*at].as_ref().is_some_and(|known| known.label == example.label) {
                    found.repeats += 1;
                } else if !*contradicted {
                    (*contradicted, kept[*at]) = (true, None);
                    found.contradictions += 1;
                }
            }
        }
    }
    found.examples = kept.into_iter().flatten().collect();
    found
}

impl Labelled {
    /// What was read, for a person.
    pub fn summary(&self) -> String {
        let mut text = format!("{} labelled texts", self.examples.len());
        if self.repeats > 0 {
            let _ = write!(text, "; {} repeats are read once", self.repeats);
        }
        if self.contradictions > 0 {
            let _ = write!(text, "; {} texts with several labels are left out", self.contradictions);
        }
        if !self.bad.is_empty() {
            let _ = write!(text, "; {} records could not be used:{}", self.bad.len(), self.reasons());
        }
        text
    }

    fn reasons(&self) -> String {
        let mut text = String::new();
        for bad in self.bad.iter().take(SHOWN) {
            let _ = write!(text, "\n  {} {}", bad.origin, bad.reason);
        }
        if self.bad.len() > SHOWN {
            text.push_str("\n  …");
        }
        text
    }
}
