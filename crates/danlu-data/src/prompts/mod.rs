//! Questions for reinforcement learning: what is asked, and what an answer is judged by.

pub mod arithmetic;
pub mod copying;

use anyhow::Result;
use serde_json::{Value, json};

use crate::chat::form::{self, Form};
use crate::chat::{Conversation, Message, Records, Role, read_with};
use crate::source::Source;

/// What is known about the right answer to a question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reference {
    pub answer: Option<String>,
    /// Programs that fail when the code before them is wrong.
    pub tests: Vec<String>,
    /// A JSON schema.
    pub schema: Option<Value>,
}

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Up to the message that is to be answered, with the tools there are.
    pub asked: Conversation,
    pub reference: Reference,
}

impl Prompt {
    /// What is asked, without who speaks: for models that know no chat template.
    pub fn text(&self) -> String {
        self.asked.messages.iter().map(Message::text).collect::<Vec<_>>().join("\n")
    }
}

/// A question that is made here as a record of a conversation, which instruction tuning reads too.
pub fn record(question: &str, answer: &str) -> Value {
    json!({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})
}

/// Reads questions from JSON, JSON lines and parquet: any conversation ([`crate::chat::read`]), whose last answer is the reference, or a
/// prompt (`prompt`, `question`, `instruction` as text or messages) with `answer` (text or a number), `tests` (a list of programs) or
/// `schema`, or none of them where the reward needs none.
///
/// # Errors
/// As [`crate::chat::read`]: a record that cannot be used is passed over and kept with file, line and reason; too many are an error.
pub fn read(sources: &[Source]) -> Result<Records<Prompt>> {
    read_with(sources, prompt)
}

fn prompt(record: &Value) -> Result<(Form, Prompt), String> {
    let mut record = record.clone();
    let map = record.as_object_mut().ok_or("is no JSON object")?;
    let tests = match map.remove("tests") {
        None | Some(Value::Null) => vec![],
        Some(Value::String(test)) => vec![test],
        Some(Value::Array(list)) => {
            let text = |test: &Value| test.as_str().map(str::to_owned).ok_or("has a test that is no text".to_owned());
            list.iter().map(text).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(format!("has the `tests` {other}, which are no list of texts")),
    };
    let schema = map.remove("schema").filter(|schema| !schema.is_null());
    let answer = match map.remove("answer") {
        Some(Value::String(answer)) => Some(answer),
        Some(number @ (Value::Number(_) | Value::Bool(_))) => Some(number.to_string()),
        Some(Value::Null) | None => None,
        Some(other) => return Err(format!("has the `answer` {other}, which is neither text nor a number")),
    };
    // A question needs no answer, which readers of conversations insist on unless this is there.
    map.entry("chosen").or_insert(Value::Null);
    let (form, mut asked) = form::conversation(&record)?;
    let last = asked.messages.pop_if(|last| last.role == Role::Assistant);
    if !asked.messages.last().is_some_and(|last| matches!(last.role, Role::User | Role::Tool)) {
        return Err("asks nothing: its last message before the answer is neither a user's nor a tool's".to_owned());
    }
    let answer = answer.or_else(|| last.map(|message| message.text().to_owned()));
    Ok((form, Prompt { asked, reference: Reference { answer, tests, schema } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_in_every_form() {
        let check = |record: Value, asked: &str, reference: Reference| {
            let (_, found) = prompt(&record).unwrap();
            assert_eq!((found.text().as_str(), found.reference), (asked, reference), "{record}");
        };
        let answer = |text: &str| Reference { answer: Some(text.into()), ..Reference::default() };
        check(json!({"prompt": "2+2=", "answer": "4"}), "2+2=", answer("4"));
        check(json!({"question": "2+2=", "answer": 4}), "2+2=", answer("4"));
        check(json!({"instruction": "Add", "input": "2 2", "output": "4"}), "Add\n2 2", answer("4"));
        check(json!({"prompt": [{"role": "user", "content": "hi"}]}), "hi", Reference::default());
        let talk = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
        check(json!({"messages": talk}), "a", answer("b"));
        check(json!({"messages": talk, "answer": "c"}), "a", answer("c"));
        let code = Reference { tests: vec!["assert f(1) == 2".into()], ..Reference::default() };
        check(json!({"prompt": "write f", "tests": ["assert f(1) == 2"]}), "write f", code);
        let schema = Reference { schema: Some(json!({"type": "object"})), ..Reference::default() };
        check(json!({"prompt": "say", "schema": {"type": "object"}}), "say", schema);
    }

    #[test]
    fn what_asks_nothing_is_passed_over() {
        for record in [
            json!({"answer": "4"}),
            json!({"messages": [{"role": "system", "content": "be kind"}]}),
            json!({"prompt": "a", "tests": 3}),
            json!({"prompt": "a", "answer": ["b"]}),
            json!([]),
        ] {
            assert!(prompt(&record).is_err(), "{record}");
        }
    }
}
