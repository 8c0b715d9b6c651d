//! JSON that a schema accepts.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use danlu_data::prompts::Reference;
use jsonschema::Validator;
use serde_json::Value;

use crate::code::fenced;
use crate::{Answer, Reward};

/// No schema in use is near this size, in bytes.
const LIMIT: u64 = 4 << 20;

pub struct Schema {
    /// None when each question has its own.
    fixed: Option<Validator>,
}

impl Schema {
    /// # Errors
    /// When the file cannot be read or is no schema.
    pub fn new(file: Option<&str>) -> Result<Self> {
        let read = |file: &str| {
            let text = danlu_files::read_text_bounded(Path::new(file), LIMIT).context("`rewards.schema.file` cannot be read")?;
            let schema = serde_json::from_str(&text).with_context(|| format!("{file} is not JSON"))?;
            compile(&schema).with_context(|| format!("{file} is no JSON schema"))
        };
        Ok(Self { fixed: file.map(read).transpose()? })
    }
}

fn compile(schema: &Value) -> Result<Validator> {
    jsonschema::validator_for(schema).map_err(|error| anyhow!("{error}"))
}

fn own(reference: &Reference) -> Result<Validator> {
    let schema =
        reference.schema.as_ref().context("the question comes without a `schema`, and `rewards.schema.file` is not given")?;
    compile(schema).context("the question's `schema` is no JSON schema")
}

impl Reward for Schema {
    fn name(&self) -> &'static str {
        "schema"
    }

    fn score(&self, answer: &Answer) -> Result<f64> {
        let text = fenced(answer.text).unwrap_or(answer.text);
        let Ok(value) = serde_json::from_str::<Value>(text) else { return Ok(0.0) };
        let valid = match &self.fixed {
            Some(validator) => validator.is_valid(&value),
            None => own(answer.reference)?.is_valid(&value),
        };
        Ok(f64::from(valid))
    }

    fn accepts(&self, reference: &Reference) -> Result<()> {
        if self.fixed.is_some() { Ok(()) } else { own(reference).map(drop) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_accepted_by_its_schema() {
        let schema = json!({"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}, "required": ["age"]});
        let reference = Reference { schema: Some(schema.clone()), ..Reference::default() };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("schema.json");
        std::fs::write(&file, schema.to_string()).unwrap();
        for rule in [Schema::new(None).unwrap(), Schema::new(file.to_str()).unwrap()] {
            let check = |text: &str, want: f64| {
                let found = rule.score(&Answer { text, tokens: 1, ended: true, reference: &reference }).unwrap();
                assert_eq!(found, want, "{text:?}");
            };
            check(r#" {"age": 3} "#, 1.0);
            check("```json\n{\"age\": 3}\n```", 1.0);
            check("Here it is: {\"age\": 3}", 0.0);
            check(r#"{"age": -3}"#, 0.0);
            check(r#"{"age": 3"#, 0.0);
            check("[]", 0.0);
        }
    }

    #[test]
    fn what_is_no_schema_is_an_error() {
        assert!(Schema::new(Some("/no/such.json")).is_err());
        let bad = Reference { schema: Some(json!({"type": 3})), ..Reference::default() };
        assert!(Schema::new(None).unwrap().accepts(&bad).is_err());
        assert!(Schema::new(None).unwrap().accepts(&Reference::default()).is_err());
    }
}
