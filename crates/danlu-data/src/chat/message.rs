//! Messages and conversations, in the form in which chat APIs and templates know them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Who a message is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    /// A system message by another name, which some templates tell apart.
    Developer,
    User,
    Assistant,
    /// The result of a call.
    Tool,
}

/// One message of a conversation. Written as JSON it is a message of an OpenAI-style API, and what templates read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub role: Role,
    /// Absent where an assistant only calls tools.
    #[serde(default)]
    pub content: Option<String>,
    /// What the assistant thought before it wrote `content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Calls of tools by the assistant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool's message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The tool that a tool's message is from, or a speaker's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether an assistant's message is to be learned from; data may exclude bad turns of good conversations.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub train: bool,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(rename = "type", default = "function")]
    pub kind: String,
    pub function: FunctionCall,
}

/// The function that a call names, and what it is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionCall {
    pub name: String,
    /// An object, or the text of one.
    #[serde(default)]
    pub arguments: Value,
}

/// A conversation with the tools that the assistant may call, each as `{"type": "function", "function": {…}}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    pub messages: Vec<Message>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Value>,
    /// What it was made from, such as a page: conversations of one group are on the same side of a split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

fn function() -> String {
    "function".to_owned()
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

impl Message {
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: Some(content.into()),
            reasoning_content: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
            train: true,
        }
    }

    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }

    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }

    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// Its text; empty where there is none.
    pub fn text(&self) -> &str {
        self.content.as_deref().unwrap_or_default()
    }
}

impl ToolCall {
    pub fn new(name: impl Into<String>, arguments: Value) -> Self {
        Self { id: None, kind: function(), function: FunctionCall { name: name.into(), arguments } }
    }
}

impl Conversation {
    pub fn new(messages: Vec<Message>) -> Self {
        Self { messages, ..Self::default() }
    }

    /// The messages before the last, when the last is an assistant's: a prompt and its answer.
    pub fn split_last(&self) -> Option<(&[Message], &Message)> {
        let (last, before) = self.messages.split_last()?;
        (last.role == Role::Assistant).then_some((before, last))
    }

    /// Which side of a split it is on: a number drawn by its group, else by its messages up to the first answer, so that the same question
    /// with another answer is on the same side.
    pub fn lot(&self, seed: u64) -> u64 {
        let opening: Vec<&Message> = self.messages.iter().take_while(|message| message.role != Role::Assistant).collect();
        let text = self.group.as_ref().map_or_else(|| json!([seed, opening]), |group| json!([seed, group])).to_string();
        let hash = blake3::hash(text.as_bytes());
        u64::from_le_bytes(std::array::from_fn(|i| hash.as_bytes()[i]))
    }
}
