//! The forms in which people keep conversations: OpenAI messages, alpaca, ShareGPT. Each becomes a [`Conversation`].

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Conversation, Message, Role, ToolCall};

/// How a record holds its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// `messages` of `role` and `content`, with `tools` and `tool_calls`.
    Messages,
    /// `conversations` of `from` and `value` (human, gpt, function_call, observation).
    Sharegpt,
    /// `instruction`, `input`, `output`, `system` and `history`; also `prompt` or `question` with `completion`, `response` or `answer`.
    Alpaca,
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Self::Messages => "messages (role, content)",
            Self::Sharegpt => "ShareGPT (from, value)",
            Self::Alpaca => "alpaca (instruction, output)",
        })
    }
}

const QUESTIONS: [&str; 4] = ["instruction", "prompt", "question", "query"];
const ANSWERS: [&str; 5] = ["output", "completion", "response", "answer", "target"];

/// The form of a record, by its keys.
pub fn form_of(record: &Value) -> Option<Form> {
    let list = |key: &str| record.get(key).and_then(Value::as_array);
    match list("messages").or_else(|| list("conversations")).or_else(|| list("conversation")) {
        Some(turns) if turns.first().is_some_and(|turn| turn.get("from").is_some()) => Some(Form::Sharegpt),
        Some(_) => Some(Form::Messages),
        None => QUESTIONS.iter().any(|key| record.get(key).is_some()).then_some(Form::Alpaca),
    }
}

/// The conversation of a record. A record of preferences (a prompt with `chosen` and `rejected`) gives its prompt.
///
/// # Errors
/// What is wrong with the record, for its line in the quarantine.
pub fn conversation(record: &Value) -> Result<(Form, Conversation), String> {
    let form = form_of(record).ok_or_else(|| {
        let keys = record.as_object().map(|map| map.keys().take(20).cloned().collect::<Vec<_>>().join(", "));
        let keys = keys.unwrap_or_else(|| "none, it is no object".to_owned());
        format!("is no conversation: it needs `messages`, `conversations`, or `instruction` and `output`; its keys are: {keys}")
    })?;
    let mut messages = match form {
        Form::Alpaca => alpaca(record)?,
        Form::Messages | Form::Sharegpt => {
            let list = ["messages", "conversations", "conversation"].iter().find_map(|key| record.get(key)?.as_array());
            messages(list.map_or(&[][..], Vec::as_slice))?
        }
    };
    if let Some(system) = text(record, "system")
        && messages.first().is_none_or(|first| first.role != Role::System)
    {
        messages.insert(0, Message::system(system));
    }
    if messages.is_empty() {
        return Err("has no messages".to_owned());
    }
    let group = text(record, "group").map(str::to_owned);
    Ok((form, Conversation { messages, tools: tools(record)?, group }))
}

/// A list of messages, each as [`message`] reads it. A list may mix the names of forms.
///
/// # Errors
/// Which message is wrong, and what is wrong with it.
pub fn messages(list: &[Value]) -> Result<Vec<Message>, String> {
    list.iter().enumerate().map(|(i, one)| message(one).map_err(|why| format!("message {}: {why}", i + 1))).collect()
}

/// One message, by whatever names its form has for who speaks and what is said.
///
/// # Errors
/// What is wrong with it.
pub fn message(record: &Value) -> Result<Message, String> {
    let speaker = text(record, "role").or_else(|| text(record, "from")).ok_or("has neither `role` nor `from`")?;
    let role = match speaker {
        "system" => Role::System,
        "developer" => Role::Developer,
        "user" | "human" => Role::User,
        "assistant" | "gpt" | "model" | "chatgpt" | "bot" | "function_call" | "tool_call" => Role::Assistant,
        "tool" | "observation" | "function" | "function_response" | "tool_response" | "ipython" => Role::Tool,
        other => return Err(format!("is from {other:?}, which is neither system, user, assistant nor tool")),
    };
    let mut message = Message { content: None, ..Message::new(role, "") };
    content(record.get("content").or_else(|| record.get("value")), &mut message)?;
    if matches!(speaker, "function_call" | "tool_call") {
        message.tool_calls = calls(&parsed(message.text()).ok_or("is a call whose value is not JSON")?)?;
        message.content = None;
    }
    match record.get("tool_calls") {
        None | Some(Value::Null) => {}
        Some(list) => message.tool_calls = calls(list)?,
    }
    let own = |key: &str| text(record, key).map(str::to_owned);
    message.reasoning_content =
        message.reasoning_content.or_else(|| own("reasoning_content")).or_else(|| own("reasoning")).or_else(|| own("thinking"));
    message.tool_call_id = own("tool_call_id");
    message.name = own("name");
    let weight = record.get("weight").or_else(|| record.get("loss_weight")).and_then(Value::as_f64);
    message.train =
        record.get("train").and_then(Value::as_bool).unwrap_or(true) && (weight != Some(0.0) || role != Role::Assistant);
    if message.content.is_none() && message.tool_calls.is_empty() && message.reasoning_content.is_none() {
        return Err(format!("of {} says nothing: it has no text and no call", role.name()));
    }
    Ok(message)
}

/// Text, nothing, or a list of parts.
fn content(value: Option<&Value>, message: &mut Message) -> Result<(), String> {
    match value {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => message.content = Some(text.clone()),
        Some(Value::Array(parts)) => {
            for part in parts {
                let kind = text(part, "type").unwrap_or("text");
                let said = text(part, "text").or_else(|| text(part, "value")).or_else(|| part.as_str());
                let into = match kind {
                    "text" => &mut message.content,
                    "reasoning" | "thinking" => &mut message.reasoning_content,
                    "tool_call" => {
                        message.tool_calls.extend(calls(&said.and_then(parsed).ok_or("has a call that is not JSON")?)?);
                        continue;
                    }
                    other => return Err(format!("has a part of the kind {other:?}; only text is read")),
                };
                into.get_or_insert_default()
                    .push_str(said.ok_or_else(|| format!("has a part of the kind {kind:?} without text"))?);
            }
        }
        Some(other) => return Err(format!("has the content {other}, which is neither text nor a list of parts")),
    }
    Ok(())
}

fn calls(value: &Value) -> Result<Vec<ToolCall>, String> {
    match value {
        Value::Array(list) => list.iter().map(call).collect(),
        one => Ok(vec![call(one)?]),
    }
}

/// `{"type": "function", "function": {…}}`, or the function alone. Arguments that are the text of an object become the object, as templates
/// expect.
fn call(value: &Value) -> Result<ToolCall, String> {
    let function = value.get("function").filter(|function| function.is_object()).unwrap_or(value);
    let name = text(function, "name").ok_or_else(|| format!("calls a tool without a name: {value}"))?;
    let arguments = function.get("arguments").or_else(|| function.get("parameters")).cloned().unwrap_or_else(|| json!({}));
    let arguments = arguments.as_str().and_then(parsed).filter(Value::is_object).unwrap_or(arguments);
    Ok(ToolCall { id: text(value, "id").map(str::to_owned), ..ToolCall::new(name, arguments) })
}

fn tools(record: &Value) -> Result<Vec<Value>, String> {
    let value = match record.get("tools").or_else(|| record.get("functions")) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(Vec::new()),
        Some(Value::String(text)) => parsed(text).ok_or("has `tools` that are text but not JSON")?,
        Some(value) => value.clone(),
    };
    let Value::Array(list) = value else { return Err("has `tools` that are no list".to_owned()) };
    list.into_iter()
        .map(|tool| {
            let function = tool.get("function").unwrap_or(&tool);
            text(function, "name").ok_or_else(|| format!("has a tool without a name: {tool}"))?;
            Ok(if tool.get("function").is_some() { tool } else { json!({"type": "function", "function": tool}) })
        })
        .collect()
}

fn alpaca(record: &Value) -> Result<Vec<Message>, String> {
    let mut found = Vec::new();
    for turn in record.get("history").and_then(Value::as_array).into_iter().flatten() {
        let (Some(question), Some(answer)) = (turn[0].as_str(), turn[1].as_str()) else {
            return Err(format!("has the history {turn}, which is no pair of question and answer"));
        };
        found.extend([Message::user(question), Message::assistant(answer)]);
    }
    let question = QUESTIONS.iter().find_map(|key| record.get(key)).unwrap_or(&Value::Null);
    match question {
        // A prompt may itself be a list of messages.
        Value::Array(list) => found.extend(messages(list)?),
        _ => {
            let parts = [question.as_str(), text(record, "input")];
            let asked: Vec<&str> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
            if asked.is_empty() {
                return Err("has an empty instruction".to_owned());
            }
            found.push(Message::user(asked.join("\n")));
        }
    }
    match ANSWERS.iter().find_map(|key| record.get(key)) {
        Some(Value::Array(list)) => found.extend(messages(list)?),
        Some(Value::String(answer)) if !answer.trim().is_empty() => found.push(Message::assistant(answer)),
        None if record.get("chosen").is_some() => {}
        _ => return Err("has no answer, or an empty one".to_owned()),
    }
    Ok(found)
}

fn text<'a>(record: &'a Value, key: &str) -> Option<&'a str> {
    record.get(key)?.as_str()
}

fn parsed(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

/// The record as an object, for readers of what stands beside a conversation (`chosen`, `label`).
pub fn object(record: &[u8]) -> Result<Map<String, Value>, String> {
    serde_json::from_slice(record).map_err(|error| format!("is not a JSON object: {error}"))
}
