//! From the shapes that packages have to documents.

use std::borrow::Cow;
use std::fmt::{self, Formatter};
use std::io::{BufRead, BufReader, Read};

use anyhow::{Context, Result};
use flate2::read::MultiGzDecoder;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::Shape;
use super::help::{self, Page};
use crate::labelled::spaced;

/// The largest dictionary text that is read.
const MAX_DICTIONARY: u64 = 1 << 30;
/// Entries of a dictionary are put together to documents of about this many bytes: one alone is too short to learn from.
const DICTIONARY_DOCUMENT: usize = 4 << 10;

/// A page of help, in a file of its own.
pub(super) fn page(name: &str, file: &mut dyn Read) -> Result<Page> {
    let mut html = String::new();
    file.read_to_string(&mut html)?;
    Ok(Page::parse(name, &html))
}

/// The paragraphs of a page of help, each with its page, its name there and its language.
pub(super) fn paragraphs(path: &str, file: &mut dyn Read, each: &mut dyn FnMut(Value) -> Result<()>) -> Result<()> {
    let mut html = String::new();
    file.read_to_string(&mut html)?;
    let (page, language) = Page::head(path, &html);
    let all = help::paragraphs(&page, &html);
    all.into_iter().try_for_each(|one| each(json!({ "page": page, "id": one.id, "language": language, "text": one.text })))
}

/// Reads the documents of the file `name` in order.
pub(super) fn documents(
    shape: &Shape,
    name: &str,
    file: &mut dyn Read,
    document: &mut dyn FnMut(String) -> Result<()>,
) -> Result<()> {
    match shape {
        Shape::Files
        | Shape::Crates
        | Shape::Questions
        | Shape::Paragraphs
        | Shape::Arithmetic { .. }
        | Shape::Copying
        | Shape::LabelledLines { .. }
        | Shape::LabelledRecords { .. }
        | Shape::TaggedWords => Ok(()),
        Shape::Help => document(page(name, file)?.text()),
        Shape::Records { fields } => records(file, &mut |record| document(join_fields(&record, fields))),
        Shape::Conversations { messages, text } => records(file, &mut |record| {
            let mut lines = Vec::new();
            collect(&record[messages.as_str()], text, &mut lines);
            document(lines.join("\n"))
        }),
        Shape::Lines => {
            for line in BufReader::new(file).split(b'\n') {
                let line = line?;
                let line = String::from_utf8_lossy(&line);
                if !line.trim().is_empty() {
                    document(line.trim().to_owned())?;
                }
            }
            Ok(())
        }
        Shape::Tagged => {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            document(text.lines().map(untag).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n"))
        }
        Shape::TaggedLines => {
            for line in BufReader::new(file).split(b'\n') {
                let line = line?;
                document(untag(&String::from_utf8_lossy(&line)))?;
            }
            Ok(())
        }
        Shape::Dictionary => dictionary(file, document),
    }
}

pub(super) fn join_fields(record: &Value, fields: &[String]) -> String {
    let text = |field: &String| match &record[field.as_str()] {
        Value::String(text) => Some(text.clone()),
        Value::Array(lines) => Some(lines.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")),
        _ => None,
    };
    fields.iter().filter_map(text).filter(|text| !text.trim().is_empty()).collect::<Vec<_>>().join("\n")
}

/// The strings under `key`, however deep, in order.
fn collect(value: &Value, key: &str, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, key, found)),
        Value::Object(map) => {
            if let Some(text) = map.get(key).and_then(Value::as_str) {
                // A message of several lines stays one line, so that lines are turns.
                found.push(text.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
        _ => {}
    }
}

/// Gives the elements of a JSON array, or the values of an object, one at a time.
pub(super) fn records(file: &mut dyn Read, each: &mut dyn FnMut(Value) -> Result<()>) -> Result<()> {
    let mut failed = None;
    let mut json = serde_json::Deserializer::from_reader(BufReader::with_capacity(1 << 18, file));
    let read = json.deserialize_any(Records { each, failed: &mut failed });
    match failed {
        Some(error) => Err(error),
        None => read.context("it is not JSON of the expected form"),
    }
}

struct Records<'a> {
    each: &'a mut dyn FnMut(Value) -> Result<()>,
    failed: &'a mut Option<anyhow::Error>,
}

impl Records<'_> {
    fn give<E: serde::de::Error>(&mut self, record: Value) -> Result<(), E> {
        (self.each)(record).map_err(|error| {
            *self.failed = Some(error);
            E::custom("stopped")
        })
    }
}

impl<'de> Visitor<'de> for Records<'_> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str("an array or an object of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while let Some(record) = items.next_element_seed(AnyValue)? {
            self.give(record)?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while items.next_key::<serde::de::IgnoredAny>()?.is_some() {
            let record = items.next_value_seed(AnyValue)?;
            self.give(record)?;
        }
        Ok(())
    }
}

struct AnyValue;

impl<'de> DeserializeSeed<'de> for AnyValue {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        serde::Deserialize::deserialize(deserializer)
    }
}

/// `The/at jury/nn said/vbd ,/,` as "The jury said,".
fn untag(line: &str) -> String {
    let mut text = String::new();
    let mut glue = true;
    for token in line.split_whitespace() {
        let word = token.rsplit_once('/').map_or(token, |(word, _)| word);
        let word = match word {
            "``" | "''" => Cow::Borrowed("\""),
            word => Cow::Borrowed(word),
        };
        let opens = token.starts_with("``") || matches!(&*word, "(" | "[" | "{");
        let closes = token.starts_with("''") || matches!(&*word, "," | "." | ";" | ":" | "?" | "!" | ")" | "]" | "}");
        if !glue && !closes && spaced(text.chars().next_back(), word.chars().next()) {
            text.push(' ');
        }
        text.push_str(&word);
        glue = opens;
    }
    text
}

fn dictionary(file: &mut dyn Read, document: &mut dyn FnMut(String) -> Result<()>) -> Result<()> {
    let mut text = String::new();
    let mut after_empty = false;
    // dictd's format is gzip with extra fields, in several members when large.
    for line in BufReader::new(MultiGzDecoder::new(file).take(MAX_DICTIONARY)).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let begins = after_empty && !line.starts_with([' ', '\t']) && !line.is_empty();
        if begins && text.len() >= DICTIONARY_DOCUMENT {
            document(std::mem::take(&mut text).trim().to_owned())?;
        }
        after_empty = line.trim().is_empty();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if text.trim().is_empty() { Ok(()) } else { document(text.trim().to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn check(shape: &Shape, file: &[u8], expected: &[&str]) {
        let mut found = Vec::new();
        documents(shape, "", &mut &file[..], &mut |text| {
            found.push(text);
            Ok(())
        })
        .unwrap();
        assert_eq!(found, expected, "{shape:?}");
    }

    #[test]
    fn each_shape_gives_its_documents() {
        let fields = Shape::Records { fields: vec!["title".into(), "lines".into()] };
        let list = br#"[{"title":"A","lines":["x","y"],"id":1},{"lines":"z"},{"title":null}]"#;
        check(&fields, list, &["A\nx\ny", "z", ""]);
        check(&fields, br#"{"one":{"title":"A"},"two":{"title":"B"}}"#, &["A", "B"]);
        let talk = Shape::Conversations { messages: "messages".into(), text: "text".into() };
        check(
            &talk,
            br#"{"k":{"messages":[[{"text":"Hi"},{"text":"how\nare you"}],[{"text":"fine"}]]}}"#,
            &["Hi\nhow are you\nfine"],
        );
        check(&Shape::Lines, "一\n\n 二 \n".as_bytes(), &["一", "二"]);
        let tagged = b"\n\tThe/at jury/nn said/vbd ``/`` no/at evidence/nn ''/'' (/( or/cc 1\\/2/cd )/) ./.\n\nSo/rb ?/.\n";
        check(&Shape::Tagged, tagged, &["The jury said \"no evidence\" (or 1\\/2).\nSo?"]);
        check(
            &Shape::TaggedLines,
            "江/nr 泽民/nr  １２月/t on/in time/nn ./.\n\nb/x\n".as_bytes(),
            &["江泽民１２月on time.", "", "b"],
        );
        let entry = |word: &str| format!("{word} n.\n   {}\n\n", "a meaning ".repeat(300));
        let text = ["Abacus", "Abbey", "Abbot"].map(entry).concat();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        let two: Vec<String> =
            [["Abacus", "Abbey"].map(entry).concat(), entry("Abbot")].map(|text| text.trim().replace(" \n", "\n")).to_vec();
        check(&Shape::Dictionary, &gzip.finish().unwrap(), &two.iter().map(String::as_str).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_of_another_form_is_an_error() {
        for file in [&b"[{\"title\":"[..], b"42", b"", b"\xff"] {
            let shape = Shape::Records { fields: vec![] };
            assert!(documents(&shape, "", &mut &file[..], &mut |_| Ok(())).is_err());
        }
        let stop =
            documents(&Shape::Records { fields: vec![] }, "", &mut &b"[1]"[..], &mut |_| anyhow::bail!("the disk is full"));
        assert!(stop.unwrap_err().to_string().contains("the disk is full"));
    }
}
