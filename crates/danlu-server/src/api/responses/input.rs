//! What a request for a response holds.

use danlu_data::chat::{Message, Role};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::super::messages::{ChatRole, Content, call_made, name_results};
use super::super::settings::{JsonSchema, ResponseFormat, Settings, format};
use super::super::tools::{Function, FunctionName, NamedTool, Tool, ToolChoice, ToolKind, ToolMode, Tools};
use crate::error::ApiError;

#[derive(Debug, Deserialize, ToSchema)]
pub struct ResponseRequest {
    pub model: String,
    pub input: ResponseInput,
    /// What comes before the input, as a system message.
    pub instructions: Option<String>,
    /// The most tokens to write; as many as the context has room for, when absent.
    #[schema(minimum = 1)]
    pub max_output_tokens: Option<u32>,
    /// 0 takes the most likely token always; 1, the default, draws with the model's own probabilities.
    #[schema(minimum = 0, maximum = 1000)]
    pub temperature: Option<f32>,
    /// Only the fewest tokens whose probabilities reach this; at 0 the likeliest.
    #[schema(minimum = 0, maximum = 1)]
    pub top_p: Option<f32>,
    /// Whether the answer comes piece by piece, as server-sent events.
    pub stream: Option<bool>,
    pub text: Option<TextSettings>,
    /// Functions that the model may call.
    #[schema(max_items = 128)]
    pub tools: Option<Vec<FunctionTool>>,
    /// Whether it does. A call that is asked for always matches its function's schema.
    pub tool_choice: Option<ResponseToolChoice>,
    /// Whether there may be several calls in one answer; yes, when absent. A call that is asked for is always one.
    pub parallel_tool_calls: Option<bool>,
    #[allow(dead_code, reason = "there is one way, and others are refused by name")]
    pub truncation: Option<Truncation>,
    #[serde(flatten)]
    #[schema(ignore)]
    pub other: Map<String, Value>,
}

/// What the model answers: a text, or messages, calls and their results.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "input must be a text, or a list of messages (role, content), function_call (call_id, name, arguments) and function_call_output (call_id, output)"
)]
pub enum ResponseInput {
    Text(String),
    Items(Vec<Item>),
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Item {
    Call(CallItem),
    Output(OutputItem),
    Message(MessageItem),
}

/// A call that the model made.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CallItem {
    #[serde(rename = "type")]
    #[allow(dead_code, reason = "it tells the kinds of items apart")]
    kind: CallKind,
    call_id: String,
    name: String,
    /// JSON, as text.
    arguments: String,
    #[serde(flatten)]
    #[schema(ignore)]
    _object: IgnoredAny,
}

/// What came of a call.
#[derive(Debug, Deserialize, ToSchema)]
pub struct OutputItem {
    #[serde(rename = "type")]
    #[allow(dead_code, reason = "it tells the kinds of items apart")]
    kind: OutputKind,
    call_id: String,
    output: Content,
    #[serde(flatten)]
    #[schema(ignore)]
    _object: IgnoredAny,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct MessageItem {
    #[serde(rename = "type")]
    #[allow(dead_code, reason = "it tells the kinds of items apart")]
    kind: Option<MessageKind>,
    role: ChatRole,
    content: Content,
    #[serde(flatten)]
    #[schema(ignore)]
    _object: IgnoredAny,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum CallKind {
    FunctionCall,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum OutputKind {
    FunctionCallOutput,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum MessageKind {
    Message,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct TextSettings {
    #[serde(default, deserialize_with = "format")]
    pub format: Option<TextFormat>,
    #[serde(flatten)]
    #[schema(ignore)]
    _object: IgnoredAny,
}

/// What the text must be like.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TextFormat {
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema allows; followed as far as it goes, whether `strict` is asked for or not.
    JsonSchema {
        #[schema(value_type = Object)]
        schema: Map<String, Value>,
    },
}

/// A function that the model may call.
#[derive(Debug, Deserialize, ToSchema)]
pub struct FunctionTool {
    /// `function`; other kinds are refused.
    #[serde(rename = "type")]
    pub kind: ToolKind,
    #[serde(flatten)]
    pub function: Function,
}

/// Whether functions are called.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "tool_choice must be none, auto, required, or {\"type\": \"function\", \"name\": …}")]
pub enum ResponseToolChoice {
    Mode(ToolMode),
    Named(NamedFunction),
}

/// One call of this function.
#[derive(Debug, Deserialize, ToSchema)]
pub struct NamedFunction {
    #[serde(rename = "type")]
    pub kind: ToolKind,
    pub name: String,
    #[serde(flatten)]
    #[schema(ignore)]
    _object: IgnoredAny,
}

/// What does not fit is refused, never cut.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Truncation {
    Disabled,
}

/// Parameters that other servers have, and why this one has not.
const REFUSED: [(&str, &str); 7] = [
    ("previous_response_id", "responses are not stored; send the whole conversation as input"),
    ("conversation", "conversations are not stored; send the whole conversation as input"),
    ("background", "responses are not stored; ask with stream instead"),
    ("prompt", "prompts are not stored; send input and instructions"),
    ("reasoning", "no model here is asked to reason"),
    ("include", "there is nothing more to include"),
    ("top_logprobs", "log-probabilities are given by /v1/chat/completions"),
];

impl ResponseRequest {
    /// Refuses what is asked for and would not be done.
    ///
    /// # Errors
    /// Names it and says what to do instead.
    pub fn check_other(&self) -> Result<(), ApiError> {
        let nothing = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        for (key, why) in REFUSED {
            if self.other.get(key).is_some_and(|value| !nothing(value)) {
                let message = format!("{key} is not supported: {why}");
                return Err(ApiError::bad_request(message).param(key).code("unsupported_parameter"));
            }
        }
        let known: Vec<&str> = REFUSED.iter().map(|(key, _)| *key).chain(["stream_options"]).collect();
        super::super::check_known(&self.other, &known)
    }

    pub fn settings(&mut self) -> Settings {
        let format = self.text.take().and_then(|text| text.format).map(|format| match format {
            TextFormat::Text => ResponseFormat::Text,
            TextFormat::JsonObject => ResponseFormat::JsonObject,
            TextFormat::JsonSchema { schema } => {
                ResponseFormat::JsonSchema { json_schema: JsonSchema { schema, _object: IgnoredAny } }
            }
        });
        Settings {
            max_tokens: self.max_output_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            stream: self.stream,
            response_format: format,
            ..Settings::default()
        }
    }

    /// # Errors
    /// As [`Tools::new`].
    pub fn tools(&mut self) -> Result<Option<Tools>, ApiError> {
        let tools = self.tools.take().map(|tools| {
            let tool = |FunctionTool { kind, function }| Tool { kind, function, _object: IgnoredAny };
            tools.into_iter().map(tool).collect()
        });
        let choice = self.tool_choice.take().map(|choice| match choice {
            ResponseToolChoice::Mode(mode) => ToolChoice::Mode(mode),
            ResponseToolChoice::Named(NamedFunction { kind, name, .. }) => {
                let function = FunctionName { name, _object: IgnoredAny };
                ToolChoice::Named(NamedTool { kind, function, _object: IgnoredAny })
            }
        });
        Tools::new(tools, choice, self.parallel_tool_calls)
    }
}

/// The conversation that the input makes, after the instructions.
///
/// # Errors
/// When there is no message, or a part is no text.
pub fn conversation(instructions: Option<String>, input: ResponseInput) -> Result<Vec<Message>, ApiError> {
    let items = match input {
        ResponseInput::Text(text) => {
            return Ok(instructions.map(Message::system).into_iter().chain([Message::user(text)]).collect());
        }
        ResponseInput::Items(items) => items,
    };
    if items.is_empty() {
        return Err(ApiError::bad_request("input must have at least one item").param("input"));
    }
    let mut messages: Vec<Message> = vec![];
    for item in items {
        match item {
            Item::Message(item) => messages.push(Message::new(item.role.role(), item.content.text("input")?)),
            Item::Output(item) => {
                let message = Message::new(Role::Tool, item.output.text("input")?);
                messages.push(Message { tool_call_id: Some(item.call_id), ..message });
            }
            Item::Call(item) => {
                // Calls are part of the assistant's message, which is another item here.
                if messages.last().is_none_or(|last| last.role != Role::Assistant) {
                    messages.push(Message { content: None, ..Message::assistant("") });
                }
                let call = call_made(item.call_id, item.name, &item.arguments);
                if let Some(last) = messages.last_mut() {
                    last.tool_calls.push(call);
                }
            }
        }
    }
    if let Some(text) = instructions {
        // Templates take one system message.
        match messages.first_mut().filter(|first| matches!(first.role, Role::System | Role::Developer)) {
            Some(first) => first.content = Some(format!("{text}\n\n{}", first.text())),
            None => messages.insert(0, Message::system(text)),
        }
    }
    name_results(&mut messages);
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(instructions: Option<&str>, input: Value) -> Result<Vec<Message>, String> {
        let input = serde_json::from_value(input).map_err(|error| error.to_string())?;
        conversation(instructions.map(str::to_owned), input).map_err(|error| error.into_body().error.message)
    }

    #[test]
    fn items_become_messages() {
        let call = |id: &str| json!({"type": "function_call", "call_id": id, "name": "f", "arguments": "{\"a\": 1}", "id": "fc_1", "status": "completed"});
        let messages = read(
            Some("Be brief."),
            json!([
                {"role": "developer", "content": "And kind."},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Tea?"}]},
                {"type": "message", "role": "assistant", "id": "msg_1", "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}]},
                call("x"),
                call("y"),
                {"type": "function_call_output", "call_id": "y", "output": "2"},
            ]),
        )
        .unwrap();
        assert_eq!(messages.iter().map(|m| m.role.name()).collect::<Vec<_>>(), ["developer", "user", "assistant", "tool"]);
        assert_eq!((messages[0].text(), messages[1].text()), ("Be brief.\n\nAnd kind.", "Tea?"));
        assert_eq!((messages[2].text(), messages[2].tool_calls.len()), ("Let me see.", 2));
        assert_eq!((messages[3].name.as_deref(), messages[3].tool_call_id.as_deref()), (Some("f"), Some("y")));
        let text = read(Some("Be brief."), json!("Tea?")).unwrap();
        assert_eq!(text, [Message::system("Be brief."), Message::user("Tea?")]);
        let alone = read(Some("Be brief."), json!([call("x")])).unwrap();
        assert_eq!((alone.len(), alone[0].role, alone[1].content.as_deref()), (2, Role::System, None));
    }

    #[test]
    fn what_is_not_done_is_refused() {
        for (input, says) in [
            (json!([]), "at least one"),
            (json!([{"type": "reasoning", "summary": []}]), "input must be"),
            (json!([{"role": "user", "content": [{"type": "input_image"}]}]), "input_image"),
            (json!(3), "input must be"),
        ] {
            let message = read(None, input).unwrap_err();
            assert!(message.contains(says), "{message:?} does not say {says:?}");
        }
        let request = |more: Value| {
            let mut request = json!({"model": "m", "input": "a"});
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let request: ResponseRequest = serde_json::from_value(request).map_err(|error| error.to_string())?;
            request.check_other().map_err(|error| error.into_body().error.message)
        };
        for fine in
            [json!({}), json!({"store": true, "background": false, "include": [], "reasoning": null, "truncation": "disabled"})]
        {
            assert_eq!(request(fine), Ok(()));
        }
        for (more, says) in [
            (json!({"previous_response_id": "resp_1"}), "whole conversation"),
            (json!({"background": true}), "stream"),
            (json!({"include": ["a"]}), "include"),
            (json!({"truncation": "auto"}), "auto"),
            (json!({"tools": [{"type": "web_search"}]}), "web_search"),
            (json!({"inputs": 1}), "unknown parameter: inputs"),
        ] {
            let message = request(more).unwrap_err();
            assert!(message.contains(says), "{message:?} does not say {says:?}");
        }
    }
}
