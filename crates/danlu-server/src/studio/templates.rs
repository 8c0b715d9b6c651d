//! Prompts to use again: a system message, examples of questions and answers, and a question, with variables as `{{name}}`.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::conversations::{self, Begun, Whole};
use super::messages::Role;
use super::{Visit, check_short, missing};
use crate::api::Body;
use crate::error::ApiError;
use crate::rates::Caller;

/// More templates than anybody looks through.
const MOST: i64 = 1000;
/// A few examples show what is meant; each is two messages.
const MOST_EXAMPLES: usize = 50;
/// The longest text that comes of a template, in bytes: a long value may stand in it many times.
const LONGEST: usize = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    #[serde(default, skip_deserializing)]
    id: i64,
    name: String,
    #[serde(default)]
    system: String,
    /// The question.
    body: String,
    #[serde(default)]
    examples: Vec<Example>,
    /// The variables in all of these, as they first appear.
    #[serde(default, skip_deserializing)]
    variables: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    user: String,
    assistant: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Use {
    values: BTreeMap<String, String>,
}

/// A conversation that was begun from a template, and the question to send.
#[derive(Debug, Serialize)]
pub struct Applied {
    conversation: Whole,
    text: String,
}

impl Template {
    fn of(row: &Row) -> rusqlite::Result<Self> {
        let examples: String = row.get(4)?;
        let template = Self {
            id: row.get(0)?,
            name: row.get(1)?,
            system: row.get(2)?,
            body: row.get(3)?,
            examples: serde_json::from_str(&examples).unwrap_or_default(),
            variables: vec![],
        };
        Ok(template.with_variables())
    }

    fn with_variables(mut self) -> Self {
        let mut seen = BTreeSet::new();
        let examples = self.examples.iter().flat_map(|example| [&example.user, &example.assistant]);
        let texts = std::iter::once(&self.system).chain(examples).chain([&self.body]);
        let names = texts.flat_map(|text| parts(text)).filter_map(|part| match part {
            Part::Variable(name) => Some(name.to_owned()),
            Part::Text(_) => None,
        });
        self.variables = names.filter(|name| seen.insert(name.clone())).collect();
        self
    }

    fn check(&self) -> Result<(), ApiError> {
        check_short(&self.name, "name")?;
        let wrong = |message: String, param: &str| Err(ApiError::bad_request(message).param(param));
        if self.name.trim().is_empty() || self.body.trim().is_empty() {
            return wrong("a template needs a name and a question".to_owned(), "name");
        }
        if self.examples.len() > MOST_EXAMPLES {
            return wrong(format!("there are {} examples; at most {MOST_EXAMPLES} are taken", self.examples.len()), "examples");
        }
        if self.examples.iter().any(|example| example.user.trim().is_empty() || example.assistant.trim().is_empty()) {
            return wrong("an example needs a question and an answer".to_owned(), "examples");
        }
        Ok(())
    }
}

/// A piece of a text with variables.
#[derive(Debug, PartialEq)]
enum Part<'a> {
    Text(&'a str),
    Variable(&'a str),
}

/// Takes a text apart. Braces around anything but a name of letters, digits and `_` are text.
fn parts(mut text: &str) -> Vec<Part<'_>> {
    let mut found = vec![];
    let mut from = 0;
    while let Some(open) = text[from..].find("{{").map(|at| from + at) {
        // Only as far as a name could go, so that many braces take no longer than other text.
        let rest = &text[open + 2..];
        let name = &rest[..rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ' ')).unwrap_or(rest.len())];
        let is_name = !name.trim().is_empty() && !name.trim().contains(' ') && rest[name.len()..].starts_with("}}");
        if is_name {
            found.extend([Part::Text(&text[..open]), Part::Variable(name.trim())]);
            text = &rest[name.len() + 2..];
            from = 0;
        } else {
            from = open + 1;
        }
    }
    found.push(Part::Text(text));
    found
}

/// The text with its variables replaced. What stands in a value is not looked at again.
fn fill(text: &str, values: &BTreeMap<String, String>) -> Result<String, ApiError> {
    let wrong = |message: String| ApiError::bad_request(message).param("values");
    let mut filled = String::new();
    for part in parts(text) {
        filled.push_str(match part {
            Part::Text(text) => text,
            Part::Variable(name) => values.get(name).ok_or_else(|| wrong(format!("the variable {name} has no value")))?,
        });
        if filled.len() > LONGEST {
            return Err(wrong(format!("a text with these values has more than {LONGEST} bytes")));
        }
    }
    Ok(filled)
}

const COLUMNS: &str = "id, name, system, body, examples";

fn of(db: &Connection, caller: &Caller, id: i64) -> Result<Template, ApiError> {
    let query = format!("SELECT {COLUMNS} FROM templates WHERE id = ?1 AND owner = ?2");
    db.query_row(&query, params![id, caller.name], Template::of).optional()?.ok_or_else(|| missing("template"))
}

fn examples(template: &Template) -> String {
    // Texts are always JSON.
    serde_json::to_string(&template.examples).unwrap_or_default()
}

pub async fn list(Visit { desk, caller, .. }: Visit) -> Result<Json<Vec<Template>>, ApiError> {
    desk.store(move |db| {
        let mut query = db.prepare(&format!("SELECT {COLUMNS} FROM templates WHERE owner = ?1 ORDER BY name, id"))?;
        let found = query.query_map(params![caller.name], Template::of)?.collect::<rusqlite::Result<_>>()?;
        Ok(Json(found))
    })
    .await
}

pub async fn create(Visit { desk, caller, .. }: Visit, Body(template): Body<Template>) -> Result<Json<Template>, ApiError> {
    template.check()?;
    desk.store(move |db| {
        let count: i64 =
            db.query_row("SELECT count(*) FROM templates WHERE owner = ?1", params![caller.name], |row| row.get(0))?;
        if count >= MOST {
            return Err(ApiError::bad_request(format!("there are {MOST} templates; remove some first")));
        }
        db.execute(
            "INSERT INTO templates (owner, name, system, body, examples) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![caller.name, template.name, template.system, template.body, examples(&template)],
        )?;
        of(db, &caller, db.last_insert_rowid()).map(Json)
    })
    .await
}

pub async fn change(
    Visit { desk, caller, place: id }: Visit<i64>,
    Body(template): Body<Template>,
) -> Result<Json<Template>, ApiError> {
    template.check()?;
    desk.store(move |db| {
        of(db, &caller, id)?;
        db.execute(
            "UPDATE templates SET name = ?2, system = ?3, body = ?4, examples = ?5 WHERE id = ?1",
            params![id, template.name, template.system, template.body, examples(&template)],
        )?;
        of(db, &caller, id).map(Json)
    })
    .await
}

pub async fn remove(Visit { desk, caller, place: id }: Visit<i64>) -> Result<Json<Value>, ApiError> {
    desk.store(move |db| {
        of(db, &caller, id)?;
        db.execute("DELETE FROM templates WHERE id = ?1", params![id])?;
        Ok(Json(json!({"removed": id})))
    })
    .await
}

/// Begins a conversation with a template's examples.
pub async fn apply(
    Visit { desk, caller, place: id }: Visit<i64>,
    Body(Use { values }): Body<Use>,
) -> Result<Json<Applied>, ApiError> {
    desk.store(move |db| {
        let transaction = db.transaction()?;
        let template = of(&transaction, &caller, id)?;
        let mut begun = vec![];
        for example in &template.examples {
            begun.push(Begun { role: Role::User, content: fill(&example.user, &values)? });
            begun.push(Begun { role: Role::Assistant, content: fill(&example.assistant, &values)? });
        }
        let (system, text) = (fill(&template.system, &values)?, fill(&template.body, &values)?);
        let made = conversations::new(&transaction, &caller, (&template.name, &system), "{}", &begun)?;
        let conversation = conversations::whole(&transaction, &caller, made)?;
        transaction.commit()?;
        Ok(Json(Applied { conversation, text }))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_found_and_filled_once() {
        let values = BTreeMap::from([("a".to_owned(), "{{b}}".to_owned()), ("名".to_owned(), "猫".to_owned())]);
        for (text, filled) in [
            ("", ""),
            ("no variable { } }} {{", "no variable { } }} {{"),
            ("x {{a}} y {{ 名 }}", "x {{b}} y 猫"),
            ("{{not this}} {{a}}", "{{not this}} {{b}}"),
            ("{{{a}}}", "{{{b}}}"),
            ("{{}} {{a}}", "{{}} {{b}}"),
        ] {
            assert_eq!(fill(text, &values).unwrap(), filled, "{text:?}");
        }
        assert!(fill("{{c}}", &values).is_err());
        assert_eq!(fill(&"{".repeat(1_000_000), &values).unwrap().len(), 1_000_000);
        let long = BTreeMap::from([("a".to_owned(), "x".repeat(1000))]);
        assert!(fill(&"{{a}}".repeat(2000), &long).is_err());
    }
}
