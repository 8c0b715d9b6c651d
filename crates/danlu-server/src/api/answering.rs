use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use danlu_engine::Reason;
use danlu_engine::serve::{Event, Request, Sink};
use futures::stream;
use metrics::{counter, histogram};
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::settings::Settings;
use super::{PromptTokensDetails, Usage};
use crate::error::ApiError;
use crate::model::Model;

/// A request that a model is answering. Dropping it, as happens when the client goes away, ends the work.
pub struct Answering {
    events: UnboundedReceiver<Event>,
    model: Arc<Model>,
    began: Instant,
    /// Samples that are not finished.
    left: usize,
    written: bool,
    usage: Usage,
}

/// A request can have no more events than it has tokens, so the channel needs no bound of its own.
struct Channel(UnboundedSender<Event>);

impl Sink for Channel {
    fn send(&self, event: Event) {
        // A receiver that is gone is noticed before the next step.
        let _ = self.0.send(event);
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

impl Answering {
    /// Asks the model.
    ///
    /// # Errors
    /// When it refuses.
    pub fn begin(model: Arc<Model>, prompt: Vec<u32>, settings: &Settings, log_probs: Option<usize>) -> Result<Self, ApiError> {
        let (sender, events) = unbounded_channel();
        let samples = settings.samples();
        let usage = Usage { prompt_tokens: prompt.len(), ..Usage::default() };
        let grammar = settings.grammar(&model)?;
        let sink = Arc::new(Channel(sender));
        let request = Request { prompt, samples, sampling: settings.sampling()?, log_probs, grammar, sink };
        model.engine.submit(request)?;
        Ok(Self { events, model, began: Instant::now(), left: samples, written: false, usage })
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    pub fn usage(&self) -> Usage {
        Usage { total_tokens: self.usage.prompt_tokens + self.usage.completion_tokens, ..self.usage }
    }

    /// The next event; none when all samples are finished.
    ///
    /// # Errors
    /// When the model fails.
    pub async fn next(&mut self) -> Option<Result<Event, ApiError>> {
        if self.left == 0 {
            return None;
        }
        let Some(event) = self.events.recv().await else {
            return Some(Err(self.failed("the model has failed and answers no more; restart the server")));
        };
        let label = || self.model.id.clone();
        match &event {
            Event::Read { cached } => self.usage.prompt_tokens_details = PromptTokensDetails { cached_tokens: *cached },
            Event::Token { .. } if !self.written => {
                self.written = true;
                histogram!("danlu_first_token_seconds", "model" => label()).record(self.began.elapsed().as_secs_f64());
            }
            Event::Token { .. } => {}
            Event::Finished { tokens, .. } => {
                self.left -= 1;
                self.usage.completion_tokens += tokens;
                if self.left == 0 {
                    histogram!("danlu_answer_seconds", "model" => label()).record(self.began.elapsed().as_secs_f64());
                    counter!("danlu_answers_total", "model" => label()).increment(1);
                }
            }
            Event::Failed(message) => return Some(Err(self.failed(message))),
        }
        Some(Ok(event))
    }

    fn failed(&mut self, message: &str) -> ApiError {
        self.left = 0;
        counter!("danlu_failures_total", "model" => self.model.id.clone()).increment(1);
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if self.left > 0 {
            counter!("danlu_cancelled_total", "model" => self.model.id.clone()).increment(1);
        }
    }
}

/// Why a text ended, in OpenAI's words.
pub fn finish_reason(reason: &Reason) -> &'static str {
    match reason {
        Reason::EndOfText | Reason::StopString(_) | Reason::Cancelled => "stop",
        Reason::MaxTokens | Reason::Context => "length",
    }
}

/// Sends the pieces that `piece` makes of each event, then what `last` adds, then `[DONE]`.
pub fn stream<P: Serialize + 'static>(
    answering: Answering,
    piece: impl FnMut(&Model, Event) -> Vec<P> + Send + 'static,
    last: impl Fn(Usage) -> Option<P> + Send + 'static,
) -> Response {
    let state = (answering, piece, last, VecDeque::new(), false);
    let pieces = stream::unfold(state, |(mut answering, mut piece, last, mut ready, mut done)| async move {
        while ready.is_empty() && !done {
            match answering.next().await {
                Some(Ok(event)) => ready.extend(piece(answering.model(), event).iter().map(data)),
                Some(Err(error)) => {
                    ready.push_back(data(&error.into_body()));
                    done = true;
                }
                None => {
                    ready.extend(last(answering.usage()).iter().map(data));
                    ready.push_back(sse::Event::default().data("[DONE]"));
                    done = true;
                }
            }
        }
        let next: sse::Event = ready.pop_front()?;
        Some((Ok::<_, Infallible>(next), (answering, piece, last, ready, done)))
    });
    Sse::new(pieces).keep_alive(KeepAlive::default()).into_response()
}

fn data(piece: &impl Serialize) -> sse::Event {
    // Nothing that is sent has a key or number that JSON does not know.
    sse::Event::default().json_data(piece).unwrap_or_default()
}
