//! JSON: the text of a record, and the elements of a JSON file without holding the file.

use std::fmt;
use std::io::BufRead;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::reader::Raw;
use super::{InputFile, RECORD_LIMIT};

/// The text of one JSON record: the record itself when it is a string, else the values of `keys` joined by a blank line; without
/// keys, the value of `text`, else of `content`.
///
/// # Errors
/// Why there is no text: not JSON, no such key (with the keys there are), or a value that is not a string.
pub(super) fn text(record: &[u8], keys: &[String]) -> Result<String, String> {
    let record = record.trim_ascii();
    if record.starts_with(b"\"") {
        return serde_json::from_slice(record).map_err(|e| format!("is not JSON: {e}"));
    }
    let mut json = serde_json::Deserializer::from_slice(record);
    let found = Wanted { keys }.deserialize(&mut json).and_then(|found| json.end().map(|()| found));
    let Found { texts, others } = found.map_err(|e| format!("is not a JSON record: {e}"))?;
    let missing = |key: &str| {
        let others = others.join(", ");
        format!("has no text under {key}; its keys are: {others}. Name the key that holds the text")
    };
    if keys.is_empty() {
        return texts.into_iter().flatten().next().ok_or_else(|| missing("`text` or `content`"));
    }
    let texts: Vec<String> =
        keys.iter().zip(texts).map(|(key, text)| text.ok_or_else(|| missing(&format!("`{key}`")))).collect::<Result<_, _>>()?;
    Ok(texts.join("\n\n"))
}

struct Wanted<'a> {
    keys: &'a [String],
}

struct Found {
    /// In the order of the keys that were asked for.
    texts: Vec<Option<String>>,
    /// Names of the record's keys, a few of them, for the message.
    others: Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let default = ["text".to_owned(), "content".to_owned()];
        let keys = if self.keys.is_empty() { &default[..] } else { self.keys };
        let mut found = Found { texts: vec![None; keys.len()], others: Vec::new() };
        while let Some(key) = map.next_key::<String>()? {
            match keys.iter().position(|wanted| *wanted == key) {
                Some(index) => found.texts[index] = map.next_value::<MaybeText>()?.0,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            if found.others.len() < 20 {
                found.others.push(key);
            }
        }
        Ok(found)
    }
}

/// A string, or nothing for any other value, so that a chat's list under `content` is a missing text and not a syntax error.
struct MaybeText(Option<String>);

impl<'de> serde::Deserialize<'de> for MaybeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Option<String>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Some(text.to_owned()))
            }
            fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
                Ok(Some(text))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(None)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(None)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(None)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(None)
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(None)
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(None)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(None)
            }
        }
        deserializer.deserialize_any(Text).map(Self)
    }
}

/// The elements of one large array, or the values of one large object, cut out by counting brackets. Each is parsed by itself later.
pub(super) struct Elements {
    file: Arc<InputFile>,
    reader: Box<dyn BufRead + Send>,
    /// Open brackets; the elements are inside the first.
    depth: u64,
    in_string: bool,
    escaped: bool,
    /// Whether the file is an object, where what stands before a colon is a key.
    object: bool,
    element: Vec<u8>,
    /// Bytes of the current element, also those past the limit that were not kept.
    length: u64,
    number: u64,
    ended: bool,
}

impl Elements {
    pub fn new(file: Arc<InputFile>, reader: Box<dyn BufRead + Send>) -> Self {
        Self {
            file,
            reader,
            depth: 0,
            in_string: false,
            escaped: false,
            object: false,
            element: Vec::new(),
            length: 0,
            number: 0,
            ended: false,
        }
    }

    /// Takes one byte; true when an element ended before it.
    fn step(&mut self, byte: u8) -> Result<bool, String> {
        if self.in_string {
            self.keep(byte);
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return Ok(false);
        }
        match byte {
            b'[' | b'{' => {
                self.depth += 1;
                if self.depth == 1 {
                    self.object = byte == b'{';
                    return Ok(false);
                }
            }
            b']' | b'}' => {
                self.depth = self.depth.checked_sub(1).ok_or("is not JSON: a bracket closes that was not opened")?;
                if self.depth == 0 {
                    return Ok(true);
                }
            }
            b',' if self.depth == 1 => return Ok(true),
            b':' if self.depth == 1 && self.object => {
                self.element.clear();
                self.length = 0;
                return Ok(false);
            }
            b'"' => self.in_string = true,
            0xef | 0xbb | 0xbf | b' ' | b'\t' | b'\r' | b'\n' if self.depth == 0 || self.length == 0 => return Ok(false),
            _ => {}
        }
        if self.depth == 0 {
            return Err("is not a JSON array or object".to_owned());
        }
        self.keep(byte);
        Ok(false)
    }

    fn keep(&mut self, byte: u8) {
        self.length += 1;
        if self.element.len() < RECORD_LIMIT {
            self.element.push(byte);
        }
    }

    fn fail(&mut self, reason: String) -> Option<Raw> {
        self.ended = true;
        let place = (self.number > 0).then_some(self.number + 1);
        Some(Raw::bad(&self.file, place, reason, self.file.bytes))
    }
}

impl Iterator for Elements {
    type Item = Raw;

    fn next(&mut self) -> Option<Raw> {
        while !self.ended {
            let buffer = match self.reader.fill_buf() {
                Ok([]) if self.depth == 0 && self.number > 0 => return None,
                Ok([]) => return self.fail("ends in the middle of its JSON".to_owned()),
                Ok(buffer) => buffer.to_vec(),
                Err(error) => return self.fail(format!("cannot be read further: {error}")),
            };
            for (i, byte) in buffer.iter().enumerate() {
                match self.step(*byte) {
                    Ok(false) => continue,
                    Err(reason) => return self.fail(reason),
                    Ok(true) => {}
                }
                self.reader.consume(i + 1);
                let bytes = std::mem::take(&mut self.element);
                let length = std::mem::take(&mut self.length);
                self.ended = self.depth == 0;
                if length == 0 && self.ended {
                    return None;
                }
                self.number += 1;
                let place = Some(self.number);
                if length > RECORD_LIMIT as u64 {
                    return Some(Raw::too_long(&self.file, place, length));
                }
                if self.object && !bytes.starts_with(b"{") {
                    let hint = "is one JSON record and not a list of records; give it one record a line (.jsonl), or an array";
                    return self.fail(hint.to_owned());
                }
                return Some(Raw::Record { file: Arc::clone(&self.file), place, bytes });
            }
            let length = buffer.len();
            self.reader.consume(length);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Format;

    fn check_text(record: &str, keys: &[&str], expected: Result<&str, &str>) {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        match (text(record.as_bytes(), &keys), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            (found, _) => panic!("{record}: {found:?}"),
        }
    }

    #[test]
    fn the_text_of_a_record() {
        check_text(r#"{"id":1,"text":"a\nb","meta":{"text":"no"}}"#, &[], Ok("a\nb"));
        check_text(r#"{"content":"c"}"#, &[], Ok("c"));
        check_text(r#"{"content":"c","text":"t"}"#, &[], Ok("t"));
        check_text(r#"{"a":"x","b":"y"}"#, &["b", "a"], Ok("y\n\nx"));
        check_text(r#""only a string""#, &[], Ok("only a string"));
        check_text(r#"{"a":"x","b":["y"]}"#, &["b"], Err("its keys are: a, b"));
        check_text(r#"{"body":"x"}"#, &[], Err("no text under `text` or `content`; its keys are: body"));
        check_text(r#"{"text":"x""#, &[], Err("not a JSON record"));
        check_text(r#"{"text":"x"} {"text":"y"}"#, &[], Err("trailing"));
        check_text("[1]", &[], Err("expected an object"));
        check_text(&"[".repeat(100_000), &[], Err("not a JSON record"));
        check_text(&format!(r#"{{"a":{}"#, "[".repeat(100_000)), &[], Err("not a JSON record"));
    }

    fn check_elements(json: &str, expected: &[&str]) {
        let file =
            InputFile { path: "a.json".into(), label: "a".into(), format: Format::Json, bytes: 0, text_keys: Vec::new().into() };
        let reader = Box::new(std::io::BufReader::with_capacity(3, std::io::Cursor::new(json.as_bytes().to_vec())));
        let found: Vec<String> = Elements::new(Arc::new(file), reader)
            .map(|raw| match raw {
                Raw::Record { bytes, .. } => String::from_utf8(bytes).unwrap().trim().to_owned(),
                Raw::Bad(bad) => format!("bad: {}", bad.reason),
                Raw::File(_) => panic!(),
            })
            .collect();
        assert_eq!(found, expected, "{json}");
    }

    #[test]
    fn the_elements_of_a_file() {
        check_elements(
            r#" [ {"text": "a,]\"}"} , "b" , {"x": [1, {"y": 2}]} ] "#,
            &[r#"{"text": "a,]\"}"}"#, r#""b""#, r#"{"x": [1, {"y": 2}]}"#],
        );
        check_elements(r#"{"one, [two]": {"text": "a"}, "b": {"text": "c"}}"#, &[r#"{"text": "a"}"#, r#"{"text": "c"}"#]);
        check_elements("[]", &[]);
        check_elements("{}", &[]);
        check_elements(r#"[{"a": 1}, {"b""#, &[r#"{"a": 1}"#, "bad: ends in the middle of its JSON"]);
        check_elements("", &["bad: ends in the middle of its JSON"]);
        check_elements("plain", &["bad: is not a JSON array or object"]);
        check_elements("]", &["bad: is not JSON: a bracket closes that was not opened"]);
        let one = "bad: is one JSON record and not a list of records; give it one record a line (.jsonl), or an array";
        check_elements(r#"{"text": "a"}"#, &[one]);
    }
}
