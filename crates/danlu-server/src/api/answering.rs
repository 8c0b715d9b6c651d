use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use danlu_engine::serve::{Event, Request, Sink};
use danlu_engine::{Grammar, Reason};
use futures::stream;
use metrics::{counter, histogram};
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::settings::Settings;
use super::{PromptTokensDetails, Usage};
use crate::error::ApiError;
use crate::rates::Caller;
use crate::writer::Writer;

/// A request that a model is answering. Dropping it, as happens when the client goes away, ends the work.
pub struct Answering {
    events: UnboundedReceiver<Event>,
    writer: Arc<Writer>,
    caller: Caller,
    began: Instant,
    /// Samples that are not finished.
    left: usize,
    written: bool,
    usage: Usage,
}

/// What is asked of a model, besides its settings.
pub struct Ask {
    pub prompt: Vec<u32>,
    pub log_probs: Option<usize>,
    /// What the answer must be like, in place of the settings' format.
    pub grammar: Option<Grammar>,
    /// What ends the answer, besides the settings' own.
    pub stop: Option<&'static str>,
    pub caller: Caller,
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
    pub fn begin(writer: Arc<Writer>, settings: &Settings, ask: Ask) -> Result<Self, ApiError> {
        let (sender, events) = unbounded_channel();
        let Ask { prompt, log_probs, grammar, stop, caller } = ask;
        let (samples, read) = (settings.samples(), prompt.len());
        let mut sampling = settings.sampling()?;
        sampling.stop.extend(stop.map(str::to_owned));
        let grammar = match grammar {
            Some(grammar) => Some(grammar),
            None => settings.grammar(&writer)?,
        };
        let request = Request { prompt, samples, sampling, log_probs, grammar, sink: Arc::new(Channel(sender)) };
        writer.engine.submit(request)?;
        caller.charge(read);
        let usage = Usage { prompt_tokens: read, ..Usage::default() };
        Ok(Self { events, writer, caller, began: Instant::now(), left: samples, written: false, usage })
    }

    pub fn writer(&self) -> &Writer {
        &self.writer
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
        let label = || self.writer.id.clone();
        if let Event::Token { .. } = &event {
            self.caller.charge(1);
        }
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
        counter!("danlu_failures_total", "model" => self.writer.id.clone()).increment(1);
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if self.left > 0 {
            counter!("danlu_cancelled_total", "model" => self.writer.id.clone()).increment(1);
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

/// What is sent while a model answers.
pub trait Telling: Send + 'static {
    fn tell(&mut self, writer: &Writer, event: Event) -> Vec<sse::Event>;

    /// The answer is whole, or it failed.
    fn end(&mut self, end: Result<Usage, ApiError>) -> Vec<sse::Event>;
}

/// Sends what `telling` makes of each event, as server-sent events.
pub fn stream(answering: Answering, telling: impl Telling) -> Response {
    let state = (answering, telling, VecDeque::new(), false);
    let pieces = stream::unfold(state, |(mut answering, mut telling, mut ready, mut done)| async move {
        while ready.is_empty() && !done {
            match answering.next().await {
                Some(Ok(event)) => ready.extend(telling.tell(answering.writer(), event)),
                Some(Err(error)) => {
                    ready.extend(telling.end(Err(error)));
                    done = true;
                }
                None => {
                    ready.extend(telling.end(Ok(answering.usage())));
                    done = true;
                }
            }
        }
        let next: sse::Event = ready.pop_front()?;
        Some((Ok::<_, Infallible>(next), (answering, telling, ready, done)))
    });
    Sse::new(pieces).keep_alive(KeepAlive::default()).into_response()
}

/// The pieces that `piece` makes of each event, then what `last` adds, then `[DONE]`.
pub struct Pieces<P, L> {
    pub piece: P,
    pub last: L,
}

impl<T, P, L> Telling for Pieces<P, L>
where
    T: Serialize,
    P: FnMut(&Writer, Event) -> Vec<T> + Send + 'static,
    L: FnMut(Usage) -> Option<T> + Send + 'static,
{
    fn tell(&mut self, writer: &Writer, event: Event) -> Vec<sse::Event> {
        (self.piece)(writer, event).iter().map(data).collect()
    }

    fn end(&mut self, end: Result<Usage, ApiError>) -> Vec<sse::Event> {
        match end {
            Ok(usage) => (self.last)(usage).iter().map(data).chain([sse::Event::default().data("[DONE]")]).collect(),
            Err(error) => vec![data(&error.into_body())],
        }
    }
}

/// A piece as the data of an event.
pub fn data(piece: &impl Serialize) -> sse::Event {
    // Nothing that is sent has a key or number that JSON does not know.
    sse::Event::default().json_data(piece).unwrap_or_default()
}
