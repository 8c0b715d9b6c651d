//! A model's answer to a question of a conversation, written as it comes and kept when it ends, however it ends.

use std::sync::Arc;
use std::time::Instant;

use axum::response::{Response, sse};
use danlu_data::chat;
use danlu_engine::serve::Event;
use rusqlite::params;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::messages::{self, Message, Role};
use super::{Studio, Visit, conversations};
use crate::api::answering::{self, Answering, Telling, data, finish_reason, stream};
use crate::api::chat::begin;
use crate::api::settings::Settings;
use crate::api::{Body, Usage, check_known};
use crate::error::ApiError;
use crate::rates::Caller;
use crate::writer::Writer;

#[derive(Debug, Deserialize)]
pub struct Ask {
    /// The question.
    parent: i64,
    model: String,
    #[serde(flatten)]
    settings: Settings,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// Answers a question as server-sent events: the message as it begins, pieces of text, and the message as it is kept, or an error. A client
/// that goes away stops the answer; what was written until then is kept.
pub async fn answer(Visit { desk, caller, place: id }: Visit<i64>, Body(ask): Body<Ask>) -> Result<Response, ApiError> {
    let Ask { parent, model, settings, other } = ask;
    check_known(&other, &[])?;
    if settings.samples() != 1 {
        return Err(ApiError::bad_request("one answer is written at a time; ask again for another").param("n"));
    }
    let writer = desk.app.writer(&model)?;
    let owner = caller.clone();
    let (system, said) = desk
        .store(move |db| {
            let conversation = conversations::of(db, &owner, id)?;
            messages::child_of(db, id, parent, Role::User)?;
            let all = messages::all(db, id)?;
            let said: Vec<chat::Message> = messages::path_to(&all, parent).into_iter().map(Message::to_chat).collect();
            Ok((conversation.system, said))
        })
        .await?;
    let asked_with = system.clone();
    // Templates, tokenizers and grammars may take their time.
    let begun = tokio::task::spawn_blocking(move || take_on(writer, asked_with, said, &settings, caller));
    let answering = begun.await.map_err(ApiError::lost)??;
    let (studio, began) = (desk.studio.clone(), Instant::now());
    // Made where the message is added, so that one whose client is gone already is ended too.
    let kept = desk
        .store(move |db| {
            let transaction = db.transaction()?;
            let message = messages::add(&transaction, id, Some(parent), (Role::Assistant, ""), &system, Some(&model))?;
            let message = messages::one(&transaction, message)?;
            transaction.commit()?;
            Ok(Kept { studio, message, began, ended: false })
        })
        .await?;
    Ok(stream(answering, kept))
}

/// Asks the model to answer, or, where it cannot talk, to go on with the text.
fn take_on(
    writer: Arc<Writer>,
    system: String,
    said: Vec<chat::Message>,
    settings: &Settings,
    caller: Caller,
) -> Result<Answering, ApiError> {
    if writer.talker().is_ok() {
        let system = Some(system).filter(|system| !system.trim().is_empty()).map(chat::Message::system);
        return begin(writer, system.into_iter().chain(said).collect(), None, settings, None, caller)
            .map(|(answering, _)| answering);
    }
    let text: String = said.iter().map(chat::Message::text).collect();
    let prompt = writer.encode(&text).map_err(|error| ApiError::bad_request(error.to_string()).param("messages"))?;
    Answering::begin(writer, settings, answering::Ask { prompt, log_probs: None, grammar: None, stop: None, caller })
}

/// An answer that is being written.
struct Kept {
    studio: Arc<Studio>,
    message: Message,
    began: Instant,
    ended: bool,
}

impl Kept {
    fn more(&mut self, text: &str) -> Vec<sse::Event> {
        if text.is_empty() {
            return vec![];
        }
        self.message.first_seconds.get_or_insert_with(|| self.began.elapsed().as_secs_f64());
        self.message.content.push_str(text);
        vec![data(&json!({"text": text}))]
    }

    /// Keeps the answer as it is. Its conversation may have been removed meanwhile.
    fn keep(&mut self, finish: &str) -> Result<(), ApiError> {
        self.ended = true;
        let message = &mut self.message;
        message.finish = Some(finish.to_owned());
        message.seconds = Some(self.began.elapsed().as_secs_f64());
        self.studio.store.db().execute(
            "UPDATE messages SET content = ?2, finish = ?3, prompt_tokens = ?4, tokens = ?5, first_seconds = ?6, seconds = ?7 WHERE id = ?1",
            params![
                message.id,
                message.content,
                message.finish,
                message.prompt_tokens,
                message.tokens,
                message.first_seconds,
                message.seconds
            ],
        )?;
        Ok(())
    }
}

impl Telling for Kept {
    fn tell(&mut self, _: &Writer, event: Event) -> Vec<sse::Event> {
        match event {
            Event::Read { .. } => vec![data(&json!({"message": self.message}))],
            Event::Token { text, .. } => {
                *self.message.tokens.get_or_insert(0) += 1;
                self.more(&text)
            }
            Event::Finished { text, reason, .. } => {
                self.message.finish = Some(finish_reason(&reason).to_owned());
                self.more(&text)
            }
            Event::Failed(_) => vec![],
        }
    }

    fn end(&mut self, end: Result<Usage, ApiError>) -> Vec<sse::Event> {
        let kept = match end {
            Ok(usage) => {
                self.message.prompt_tokens = i64::try_from(usage.prompt_tokens).ok();
                self.message.tokens = i64::try_from(usage.completion_tokens).ok();
                let finish = self.message.finish.take();
                self.keep(finish.as_deref().unwrap_or("stop"))
            }
            Err(error) => self.keep("failed").and(Err(error)),
        };
        match kept {
            Ok(()) => vec![data(&json!({"message": self.message}))],
            Err(error) => vec![data(&error.into_body())],
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if !self.ended
            && let Err(error) = self.keep("stopped")
        {
            // Whom it could be told is gone.
            eprintln!("an answer that was stopped is not kept: {}", error.into_body().error.message);
        }
    }
}
