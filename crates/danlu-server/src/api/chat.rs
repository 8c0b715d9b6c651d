use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use danlu_data::chat::Message;
use danlu_engine::serve::Event;
use danlu_engine::{LogProbs, Reason};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::answering::{Answering, Ask, Pieces, finish_reason, stream};
use super::messages::{CallMade, ChatMessage, FunctionMade, conversation};
use super::settings::Settings;
use super::tools::{CallForm, CallReader, Piece, Tool, ToolChoice, ToolKind, Tools};
use super::{Body, Envelope, Usage, check_known, identifier};
use crate::App;
use crate::document::Errors;
use crate::error::ApiError;
use crate::rates::Caller;
use crate::writer::Writer;

/// The most of the likeliest tokens that are told of.
const TOP_LOGPROBS: usize = 20;

#[derive(Debug, Deserialize, ToSchema)]
pub struct ChatRequest {
    pub model: String,
    #[schema(min_items = 1)]
    pub messages: Vec<ChatMessage>,
    /// Functions that the model may call.
    #[schema(max_items = 128)]
    pub tools: Option<Vec<Tool>>,
    /// Whether it does. A call that is asked for always matches its function's schema.
    pub tool_choice: Option<ToolChoice>,
    /// Whether there may be several calls in one answer; yes, when absent. A call that is asked for is always one.
    pub parallel_tool_calls: Option<bool>,
    /// Whether each token comes with its log-probability.
    pub logprobs: Option<bool>,
    /// And with those of so many of the likeliest tokens, at most 20.
    #[schema(maximum = 20)]
    pub top_logprobs: Option<u32>,
    #[serde(flatten)]
    pub settings: Settings,
    #[serde(flatten)]
    #[schema(ignore)]
    other: Map<String, Value>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ChatCompletion {
    #[serde(flatten)]
    pub envelope: Envelope,
    pub choices: Vec<ChatChoice>,
    pub usage: Usage,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ChatChoice {
    pub index: usize,
    pub message: AssistantMessage,
    pub logprobs: Option<ChatLogprobs>,
    /// `stop`, `tool_calls`, or `length` when it was cut off.
    pub finish_reason: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct AssistantMessage {
    pub role: &'static str,
    /// Absent when there are only calls.
    pub content: Option<String>,
    pub refusal: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub tool_calls: Vec<CallMade>,
}

/// A piece of an answer that is streamed.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatChunk {
    #[serde(flatten)]
    pub envelope: Envelope,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<CallDelta>>,
}

/// A call's beginning, or more of its arguments.
#[derive(Debug, Serialize, ToSchema)]
pub struct CallDelta {
    /// Which call of the answer it is.
    pub index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<ToolKind>,
    pub function: FunctionDelta,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct FunctionDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub arguments: String,
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
        (
            status = 200, description = "The answer; with `stream`, its pieces as server-sent events",
            content((ChatCompletion = "application/json"), (String = "text/event-stream"))
        ),
        Errors,
    )
)]
pub async fn complete(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<ChatRequest>,
) -> Result<Response, ApiError> {
    check_known(&request.other, &[])?;
    let writer = app.writer(&request.model)?;
    let log_probs = log_probs(&request)?;
    let messages = conversation(request.messages)?;
    let tools = Tools::new(request.tools, request.tool_choice, request.parallel_tool_calls)?;
    let settings = request.settings;
    let (streams, usage) = (settings.streams(), settings.includes_usage());
    // Templates, tokenizers and grammars may take their time.
    let begun = tokio::task::spawn_blocking(move || begin(writer, messages, tools.as_ref(), &settings, log_probs, caller));
    let (answering, speakers) = begun.await.map_err(ApiError::lost)??;
    if streams {
        Ok(chunks(answering, speakers, usage))
    } else {
        Ok(whole(answering, speakers, log_probs.is_some()).await?.into_response())
    }
}

/// Asks a model to go on with a conversation.
///
/// # Errors
/// When it cannot talk, or refuses.
pub fn begin(
    writer: Arc<Writer>,
    messages: Vec<Message>,
    tools: Option<&Tools>,
    settings: &Settings,
    log_probs: Option<usize>,
    caller: Caller,
) -> Result<(Answering, Vec<Speaker>), ApiError> {
    let talker = writer.talker().map_err(|why| {
        let message = format!("{} cannot hold a conversation: {why}; use /v1/completions", writer.id);
        ApiError::bad_request(message).param("model")
    })?;
    let form = talker.calls;
    if settings.has_format() && tools.is_some_and(|tools| !tools.is_forced()) {
        let message = "an answer cannot be both free to call tools and of one format: leave the format out, or set tool_choice";
        return Err(ApiError::bad_request(message).param("tools"));
    }
    let prompt = form.prompt(&talker.encoder, messages, tools);
    let prompt = prompt.map_err(|error| ApiError::bad_request(format!("{error:#}")).param("messages"))?;
    let grammar = tools.map(|tools| tools.grammar(&writer, form)).transpose()?.flatten();
    let ask = Ask { prompt, log_probs, grammar, stop: tools.and_then(Tools::stop), caller };
    let answering = Answering::begin(writer.clone(), settings, ask)?;
    Ok((answering, (0..settings.samples()).map(|_| Speaker::new(tools, form)).collect()))
}

/// Takes one answer apart into text and calls.
pub struct Speaker(Option<CallReader>);

impl Speaker {
    fn new(tools: Option<&Tools>, form: CallForm) -> Self {
        Self(tools.map(|tools| tools.reader(form)))
    }

    /// More of the answer.
    pub fn push(&mut self, text: String) -> Vec<Piece> {
        match &mut self.0 {
            Some(reader) => reader.push(&text),
            None if text.is_empty() => vec![],
            None => vec![Piece::Text(text)],
        }
    }

    /// The last of the answer, and why it ended, in OpenAI's words.
    pub fn finish(&mut self, text: String, reason: &Reason) -> (Vec<Piece>, &'static str) {
        let mut pieces = self.push(text);
        let Some(reader) = &mut self.0 else { return (pieces, finish_reason(reason)) };
        let cut = finish_reason(reason) == "length";
        pieces.extend(reader.finish(cut));
        (pieces, if reader.calls() > 0 && !cut { "tool_calls" } else { finish_reason(reason) })
    }
}

fn log_probs(request: &ChatRequest) -> Result<Option<usize>, ApiError> {
    let top = request.top_logprobs.unwrap_or(0) as usize;
    let wrong = |message: String| Err(ApiError::bad_request(message).param("top_logprobs"));
    match request.logprobs {
        Some(true) if top > TOP_LOGPROBS => wrong(format!("top_logprobs must be at most {TOP_LOGPROBS}; it is {top}")),
        Some(true) => Ok(Some(top)),
        _ if top > 0 => wrong("top_logprobs needs logprobs to be true".to_owned()),
        _ => Ok(None),
    }
}

fn logprob(writer: &Writer, token: u32, log_probs: &LogProbs) -> TokenLogprob {
    let one = |id: u32, logprob: f32| {
        let (token, bytes) = writer.token(id);
        Logprob { token, logprob, bytes }
    };
    let top_logprobs = log_probs.top.iter().map(|(id, logprob)| one(*id, *logprob)).collect();
    TokenLogprob { token: one(token, log_probs.token), top_logprobs }
}

impl AssistantMessage {
    fn push(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            match piece {
                Piece::Text(text) => self.content.get_or_insert_default().push_str(&text),
                Piece::Call { name } => {
                    let function = FunctionMade { name, arguments: String::new() };
                    self.tool_calls.push(CallMade { id: identifier("call_"), kind: ToolKind::Function, function });
                }
                Piece::Arguments(more) => {
                    if let Some(call) = self.tool_calls.last_mut() {
                        call.function.arguments.push_str(&more);
                    }
                }
            }
        }
    }
}

async fn whole(mut answering: Answering, mut speakers: Vec<Speaker>, log_probs: bool) -> Result<Json<ChatCompletion>, ApiError> {
    let empty = || AssistantMessage { role: "assistant", content: None, refusal: None, tool_calls: vec![] };
    let choice =
        |index| ChatChoice { index, message: empty(), logprobs: log_probs.then(ChatLogprobs::default), finish_reason: "stop" };
    let mut choices: Vec<ChatChoice> = (0..speakers.len()).map(choice).collect();
    while let Some(event) = answering.next().await {
        match event? {
            Event::Token { sample, token, text, log_probs } => {
                let choice = &mut choices[sample];
                choice.message.push(speakers[sample].push(text));
                if let (Some(all), Some(one)) = (&mut choice.logprobs, log_probs) {
                    all.content.push(logprob(answering.writer(), token, &one));
                }
            }
            Event::Finished { sample, text, reason, .. } => {
                let choice = &mut choices[sample];
                let (pieces, finish_reason) = speakers[sample].finish(text, &reason);
                choice.message.push(pieces);
                choice.finish_reason = finish_reason;
                if choice.message.tool_calls.is_empty() {
                    choice.message.content.get_or_insert_default();
                }
            }
            Event::Read { .. } | Event::Failed(_) => {}
        }
    }
    let envelope = Envelope::new("chatcmpl-", "chat.completion", &answering.writer().id);
    Ok(Json(ChatCompletion { envelope, choices, usage: answering.usage() }))
}

/// Makes the deltas of one answer's pieces; `calls` counts its calls.
fn deltas(pieces: Vec<Piece>, calls: &mut usize) -> Vec<Delta> {
    let of_call = |delta: CallDelta| Delta { tool_calls: Some(vec![delta]), ..Delta::default() };
    let delta = |piece| match piece {
        Piece::Text(text) => Delta { content: Some(text), ..Delta::default() },
        Piece::Call { name } => {
            *calls += 1;
            let function = FunctionDelta { name: Some(name), arguments: String::new() };
            of_call(CallDelta { index: *calls - 1, id: Some(identifier("call_")), kind: Some(ToolKind::Function), function })
        }
        Piece::Arguments(arguments) => {
            let function = FunctionDelta { name: None, arguments };
            of_call(CallDelta { index: calls.saturating_sub(1), id: None, kind: None, function })
        }
    };
    pieces.into_iter().map(delta).collect()
}

fn chunks(answering: Answering, mut speakers: Vec<Speaker>, include_usage: bool) -> Response {
    let envelope = Envelope::new("chatcmpl-", "chat.completion.chunk", &answering.writer().id);
    let chunk = move |choices: Vec<ChunkChoice>, usage| ChatChunk { envelope: envelope.clone(), choices, usage };
    let last = chunk.clone();
    let mut calls = vec![0; speakers.len()];
    let piece = move |writer: &Writer, event: Event| {
        let one = |index: usize, delta: Delta, logprobs, finish_reason| {
            chunk(vec![ChunkChoice { index, delta, logprobs, finish_reason }], None)
        };
        match event {
            Event::Read { .. } => {
                let begins = || Delta { role: Some("assistant"), content: Some(String::new()), tool_calls: None };
                (0..speakers.len()).map(|index| one(index, begins(), None, None)).collect()
            }
            Event::Token { sample, token, text, log_probs } => {
                let mut deltas = deltas(speakers[sample].push(text), &mut calls[sample]);
                let mut logprobs = log_probs.map(|one| ChatLogprobs { content: vec![logprob(writer, token, &one)] });
                if deltas.is_empty() && logprobs.is_some() {
                    deltas.push(Delta::default());
                }
                deltas.into_iter().map(|delta| one(sample, delta, logprobs.take(), None)).collect()
            }
            Event::Finished { sample, text, reason, .. } => {
                let (pieces, finish_reason) = speakers[sample].finish(text, &reason);
                let rest = deltas(pieces, &mut calls[sample]).into_iter().map(|delta| one(sample, delta, None, None));
                rest.chain([one(sample, Delta::default(), None, Some(finish_reason))]).collect()
            }
            Event::Failed(_) => vec![],
        }
    };
    let last = move |usage| include_usage.then(|| last(vec![], Some(usage)));
    stream(answering, Pieces { piece, last })
}
