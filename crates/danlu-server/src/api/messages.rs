//! The messages of a conversation, as requests hold them.
//!
//! What only requests hold ends with the keys that nobody looks at: with them a list is no object, for which `serde` would take it.

use std::collections::HashMap;

use danlu_data::chat::{FunctionCall, Message, Role, ToolCall};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::tools::ToolKind;
use crate::error::ApiError;

#[derive(Debug, Deserialize, ToSchema)]
pub struct ChatMessage {
    pub role: ChatRole,
    /// Absent where an assistant only calls tools.
    pub content: Option<Content>,
    pub name: Option<String>,
    /// Calls that the assistant made.
    pub tool_calls: Option<Vec<CallMade>>,
    /// The call whose result a tool's message is.
    pub tool_call_id: Option<String>,
    #[serde(flatten)]
    #[schema(ignore)]
    _object: IgnoredAny,
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChatRole {
    System,
    /// Another name for `system`.
    Developer,
    User,
    Assistant,
    /// The result of a call.
    Tool,
}

/// Text, or parts that are text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "content must be a text or a list of parts, each with a type and a text")]
pub enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct Part {
    /// `text`, or in the API of responses `input_text` or `output_text`; other kinds are refused.
    #[serde(rename = "type")]
    #[schema(value_type = PartKind)]
    pub kind: String,
    #[serde(default)]
    pub text: String,
    #[serde(flatten)]
    #[schema(ignore)]
    _object: IgnoredAny,
}

/// The kinds of parts that can be read.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "the description of the API names them; a request with another kind is told which")]
pub enum PartKind {
    Text,
    InputText,
    OutputText,
}

/// A call of a function.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct CallMade {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: ToolKind,
    pub function: FunctionMade,
}

#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct FunctionMade {
    pub name: String,
    /// JSON, as text.
    pub arguments: String,
}

impl Content {
    /// # Errors
    /// When a part is no text.
    pub fn text(self, param: &str) -> Result<String, ApiError> {
        let parts = match self {
            Self::Text(text) => return Ok(text),
            Self::Parts(parts) => parts,
        };
        if let Some(part) = parts.iter().find(|part| !["text", "input_text", "output_text"].contains(&part.kind.as_str())) {
            let message = format!("a part of the kind {:?} cannot be read; only text can", part.kind);
            return Err(ApiError::bad_request(message).param(param));
        }
        Ok(parts.into_iter().map(|part| part.text).collect::<Vec<_>>().join("\n"))
    }
}

impl ChatRole {
    pub fn role(self) -> Role {
        match self {
            Self::System => Role::System,
            Self::Developer => Role::Developer,
            Self::User => Role::User,
            Self::Assistant => Role::Assistant,
            Self::Tool => Role::Tool,
        }
    }
}

/// The messages as chat templates know them.
///
/// # Errors
/// When there is none, a part is no text, or a message that is not the assistant's makes calls.
pub fn conversation(messages: Vec<ChatMessage>) -> Result<Vec<Message>, ApiError> {
    let mut read = vec![];
    for message in messages {
        let ChatMessage { role, content, name, tool_calls, tool_call_id, .. } = message;
        let calls: Vec<ToolCall> = tool_calls
            .into_iter()
            .flatten()
            .map(|call| call_made(call.id, call.function.name, &call.function.arguments))
            .collect();
        if !calls.is_empty() && !matches!(role, ChatRole::Assistant) {
            let message = format!("a message of {} cannot make calls; only the assistant's can", role.role().name());
            return Err(ApiError::bad_request(message).param("messages"));
        }
        let text = content.map(|content| content.text("messages")).transpose()?;
        // Templates take text for granted, except beside calls.
        let content = if calls.is_empty() { Some(text.unwrap_or_default()) } else { text };
        let message = Message::new(role.role(), "");
        read.push(Message { content, name, tool_calls: calls, tool_call_id, ..message });
    }
    if read.is_empty() {
        return Err(ApiError::bad_request("messages must have at least one message").param("messages"));
    }
    name_results(&mut read);
    Ok(read)
}

/// A call that was made. Arguments that are the text of an object become the object, as templates expect.
pub fn call_made(id: String, name: String, arguments: &str) -> ToolCall {
    let object = serde_json::from_str(arguments).ok().filter(Value::is_object);
    let arguments = object.unwrap_or_else(|| Value::String(arguments.to_owned()));
    ToolCall { id: Some(id), function: FunctionCall { name, arguments }, ..ToolCall::new("", Value::Null) }
}

/// Some templates write the name of the function whose result a message is, which clients leave to the call's identifier.
pub fn name_results(messages: &mut [Message]) {
    let mut names: HashMap<String, String> = HashMap::new();
    for message in messages {
        for call in &message.tool_calls {
            names.extend(call.id.clone().map(|id| (id, call.function.name.clone())));
        }
        if message.role == Role::Tool && message.name.is_none() {
            message.name = message.tool_call_id.as_ref().and_then(|id| names.get(id).cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(messages: Value) -> Result<Vec<Message>, String> {
        let messages = serde_json::from_value(messages).map_err(|error| error.to_string())?;
        conversation(messages).map_err(|error| error.into_body().error.message)
    }

    #[test]
    fn calls_and_their_results_are_read() {
        let call = |id: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": id.to_uppercase(), "arguments": arguments}});
        let messages = read(json!([
            {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": null},
            {"role": "assistant", "content": null, "tool_calls": [call("x", "{\"a\": 1}"), call("y", "not JSON")], "refusal": null},
            {"role": "tool", "tool_call_id": "y", "content": "2"},
        ]))
        .unwrap();
        assert_eq!((messages[0].role, messages[0].text()), (Role::Developer, "a\nb"));
        assert_eq!(messages[1].content.as_deref(), Some(""));
        assert_eq!((messages[2].content.as_deref(), messages[2].tool_calls.len()), (None, 2));
        assert_eq!(messages[2].tool_calls[0].function.arguments, json!({"a": 1}));
        assert_eq!(messages[2].tool_calls[0].kind, "function");
        assert_eq!(messages[2].tool_calls[1].function.arguments, json!("not JSON"));
        assert_eq!(messages[3].name.as_deref(), Some("Y"));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let call = json!([{"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}]);
        for (messages, says) in [
            (json!([]), "at least one"),
            (json!([{"role": "king", "content": "a"}]), "king"),
            (json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}]), "image_url"),
            (json!([{"role": "user", "content": 3}]), "content must be"),
            (json!([{"role": "user", "content": "a", "tool_calls": call}]), "only the assistant's"),
            (json!([{"content": "a"}]), "role"),
            (json!([["user", "a"]]), "sequence"),
            (json!([{"role": "user", "content": [["text", "a"]]}]), "content must be"),
        ] {
            let message = read(messages).unwrap_err();
            assert!(message.contains(says), "{message:?} does not say {says:?}");
        }
    }
}
