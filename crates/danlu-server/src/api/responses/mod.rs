//! OpenAI's API of responses, as far as a server needs it that keeps no conversations: a request has all of its conversation, and gets text
//! and calls of functions.

mod answer;
mod input;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use self::answer::Answer;
use self::input::{ResponseRequest, conversation};
use super::answering::stream;
use super::chat::begin;
use super::{Body, identifier, now, of_value};
use crate::App;
use crate::document::Errors;
use crate::error::ApiError;
use crate::rates::Caller;

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResponseObject {
    pub id: String,
    /// `response`.
    pub object: String,
    /// In seconds since 1970.
    pub created_at: u64,
    /// `completed`, or `incomplete` when it was cut off.
    pub status: String,
    pub model: String,
    /// Messages (`message`, with parts `output_text`) and calls (`function_call`).
    #[schema(value_type = Vec<Object>)]
    pub output: Vec<Value>,
    #[schema(value_type = Option<Object>)]
    pub usage: Value,
    /// The settings of the request, and what else OpenAI's clients look for.
    #[serde(flatten)]
    #[schema(ignore)]
    pub rest: Map<String, Value>,
}

/// A piece of a response that is streamed: `response.created`, `response.output_text.delta` and so on, as in OpenAI's API.
#[derive(Debug, Serialize, ToSchema)]
pub struct StreamEvent {
    #[serde(rename = "type")]
    pub kind: String,
    /// Counts the events of a response from 0.
    pub sequence_number: usize,
    #[serde(flatten)]
    #[schema(ignore)]
    pub rest: Map<String, Value>,
}

/// Answers a text or a conversation. Nothing is stored.
#[utoipa::path(
    post, path = "/v1/responses", tag = "responses", request_body = ResponseRequest,
    responses(
        (
            status = 200, description = "The response; with `stream`, its pieces as server-sent events",
            content((ResponseObject = "application/json"), (String = "text/event-stream"))
        ),
        Errors,
    )
)]
pub async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<Value>,
) -> Result<Response, ApiError> {
    let repeated = repeated(&body);
    let mut request: ResponseRequest = of_value(body)?;
    request.check_other()?;
    let writer = app.writer(&request.model)?;
    let (settings, tools) = (request.settings(), request.tools()?);
    let messages = conversation(request.instructions, request.input)?;
    let streams = settings.streams();
    let response = begun(repeated, &writer.id);
    let begun = tokio::task::spawn_blocking(move || begin(writer, messages, tools.as_ref(), &settings, None, caller));
    let (mut answering, mut speakers) = begun.await.map_err(ApiError::lost)??;
    let speaker = speakers.pop().ok_or_else(|| ApiError::internal("a response has one answer, and there is none"))?;
    let mut answer = Answer::new(response, speaker);
    if streams {
        return Ok(stream(answering, answer));
    }
    while let Some(event) = answering.next().await {
        answer.take(event?);
    }
    Ok(Json(answer.completed(answering.usage())).into_response())
}

/// The settings of a request that its response repeats, with what they are when they are not given.
fn repeated(request: &Value) -> Map<String, Value> {
    let settings = [
        ("instructions", Value::Null),
        ("max_output_tokens", Value::Null),
        ("temperature", json!(1.0)),
        ("top_p", json!(1.0)),
        ("text", json!({"format": {"type": "text"}})),
        ("tools", json!([])),
        ("tool_choice", json!("auto")),
        ("parallel_tool_calls", json!(true)),
        ("metadata", json!({})),
        ("truncation", json!("disabled")),
    ];
    let one = |(key, default): (&str, Value)| {
        let given = request.get(key).filter(|value| !value.is_null()).cloned();
        (key.to_owned(), given.unwrap_or(default))
    };
    settings.into_iter().map(one).collect()
}

/// A response that has no output yet.
fn begun(mut rest: Map<String, Value>, model: &str) -> ResponseObject {
    for (key, value) in [
        ("store", json!(false)),
        ("error", Value::Null),
        ("incomplete_details", Value::Null),
        ("previous_response_id", Value::Null),
        ("reasoning", json!({"effort": null, "summary": null})),
    ] {
        rest.insert(key.to_owned(), value);
    }
    ResponseObject {
        id: identifier("resp_"),
        object: "response".to_owned(),
        created_at: now(),
        status: "in_progress".to_owned(),
        model: model.to_owned(),
        output: vec![],
        usage: Value::Null,
        rest,
    }
}
