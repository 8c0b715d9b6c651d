use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use danlu_data::chat::{Message, Role};
use danlu_engine::LogProbs;
use danlu_engine::serve::Event;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::answering::{Answering, finish_reason, stream};
use super::settings::Settings;
use super::{Usage, check_known, identifier, now, read};
use crate::App;
use crate::error::{ApiError, ErrorBody};
use crate::model::Model;

/// The most of the likeliest tokens that are told of.
const TOP_LOGPROBS: usize = 20;

#[derive(Debug, Deserialize, ToSchema)]
pub struct ChatRequest {
    pub model: String,
    pub messages: Vec<ChatMessage>,
    /// Whether each token comes with its log-probability.
    pub logprobs: Option<bool>,
    /// And with those of so many of the likeliest tokens, at most 20.
    pub top_logprobs: Option<usize>,
    #[serde(flatten)]
    pub settings: Settings,
    #[serde(flatten)]
    #[schema(ignore)]
    other: Map<String, Value>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct ChatMessage {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    #[schema(value_type = String)]
    pub role: Role,
    pub content: Option<Content>,
    pub name: Option<String>,
    pub tool_call_id: Option<String>,
}

/// Text, or parts that are text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct Part {
    /// `text`; other kinds are refused.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub text: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ChatCompletion {
    pub id: String,
    pub object: &'static str,
    pub created: u64,
    pub model: String,
    pub choices: Vec<ChatChoice>,
    pub usage: Usage,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ChatChoice {
    pub index: usize,
    pub message: AssistantMessage,
    pub logprobs: Option<ChatLogprobs>,
    /// `stop`, or `length` when it was cut off.
    pub finish_reason: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct AssistantMessage {
    pub role: &'static str,
    pub content: String,
    pub refusal: Option<String>,
}

/// A piece of an answer that is streamed.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatChunk {
    pub id: String,
    pub object: &'static str,
    pub created: u64,
    pub model: String,
    pub choices: Vec<ChunkChoice>,
    pub usage: Option<Usage>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ChunkChoice {
    pub index: usize,
    pub delta: Delta,
    pub logprobs: Option<ChatLogprobs>,
    pub finish_reason: Option<&'static str>,
}

#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ChatLogprobs {
    pub content: Vec<TokenLogprob>,
}

/// Log-probabilities are the model's own, in nats: before temperature, penalties and restrictions.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenLogprob {
    #[serde(flatten)]
    pub token: Logprob,
    pub top_logprobs: Vec<Logprob>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Logprob {
    pub token: String,
    pub logprob: f32,
    pub bytes: Vec<u8>,
}

/// Answers a conversation.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "completions", request_body = ChatRequest,
    responses(
        (status = 200, description = "The answer; with `stream`, its pieces as server-sent events", body = ChatCompletion),
        (status = 400, description = "The request is wrong, or its prompt does not fit", body = ErrorBody),
        (status = 401, description = "A key is needed", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody),
        (status = 429, description = "Too many requests wait", body = ErrorBody),
    )
)]
pub async fn complete(
    State(app): State<App>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let request: ChatRequest = read(&headers, body)?;
    check_known(&request.other)?;
    let model = app.model(&request.model)?;
    let log_probs = log_probs(&request)?;
    let messages = request.messages.into_iter().map(message).collect::<Result<Vec<Message>, ApiError>>()?;
    if messages.is_empty() {
        return Err(ApiError::bad_request("messages must have at least one message").param("messages"));
    }
    let settings = request.settings;
    let (streams, samples, usage) = (settings.streams(), settings.samples(), settings.includes_usage());
    // Templates, tokenizers and grammars may take their time.
    let begun = tokio::task::spawn_blocking(move || {
        let encoder = model.encoder().map_err(|why| {
            let message = format!("{} cannot hold a conversation: {why}; use /v1/completions", model.id);
            ApiError::bad_request(message).param("model")
        })?;
        let prompt =
            encoder.prompt(&messages, &[]).map_err(|error| ApiError::bad_request(format!("{error:#}")).param("messages"))?;
        Answering::begin(model.clone(), prompt, &settings, log_probs)
    });
    let answering = begun.await.map_err(ApiError::lost)??;
    if streams {
        Ok(chunks(answering, samples, usage))
    } else {
        Ok(whole(answering, samples, log_probs.is_some()).await?.into_response())
    }
}

fn log_probs(request: &ChatRequest) -> Result<Option<usize>, ApiError> {
    let top = request.top_logprobs.unwrap_or(0);
    let wrong = |message: String| Err(ApiError::bad_request(message).param("top_logprobs"));
    match request.logprobs {
        Some(true) if top > TOP_LOGPROBS => wrong(format!("top_logprobs must be at most {TOP_LOGPROBS}; it is {top}")),
        Some(true) => Ok(Some(top)),
        _ if top > 0 => wrong("top_logprobs needs logprobs to be true".to_owned()),
        _ => Ok(None),
    }
}

fn message(message: ChatMessage) -> Result<Message, ApiError> {
    let text = match message.content {
        None => None,
        Some(Content::Text(text)) => Some(text),
        Some(Content::Parts(parts)) => {
            if let Some(part) = parts.iter().find(|part| part.kind != "text") {
                let message = format!("a part of the kind {:?} cannot be read; only text can", part.kind);
                return Err(ApiError::bad_request(message).param("messages"));
            }
            Some(parts.into_iter().map(|part| part.text).collect::<Vec<_>>().join("\n"))
        }
    };
    let mut read = Message::new(message.role, text.unwrap_or_default());
    (read.name, read.tool_call_id) = (message.name, message.tool_call_id);
    Ok(read)
}

fn logprob(model: &Model, token: u32, log_probs: &LogProbs) -> TokenLogprob {
    let one = |id: u32, logprob: f32| {
        let (token, bytes) = model.token(id);
        Logprob { token, logprob, bytes }
    };
    let top_logprobs = log_probs.top.iter().map(|(id, logprob)| one(*id, *logprob)).collect();
    TokenLogprob { token: one(token, log_probs.token), top_logprobs }
}

async fn whole(mut answering: Answering, samples: usize, log_probs: bool) -> Result<Json<ChatCompletion>, ApiError> {
    let mut choices: Vec<ChatChoice> = (0..samples)
        .map(|index| ChatChoice {
            index,
            message: AssistantMessage { role: "assistant", content: String::new(), refusal: None },
            logprobs: log_probs.then(ChatLogprobs::default),
            finish_reason: "stop",
        })
        .collect();
    while let Some(event) = answering.next().await {
        match event? {
            Event::Token { sample, token, text, log_probs } => {
                let choice = &mut choices[sample];
                choice.message.content.push_str(&text);
                if let (Some(all), Some(one)) = (&mut choice.logprobs, log_probs) {
                    all.content.push(logprob(answering.model(), token, &one));
                }
            }
            Event::Finished { sample, text, reason, .. } => {
                choices[sample].message.content.push_str(&text);
                choices[sample].finish_reason = finish_reason(&reason);
            }
            Event::Read { .. } | Event::Failed(_) => {}
        }
    }
    let (id, model, usage) = (identifier("chatcmpl"), answering.model().id.clone(), answering.usage());
    Ok(Json(ChatCompletion { id, object: "chat.completion", created: now(), model, choices, usage }))
}

fn chunks(answering: Answering, samples: usize, include_usage: bool) -> Response {
    let (id, name, created) = (identifier("chatcmpl"), answering.model().id.clone(), now());
    let chunk = move |choices: Vec<ChunkChoice>, usage| {
        let (id, model) = (id.clone(), name.clone());
        ChatChunk { id, object: "chat.completion.chunk", created, model, choices, usage }
    };
    let last = chunk.clone();
    let piece = move |model: &Model, event: Event| {
        let one = |index: usize, delta: Delta, logprobs, finish_reason| {
            chunk(vec![ChunkChoice { index, delta, logprobs, finish_reason }], None)
        };
        let says = |text: String| Delta { role: None, content: (!text.is_empty()).then_some(text) };
        match event {
            Event::Read { .. } => {
                let begins = || Delta { role: Some("assistant"), content: Some(String::new()) };
                (0..samples).map(|index| one(index, begins(), None, None)).collect()
            }
            Event::Token { text, log_probs: None, .. } if text.is_empty() => vec![],
            Event::Token { sample, token, text, log_probs } => {
                let logprobs = log_probs.map(|one| ChatLogprobs { content: vec![logprob(model, token, &one)] });
                vec![one(sample, says(text), logprobs, None)]
            }
            Event::Finished { sample, text, reason, .. } => {
                let rest = (!text.is_empty()).then(|| one(sample, says(text), None, None));
                rest.into_iter().chain([one(sample, Delta::default(), None, Some(finish_reason(&reason)))]).collect()
            }
            Event::Failed(_) => vec![],
        }
    };
    stream(answering, piece, move |usage| include_usage.then(|| last(vec![], Some(usage))))
}
