//! Reading paragraphs of two languages, and putting together those that belong to each other.

use std::collections::HashMap;

use anyhow::{Result, bail};
use serde_json::Value;

use super::{Dropped, Pair};
use crate::source::{BadRecord, Raw, Reader, Source, resolve};

/// How many records may be bad before reading stops: this many at most, or this share of all, whichever is more.
const BAD_RECORDS: usize = 20;
const BAD_SHARE: f64 = 0.05;
/// Examples of bad records in a message.
const SHOWN: usize = 3;
/// Texts are held in memory, so that no more is read than this.
const MAX_BYTES: u64 = 4 << 30;

/// Pairs in the order of the files, and what became of the rest.
#[derive(Clone, Debug, Default)]
pub struct Parallel {
    pub pairs: Vec<Pair>,
    pub dropped: Dropped,
    /// Records that could not be used: file and line, and the reason.
    pub bad: Vec<BadRecord>,
}

/// What a record is.
enum Record {
    /// `{"en": "…", "zh": "…"}`, with a `page` or without.
    Whole(Pair),
    /// `{"page": "…", "id": "…", "language": "en", "text": "…"}`: one side.
    Half { place: (String, String), side: usize, text: String },
    /// A paragraph of a third language.
    Other,
}

/// The paragraphs of `sources` in the languages `from` and `to` (ISO 639-1), aligned by page and name where they are not beside each other
/// already. Left out is what only one language has, what was not translated, and what is not in its language.
///
/// # Errors
/// When a source does not exist, more records are bad than a few, or nothing can be aligned.
pub fn read(sources: &[Source], from: &str, to: &str) -> Result<Parallel> {
    let inputs = resolve(sources, &[])?;
    let (mut whole, mut bad, mut left) = (vec![], inputs.bad, MAX_BYTES);
    let mut order: Vec<(String, String)> = vec![];
    let mut halves: HashMap<(String, String), [Option<String>; 2]> = HashMap::new();
    let (mut records, mut twice, mut others) = (0, 0, 0);
    for file in inputs.files {
        let label = file.label.clone();
        for raw in Reader::json(file) {
            records += 1;
            match record(raw, &label, &mut left, [from, to]) {
                Ok(Record::Whole(pair)) => whole.push(pair),
                Ok(Record::Other) => others += 1,
                Ok(Record::Half { place, side, text }) => {
                    let sides = halves.entry(place.clone()).or_insert_with(|| {
                        order.push(place);
                        [None, None]
                    });
                    if sides[side].is_some() {
                        twice += 1;
                    } else {
                        sides[side] = Some(text);
                    }
                }
                Err(reason) => bad.push(reason),
            }
        }
    }
    if bad.len() > BAD_RECORDS.max((records as f64 * BAD_SHARE) as usize) {
        let examples: String = bad.iter().take(SHOWN).map(|bad| format!("\n  {} {}", bad.origin, bad.reason)).collect();
        bail!("{} of {records} records cannot be used, which is too many to go on without them:{examples}", bad.len());
    }
    let (mut lonely, mut pairs) = (0, whole);
    for place in order {
        match halves.remove(&place) {
            Some([Some(source), Some(target)]) => pairs.push(Pair { page: place.0, source, target }),
            _ => lonely += 1,
        }
    }
    let aligned = pairs.len();
    pairs.retain(|pair| pair.source != pair.target);
    let translated = pairs.len();
    pairs.retain(|pair| is_in(from, &pair.source) && is_in(to, &pair.target));
    if pairs.is_empty() {
        bail!(
            "no paragraph is there in both \"{from}\" and \"{to}\": {records} records were read, {lonely} paragraphs are in one of the two \
             alone; records are {{\"page\", \"id\", \"language\", \"text\"}} or {{\"{from}\": \"…\", \"{to}\": \"…\"}}"
        );
    }
    let dropped = vec![
        ("in one language alone", lonely),
        ("there twice", twice),
        ("of other languages", others),
        ("not translated", aligned - translated),
        ("not in their language", translated - pairs.len()),
    ];
    Ok(Parallel { pairs, dropped, bad })
}

/// Whether a text can be of a language: has its characters.
fn is_in(language: &str, text: &str) -> bool {
    let ideograph = |c: char| matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{20000}'..='\u{3ffff}');
    match language {
        "zh" => text.chars().any(ideograph),
        "en" => text.chars().any(|c| c.is_ascii_alphabetic()),
        _ => text.chars().any(char::is_alphabetic),
    }
}

fn record(raw: Raw, label: &str, left: &mut u64, languages: [&str; 2]) -> Result<Record, BadRecord> {
    let (place, bytes) = match raw {
        Raw::Bad(bad) => return Err(bad),
        Raw::Record { place, bytes, .. } => (place, bytes),
        Raw::File(file) => {
            let reason = "is not JSON, JSON lines or parquet; paragraphs of two languages are read from those".to_owned();
            return Err(BadRecord { origin: file.label.clone(), reason, bytes: file.bytes });
        }
    };
    let size = bytes.len() as u64;
    let mut read = || {
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| format!("is not JSON: {error}"))?;
        *left =
            left.checked_sub(size).ok_or_else(|| format!("comes after {MAX_BYTES} bytes, the most that are held in memory"))?;
        of(&value, languages)
    };
    read().map_err(|reason: String| {
        let origin = place.map_or_else(|| label.to_owned(), |place| format!("{label}:{place}"));
        BadRecord { origin, reason, bytes: size }
    })
}

fn of(value: &Value, [from, to]: [&str; 2]) -> Result<Record, String> {
    let text = |key: &str| value[key].as_str().map(one_line);
    if let (Some(source), Some(target)) = (text(from), text(to)) {
        // A pair by itself is a page of its own.
        let page = text("page").unwrap_or_else(|| source.clone());
        return Ok(Record::Whole(Pair { page, source, target }));
    }
    let needed = |key: &str| text(key).ok_or_else(|| format!("has neither \"{from}\" and \"{to}\" nor the text \"{key}\""));
    let language = needed("language")?;
    let Some(side) = [from, to].iter().position(|known| *known == language) else { return Ok(Record::Other) };
    Ok(Record::Half { place: (needed("page")?, needed("id")?), side, text: needed("text")? })
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::parallel::described;

    fn read_lines(lines: &[&str]) -> Result<Parallel> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pairs.jsonl");
        fs::write(&path, lines.join("\n")).unwrap();
        read(&[Source::Path(path.display().to_string())], "en", "zh")
    }

    #[test]
    fn paragraphs_of_the_same_name_belong_together() {
        let found = read_lines(&[
            r#"{"page":"a","id":"1","language":"en","text":"Line  Color"}"#,
            r#"{"page":"a","id":"2","language":"en","text":"=SUM(A1)"}"#,
            r#"{"page":"a","id":"3","language":"en","text":"Show"}"#,
            r#"{"page":"b","id":"1","language":"en","text":"Other"}"#,
            r#"{"page":"a","id":"1","language":"en","text":"again"}"#,
            r#"{"page":"a","id":"3","language":"fr","text":"Afficher"}"#,
            r#"{"page":"a","id":"2","language":"zh","text":"=SUM(A1)"}"#,
            r#"{"page":"a","id":"1","language":"zh","text":"线条颜色"}"#,
            r#"{"page":"a","id":"3","language":"zh","text":"Anzeigen"}"#,
            r#"{"en":"Paste","zh":"粘贴"}"#,
        ])
        .unwrap();
        let pairs: Vec<(&str, &str, &str)> =
            found.pairs.iter().map(|pair| (pair.page.as_str(), pair.source.as_str(), pair.target.as_str())).collect();
        assert_eq!(pairs, [("Paste", "Paste", "粘贴"), ("a", "Line Color", "线条颜色")]);
        let dropped = "1 in one language alone, 1 there twice, 1 of other languages, 1 not translated, 1 not in their language";
        assert_eq!(described(&found.dropped), dropped);
    }

    #[test]
    fn what_cannot_be_aligned_is_an_error_that_says_what_is_read() {
        let error = read_lines(&[r#"{"page":"a","id":"1","language":"en","text":"x"}"#]).unwrap_err().to_string();
        assert!(error.contains("in both \"en\" and \"zh\"") && error.contains("1 paragraphs"), "{error}");
        let error = read_lines(&[r#"{"text":"x"}"#; 30]).unwrap_err().to_string();
        assert!(error.contains("30 of 30") && error.contains("\"language\""), "{error}");
    }
}
