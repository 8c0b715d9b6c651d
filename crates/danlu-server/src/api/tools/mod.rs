//! Tools that a model may call: which there are, how the model is told of them, and how what it writes becomes calls.

mod form;
mod reader;
mod schema;

use std::collections::BTreeSet;

use danlu_engine::Grammar;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

pub use form::CallForm;
pub use reader::{CallReader, Piece};

use crate::error::ApiError;
use crate::writer::Writer;

/// The most tools of a request, as in OpenAI's API.
const MOST: usize = 128;
/// The longest name of a function, in bytes.
const LONGEST_NAME: usize = 64;

/// A tool that the model may call.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct Tool {
    /// `function`; other kinds are refused.
    #[serde(rename = "type")]
    #[allow(dead_code, reason = "there is one kind, and others are refused by name")]
    pub kind: ToolKind,
    pub function: Function,
    #[serde(flatten)]
    #[schema(ignore)]
    pub _object: IgnoredAny,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ToolKind {
    Function,
}

#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct Function {
    /// Letters, digits, `_` and `-`, at most 64.
    #[schema(pattern = "^[a-zA-Z0-9_-]{1,64}$")]
    pub name: String,
    /// What it does and when to call it.
    pub description: Option<String>,
    /// The JSON schema of its arguments, an object. Calls that are asked for (`required`, or a function's name) always match it.
    #[schema(value_type = Option<Object>)]
    pub parameters: Option<Map<String, Value>>,
    /// Taken and not looked at: see `parameters`.
    #[allow(dead_code, reason = "schemas are followed whether it is set or not")]
    pub strict: Option<bool>,
    #[serde(flatten)]
    #[schema(ignore)]
    pub _object: IgnoredAny,
}

/// Whether tools are called.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "tool_choice must be none, auto, required, or {\"type\": \"function\", \"function\": {\"name\": …}}"
)]
pub enum ToolChoice {
    Mode(ToolMode),
    Named(NamedTool),
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ToolMode {
    /// As if there were no tools.
    None,
    /// As the model likes; the default.
    Auto,
    /// One call, which matches its function's schema.
    Required,
}

/// One call of this function, which matches its schema.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct NamedTool {
    #[serde(rename = "type")]
    #[allow(dead_code, reason = "there is one kind, and others are refused by name")]
    pub kind: ToolKind,
    pub function: FunctionName,
    #[serde(flatten)]
    #[schema(ignore)]
    pub _object: IgnoredAny,
}

#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct FunctionName {
    pub name: String,
    #[serde(flatten)]
    #[schema(ignore)]
    pub _object: IgnoredAny,
}

/// The tools of a request, checked.
pub struct Tools {
    functions: Vec<Function>,
    /// The functions that must be called, by their places; none when the model may do as it likes.
    forced: Option<Vec<usize>>,
    parallel: bool,
}

impl Tools {
    /// None when there are no tools, or none may be called.
    ///
    /// # Errors
    /// When a function has no proper name or two have one name, or the function that must be called is not among them.
    pub fn new(tools: Option<Vec<Tool>>, choice: Option<ToolChoice>, parallel: Option<bool>) -> Result<Option<Self>, ApiError> {
        let functions: Vec<Function> = tools.into_iter().flatten().map(|tool| tool.function).collect();
        let wrong = |param: &str, message: String| Err(ApiError::bad_request(message).param(param));
        if functions.len() > MOST {
            return wrong("tools", format!("there are {} tools; at most {MOST} are taken", functions.len()));
        }
        let mut names = BTreeSet::new();
        for function in &functions {
            let name = &function.name;
            let proper = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(proper) {
                let message = format!("a function's name has 1 to {LONGEST_NAME} letters, digits, _ and -; {name:?} has not");
                return wrong("tools", message);
            }
            if !names.insert(name) {
                return wrong("tools", format!("two functions are called {name}"));
            }
        }
        let forced = match choice {
            None | Some(ToolChoice::Mode(ToolMode::Auto)) => None,
            Some(ToolChoice::Mode(ToolMode::None)) => return Ok(None),
            Some(ToolChoice::Mode(ToolMode::Required)) if functions.is_empty() => {
                return wrong("tool_choice", "a call is required, and there are no tools".to_owned());
            }
            Some(ToolChoice::Mode(ToolMode::Required)) => Some((0..functions.len()).collect()),
            Some(ToolChoice::Named(named)) => {
                let name = named.function.name;
                match functions.iter().position(|function| function.name == name) {
                    Some(place) => Some(vec![place]),
                    None => return wrong("tool_choice", format!("no function among the tools is called {name:?}")),
                }
            }
        };
        let parallel = parallel.unwrap_or(true);
        Ok((!functions.is_empty()).then_some(Self { functions, forced, parallel }))
    }

    pub fn is_forced(&self) -> bool {
        self.forced.is_some()
    }

    /// As chat templates read them.
    pub fn values(&self) -> Vec<Value> {
        let value = |function: &Function| {
            let mut value = json!({"name": function.name});
            if let Some(description) = &function.description {
                value["description"] = json!(description);
            }
            // Templates take them for granted.
            value["parameters"] =
                function.parameters.clone().map_or_else(|| json!({"type": "object", "properties": {}}), Value::Object);
            json!({"type": "function", "function": value})
        };
        self.functions.iter().map(value).collect()
    }

    /// What holds the answer to a call of the functions that must be called; none when none must.
    ///
    /// # Errors
    /// When a schema cannot be followed.
    pub fn grammar(&self, writer: &Writer, form: CallForm) -> Result<Option<Grammar>, ApiError> {
        let Some(forced) = &self.forced else { return Ok(None) };
        let wrong = |message: String| ApiError::bad_request(message).param("tools");
        let schema = schema::of_call(forced.iter().map(|place| &self.functions[*place]), form.arguments());
        let grammars = writer.grammars().map_err(|error| wrong(error.to_owned()))?;
        let grammar = grammars.json_schema(schema);
        grammar.map(Some).map_err(|error| wrong(format!("the parameters of the tools cannot be followed: {error:#}")))
    }

    /// What reads the calls in an answer.
    pub fn reader(&self, form: CallForm) -> CallReader {
        let names = self.functions.iter().map(|function| function.name.clone()).collect();
        if self.is_forced() { CallReader::forced(names, form.arguments()) } else { CallReader::free(names, self.parallel) }
    }

    /// What ends an answer besides its own end: the end of a call when there may be no other.
    pub fn stop(&self) -> Option<&'static str> {
        (!self.is_forced() && !self.parallel).then_some(reader::CLOSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(tools: Value, choice: Value) -> Result<Option<Tools>, String> {
        let tools = serde_json::from_value(tools).map_err(|error| error.to_string())?;
        let choice = serde_json::from_value(choice).map_err(|error| error.to_string())?;
        Tools::new(tools, choice, None).map_err(|error| error.into_body().error.message)
    }

    fn named(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name}})
    }

    #[test]
    fn what_is_chosen_must_be_there() {
        let two = || json!([named("a"), named("b-2")]);
        assert!(tools(Value::Null, Value::Null).unwrap().is_none());
        assert!(tools(two(), json!("none")).unwrap().is_none());
        assert_eq!(tools(two(), json!("auto")).unwrap().unwrap().forced, None);
        assert_eq!(tools(two(), json!("required")).unwrap().unwrap().forced, Some(vec![0, 1]));
        assert_eq!(tools(two(), named("b-2")).unwrap().unwrap().forced, Some(vec![1]));
        for (given, choice, says) in [
            (two(), named("c"), "called \"c\""),
            (Value::Null, json!("required"), "no tools"),
            (two(), json!("sometimes"), "tool_choice must be"),
            (json!([named("a"), named("a")]), Value::Null, "two functions"),
            (json!([named("a b")]), Value::Null, "a b"),
            (json!([named("")]), Value::Null, "letters"),
            (json!([["function", {"name": "a"}]]), Value::Null, "sequence"),
            (json!([{"type": "web_search"}]), Value::Null, "web_search"),
            (json!([{"type": "function"}]), Value::Null, "function"),
            (json!(vec![named("a"); 129]), Value::Null, "at most 128"),
        ] {
            let message = tools(given, choice).err().unwrap_or_default();
            assert!(message.contains(says), "{message:?} does not say {says:?}");
        }
    }
}
