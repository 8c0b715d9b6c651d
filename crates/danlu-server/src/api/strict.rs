//! JSON in which no object says a key twice.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// A value that is read as [`Value`] is, except that a key which an object has twice is an error: nobody can know which of the two was meant, and
/// what stands before the server may have looked at the other one (RFC 8259, 4).
pub struct Strict(pub Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
        to.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = vec![];
        while let Some(Strict(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {key:?} is there twice")));
            }
            let Strict(value) = entries.next_value()?;
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_serde_and_no_key_is_there_twice() {
        for text in [
            "null",
            "[true, -1, 18446744073709551615, 0.5, 1e300, \"a\\u00e9\\n\"]",
            "{\"a\": {\"a\": [{\"a\": 1}, {\"a\": 2}]}, \"\": {}}",
        ] {
            assert_eq!(serde_json::from_str::<Strict>(text).unwrap().0, serde_json::from_str::<Value>(text).unwrap());
        }
        for text in ["{\"a\": 1, \"b\": 2, \"a\": 1}", "{\"b\": [{\"a\": 1, \"\\u0061\": 2}]}"] {
            let error = serde_json::from_str::<Strict>(text).err().unwrap().to_string();
            assert!(error.contains("\"a\" is there twice at line 1"), "{error}");
        }
        assert!(serde_json::from_str::<Strict>(&"[".repeat(100_000)).is_err());
    }
}
