use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use danlu_engine::LogProbs;
use danlu_engine::serve::Event;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::answering::{Answering, Ask, Pieces, finish_reason, stream};
use super::settings::Settings;
use super::{Body, Envelope, Usage, check_known};
use crate::App;
use crate::document::Errors;
use crate::error::ApiError;
use crate::rates::Caller;
use crate::writer::Writer;

/// The most of the likeliest tokens that are told of.
const TOP_LOGPROBS: usize = 20;

#[derive(Debug, Deserialize, ToSchema)]
pub struct CompletionRequest {
    pub model: String,
    pub prompt: TextOrTokens,
    /// Tokens come with their log-probabilities and those of so many of the likeliest tokens, at most 20.
    #[schema(maximum = 20)]
    pub logprobs: Option<u32>,
    #[serde(flatten)]
    pub settings: Settings,
    #[serde(flatten)]
    #[schema(ignore)]
    other: Map<String, Value>,
}

/// A text to go on with, or its tokens, to which nothing is added.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "prompt must be a text, a list with one text, or a list of tokens")]
pub enum TextOrTokens {
    Text(String),
    Tokens(Vec<u32>),
    /// One text; several are not taken.
    Texts(Vec<String>),
}

#[derive(Debug, Serialize, ToSchema)]
pub struct TextCompletion {
    #[serde(flatten)]
    pub envelope: Envelope,
    pub choices: Vec<TextChoice>,
    pub usage: Option<Usage>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct TextChoice {
    pub index: usize,
    pub text: String,
    pub logprobs: Option<TextLogprobs>,
    /// `stop`, or `length` when it was cut off.
    pub finish_reason: Option<&'static str>,
}

/// One entry for each token. Log-probabilities are the model's own, in nats: before temperature, penalties and restrictions.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct TextLogprobs {
    pub tokens: Vec<String>,
    pub token_logprobs: Vec<f32>,
    pub top_logprobs: Vec<BTreeMap<String, f32>>,
    /// Where each token begins in the text, in characters.
    pub text_offset: Vec<usize>,
}

impl TextLogprobs {
    fn push(&mut self, writer: &Writer, token: u32, log_probs: &LogProbs, at: &mut usize) {
        let text = writer.token(token).0;
        self.text_offset.push(*at);
        *at += text.chars().count();
        self.tokens.push(text);
        self.token_logprobs.push(log_probs.token);
        self.top_logprobs.push(log_probs.top.iter().map(|(id, log)| (writer.token(*id).0, *log)).collect());
    }
}

/// Goes on with a text.
#[utoipa::path(
    post, path = "/v1/completions", tag = "completions", request_body = CompletionRequest,
    responses(
        (
            status = 200, description = "The text that follows; with `stream`, its pieces as server-sent events",
            content((TextCompletion = "application/json"), (String = "text/event-stream"))
        ),
        Errors,
    )
)]
pub async fn complete(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<CompletionRequest>,
) -> Result<Response, ApiError> {
    check_known(&request.other, &[])?;
    let writer = app.writer(&request.model)?;
    let log_probs = request.logprobs.map(|top| top as usize);
    if let Some(top) = log_probs.filter(|top| *top > TOP_LOGPROBS) {
        return Err(ApiError::bad_request(format!("logprobs must be at most {TOP_LOGPROBS}; it is {top}")).param("logprobs"));
    }
    let settings = request.settings;
    let (streams, samples, usage) = (settings.streams(), settings.samples(), settings.includes_usage());
    // Tokenizers and grammars may take their time.
    let begun = tokio::task::spawn_blocking(move || {
        let text = |text: &str| writer.encode(text).map_err(|error| ApiError::bad_request(error.to_string()).param("prompt"));
        let prompt = match &request.prompt {
            TextOrTokens::Text(prompt) => text(prompt)?,
            TextOrTokens::Tokens(tokens) => tokens.clone(),
            TextOrTokens::Texts(texts) => match texts.as_slice() {
                [one] => text(one)?,
                more => {
                    let message = format!("prompt has {} texts; one is taken at a time", more.len());
                    return Err(ApiError::bad_request(message).param("prompt"));
                }
            },
        };
        Answering::begin(writer.clone(), &settings, Ask { prompt, log_probs, grammar: None, stop: None, caller })
    });
    let answering = begun.await.map_err(ApiError::lost)??;
    if streams {
        Ok(chunks(answering, samples, usage))
    } else {
        Ok(whole(answering, samples, log_probs.is_some()).await?.into_response())
    }
}

fn envelope(answering: &Answering) -> Envelope {
    Envelope::new("cmpl-", "text_completion", &answering.writer().id)
}

async fn whole(mut answering: Answering, samples: usize, log_probs: bool) -> Result<Json<TextCompletion>, ApiError> {
    let mut choices: Vec<TextChoice> = (0..samples)
        .map(|index| TextChoice {
            index,
            text: String::new(),
            logprobs: log_probs.then(TextLogprobs::default),
            finish_reason: None,
        })
        .collect();
    let mut at = vec![0; samples];
    while let Some(event) = answering.next().await {
        match event? {
            Event::Token { sample, token, text, log_probs } => {
                choices[sample].text.push_str(&text);
                if let (Some(all), Some(one)) = (&mut choices[sample].logprobs, log_probs) {
                    all.push(answering.writer(), token, &one, &mut at[sample]);
                }
            }
            Event::Finished { sample, text, reason, .. } => {
                choices[sample].text.push_str(&text);
                choices[sample].finish_reason = Some(finish_reason(&reason));
            }
            Event::Read { .. } | Event::Failed(_) => {}
        }
    }
    Ok(Json(TextCompletion { envelope: envelope(&answering), choices, usage: Some(answering.usage()) }))
}

fn chunks(answering: Answering, samples: usize, include_usage: bool) -> Response {
    let envelope = envelope(&answering);
    let chunk = move |choices: Vec<TextChoice>, usage| TextCompletion { envelope: envelope.clone(), choices, usage };
    let last = chunk.clone();
    let mut at = vec![0; samples];
    let piece = move |writer: &Writer, event: Event| match event {
        Event::Token { text, log_probs: None, .. } if text.is_empty() => vec![],
        Event::Token { sample: index, token, text, log_probs } => {
            let logprobs = log_probs.map(|one| {
                let mut all = TextLogprobs::default();
                all.push(writer, token, &one, &mut at[index]);
                all
            });
            vec![chunk(vec![TextChoice { index, text, logprobs, finish_reason: None }], None)]
        }
        Event::Finished { sample: index, text, reason, .. } => {
            vec![chunk(vec![TextChoice { index, text, logprobs: None, finish_reason: Some(finish_reason(&reason)) }], None)]
        }
        Event::Read { .. } | Event::Failed(_) => vec![],
    };
    let last = move |usage| include_usage.then(|| last(vec![], Some(usage)));
    stream(answering, Pieces { piece, last })
}
