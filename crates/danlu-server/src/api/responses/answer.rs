use axum::response::sse;
use danlu_engine::serve::Event;
use serde_json::{Map, Value, json};

use super::super::answering::{Telling, data};
use super::super::chat::Speaker;
use super::super::tools::Piece;
use super::super::{Usage, identifier};
use super::{ResponseObject, StreamEvent};
use crate::error::ApiError;
use crate::writer::Writer;

/// A response while it is written: items are made of the pieces that come, and each step is an event that may be sent.
pub struct Answer {
    response: ResponseObject,
    speaker: Speaker,
    /// The item that is being written, which comes after those in the response's output.
    open: Option<Item>,
    events: usize,
    /// Whether the answer was cut off.
    cut: bool,
}

enum Item {
    Message { id: String, text: String },
    Call { id: String, call: String, name: String, arguments: String },
}

impl Item {
    fn id(&self) -> &str {
        match self {
            Self::Message { id, .. } | Self::Call { id, .. } => id,
        }
    }

    fn value(&self, status: &str) -> Value {
        match self {
            Self::Message { id, text } => {
                // A message that has just begun has no part.
                let parts = if status == "in_progress" { vec![] } else { vec![part(text)] };
                json!({"id": id, "type": "message", "role": "assistant", "status": status, "content": parts})
            }
            Self::Call { id, call, name, arguments } => json!({
                "id": id, "type": "function_call", "call_id": call, "name": name, "arguments": arguments, "status": status,
            }),
        }
    }
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

impl Answer {
    pub fn new(response: ResponseObject, speaker: Speaker) -> Self {
        Self { response, speaker, open: None, events: 0, cut: false }
    }

    /// Takes what happened, and returns the events that tell of it.
    pub fn take(&mut self, event: Event) -> Vec<StreamEvent> {
        match event {
            Event::Token { text, .. } => {
                let pieces = self.speaker.push(text);
                self.write(pieces)
            }
            Event::Finished { text, reason, .. } => {
                let (pieces, finish_reason) = self.speaker.finish(text, &reason);
                self.cut = finish_reason == "length";
                let mut events = self.write(pieces);
                if self.open.is_none() && self.response.output.is_empty() {
                    events.extend(self.begin(Item::Message { id: identifier("msg_"), text: String::new() }));
                }
                events.extend(self.close());
                events
            }
            Event::Read { .. } | Event::Failed(_) => vec![],
        }
    }

    /// The whole response.
    pub fn completed(mut self, usage: Usage) -> ResponseObject {
        self.complete(usage);
        self.response
    }

    fn complete(&mut self, usage: Usage) {
        self.response.status = if self.cut { "incomplete" } else { "completed" }.to_owned();
        if self.cut {
            self.response.rest.insert("incomplete_details".to_owned(), json!({"reason": "max_output_tokens"}));
        }
        self.response.usage = json!({
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.prompt_tokens_details.cached_tokens},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.total_tokens,
        });
    }

    fn write(&mut self, pieces: Vec<Piece>) -> Vec<StreamEvent> {
        let mut events = vec![];
        for piece in pieces {
            match piece {
                Piece::Text(more) => {
                    if !matches!(self.open, Some(Item::Message { .. })) {
                        events.extend(self.close());
                        events.extend(self.begin(Item::Message { id: identifier("msg_"), text: String::new() }));
                    }
                    if let Some(Item::Message { text, .. }) = &mut self.open {
                        text.push_str(&more);
                    }
                    events.push(self.of_part("response.output_text.delta", json!({"delta": more, "logprobs": []})));
                }
                Piece::Call { name } => {
                    events.extend(self.close());
                    let (id, call) = (identifier("fc_"), identifier("call_"));
                    events.extend(self.begin(Item::Call { id, call, name, arguments: String::new() }));
                }
                Piece::Arguments(more) => {
                    if let Some(Item::Call { arguments, .. }) = &mut self.open {
                        arguments.push_str(&more);
                    }
                    events.push(self.of_item("response.function_call_arguments.delta", json!({"delta": more})));
                }
            }
        }
        events
    }

    fn begin(&mut self, item: Item) -> Vec<StreamEvent> {
        let value = item.value("in_progress");
        let is_message = matches!(item, Item::Message { .. });
        self.open = Some(item);
        let mut events = vec![self.of_output("response.output_item.added", value)];
        if is_message {
            events.push(self.of_part("response.content_part.added", json!({"part": part("")})));
        }
        events
    }

    /// Ends the item that is being written.
    fn close(&mut self) -> Vec<StreamEvent> {
        let mut events = vec![];
        match &self.open {
            None => return events,
            Some(Item::Message { text, .. }) => {
                let (text, part) = (json!({"text": text, "logprobs": []}), json!({"part": part(text)}));
                events.push(self.of_part("response.output_text.done", text));
                events.push(self.of_part("response.content_part.done", part));
            }
            Some(Item::Call { name, arguments, .. }) => {
                let whole = json!({"name": name, "arguments": arguments});
                events.push(self.of_item("response.function_call_arguments.done", whole));
            }
        }
        let status = if self.cut { "incomplete" } else { "completed" };
        if let Some(value) = self.open.as_ref().map(|item| item.value(status)) {
            events.push(self.of_output("response.output_item.done", value.clone()));
            self.open = None;
            self.response.output.push(value);
        }
        events
    }

    /// An event of the whole response.
    fn of_response(&mut self, kind: &str) -> StreamEvent {
        let response = json!({"response": self.response});
        self.event(kind, response)
    }

    /// An event that holds the item that is being written.
    fn of_output(&mut self, kind: &str, item: Value) -> StreamEvent {
        let place = self.response.output.len();
        self.event(kind, json!({"output_index": place, "item": item}))
    }

    /// An event of the item that is being written.
    fn of_item(&mut self, kind: &str, more: Value) -> StreamEvent {
        let id = self.open.as_ref().map(|item| item.id().to_owned());
        let mut rest = json!({"item_id": id, "output_index": self.response.output.len()});
        if let (Some(rest), Value::Object(more)) = (rest.as_object_mut(), more) {
            rest.extend(more);
        }
        self.event(kind, rest)
    }

    /// An event of the message's only part.
    fn of_part(&mut self, kind: &str, mut more: Value) -> StreamEvent {
        more["content_index"] = json!(0);
        self.of_item(kind, more)
    }

    fn event(&mut self, kind: &str, rest: Value) -> StreamEvent {
        let sequence_number = self.events;
        self.events += 1;
        let rest = match rest {
            Value::Object(rest) => rest,
            _ => Map::new(),
        };
        StreamEvent { kind: kind.to_owned(), sequence_number, rest }
    }
}

impl Telling for Answer {
    fn tell(&mut self, _: &Writer, event: Event) -> Vec<sse::Event> {
        let events = match event {
            Event::Read { .. } => vec![self.of_response("response.created"), self.of_response("response.in_progress")],
            event => self.take(event),
        };
        events.iter().map(named).collect()
    }

    fn end(&mut self, end: Result<Usage, ApiError>) -> Vec<sse::Event> {
        let event = match end {
            Ok(usage) => {
                self.complete(usage);
                self.of_response(if self.cut { "response.incomplete" } else { "response.completed" })
            }
            Err(error) => {
                self.response.status = "failed".to_owned();
                let error = json!({"code": "server_error", "message": error.into_body().error.message});
                self.response.rest.insert("error".to_owned(), error);
                self.of_response("response.failed")
            }
        };
        vec![named(&event)]
    }
}

fn named(event: &StreamEvent) -> sse::Event {
    data(event).event(&event.kind)
}
