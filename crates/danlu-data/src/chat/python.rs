//! What Jinja templates take for granted because their first home is Python: `json.dumps`, and methods of strings.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

/// The whitespace that Python's `str.strip` removes: Unicode's, and four separators of ASCII that Rust does not count.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// The `iterable` test: over nothing one cannot iterate, which templates rely on to find out whether there are tools.
pub(super) fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// How Python writes a value, where that is otherwise than Jinja's: numbers with a fraction or an exponent, and what holds such numbers.
pub(super) fn written(value: &Value) -> Option<String> {
    let inside = |value: &Value| written(value).unwrap_or_else(|| format!("{value:?}"));
    match value.kind() {
        ValueKind::Number if !value.is_integer() => f64::try_from(value.clone()).ok().map(float),
        ValueKind::Seq | ValueKind::Map if holds_fraction(value) => {
            let items: Vec<Value> = value.try_iter().ok()?.collect();
            Some(if value.kind() == ValueKind::Seq {
                format!("[{}]", items.iter().map(inside).collect::<Vec<_>>().join(", "))
            } else {
                let entry = |key: &Value| Some(format!("{}: {}", inside(key), inside(&value.get_item(key).ok()?)));
                format!("{{{}}}", items.iter().map(entry).collect::<Option<Vec<_>>>()?.join(", "))
            })
        }
        _ => None,
    }
}

fn holds_fraction(value: &Value) -> bool {
    let mut inside = value.try_iter().into_iter().flatten();
    match value.kind() {
        ValueKind::Number => !value.is_integer(),
        ValueKind::Seq => inside.any(|item| holds_fraction(&item)),
        ValueKind::Map => inside.any(|key| value.get_item(&key).is_ok_and(|item| holds_fraction(&item))),
        _ => false,
    }
}

/// The `trim` filter, of whatever Python makes a text of.
pub(super) fn trim(value: &Value, characters: Option<&str>) -> String {
    let text = match value.as_str() {
        Some(text) => text.to_owned(),
        None => written(value).unwrap_or_else(|| value.to_string()),
    };
    match characters {
        Some(characters) => text.trim_matches(|c| characters.contains(c)).to_owned(),
        None => text.trim_matches(is_space).to_owned(),
    }
}

/// Methods of Python's values that Jinja's do not have.
pub(super) fn method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (Some(text), first) = (value.as_str(), arguments.first().and_then(Value::as_str)) else {
        return minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments);
    };
    match (name, arguments, first) {
        ("strip", [], _) => Ok(text.trim_matches(is_space).into()),
        ("lstrip", [], _) => Ok(text.trim_start_matches(is_space).into()),
        ("rstrip", [], _) => Ok(text.trim_end_matches(is_space).into()),
        ("split", [], _) => Ok(text.split(is_space).filter(|word| !word.is_empty()).map(Value::from).collect()),
        ("removeprefix", [_], Some(prefix)) => Ok(text.strip_prefix(prefix).unwrap_or(text).into()),
        ("removesuffix", [_], Some(suffix)) => Ok(text.strip_suffix(suffix).unwrap_or(text).into()),
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments),
    }
}

/// The `tojson` filter as `transformers` defines it: `json.dumps` with `ensure_ascii` off by default.
pub(super) fn tojson(value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let argument = |at: usize, name: &str| -> Result<Option<Value>, Error> {
        let value = match positional.get(at) {
            Some(value) => Some(value.clone()),
            None => named.get::<Option<Value>>(name)?,
        };
        Ok(value.filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let indent = argument(1, "indent")?.map(|indent| match indent.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(indent.as_i64().unwrap_or(0).clamp(0, 64) as usize),
    });
    let separators = match argument(2, "separators")? {
        Some(pair) => (pair.get_item_by_index(0)?.to_string(), pair.get_item_by_index(1)?.to_string()),
        None => (if indent.is_some() { ",".to_owned() } else { ", ".to_owned() }, ": ".to_owned()),
    };
    let dump = Dump {
        ensure_ascii: argument(0, "ensure_ascii")?.is_some_and(|value| value.is_true()),
        sort_keys: argument(3, "sort_keys")?.is_some_and(|value| value.is_true()),
        indent,
        item: separators.0,
        key: separators.1,
    };
    named.assert_all_used()?;
    let mut out = String::new();
    dump.value(value, 0, &mut out)?;
    Ok(Value::from_safe_string(out))
}

struct Dump {
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<String>,
    item: String,
    key: String,
}

impl Dump {
    fn value(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
            ValueKind::Number => out.push_str(&float(f64::try_from(value.clone())?)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list('[', ']', &items, depth, out, |item, out| self.value(item, depth + 1, out))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.list('{', '}', &keys, depth, out, |key, out| {
                    match key.kind() {
                        ValueKind::String => self.string(key.as_str().unwrap_or_default(), out),
                        ValueKind::Undefined | ValueKind::Seq | ValueKind::Map | ValueKind::Bytes => {
                            return Err(unserializable(key));
                        }
                        _ => {
                            out.push('"');
                            self.value(key, depth, out)?;
                            out.push('"');
                        }
                    }
                    out.push_str(&self.key);
                    self.value(&value.get_item(key)?, depth + 1, out)
                })?;
            }
            _ => return Err(unserializable(value)),
        }
        Ok(())
    }

    fn list(
        &self,
        open: char,
        close: char,
        items: &[Value],
        depth: usize,
        out: &mut String,
        mut each: impl FnMut(&Value, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(open);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push_str(&self.item);
            }
            self.newline(depth + 1, out);
            each(item, out)?;
        }
        if !items.is_empty() {
            self.newline(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn newline(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

fn unserializable(value: &Value) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("a value of the kind {} cannot be written as JSON", value.kind()))
}

/// Python's `repr` of a float: the shortest digits that read back, with an exponent below 1e-4 and from 1e16.
fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    let text = value.to_string();
    if text.contains('.') { text } else { text + ".0" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_does() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (1e-4, "0.0001"),
            (1.25e-5, "1.25e-05"),
            (-2.5, "-2.5"),
            (123456.789, "123456.789"),
        ] {
            assert_eq!(float(value), expected);
        }
    }
}
