use std::collections::HashMap;

use axum::Json;
use danlu_data::chat;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::{Visit, conversations, missing};
use crate::api::{Body, now};
use crate::error::ApiError;

/// More messages than anybody writes; a conversation is read as a whole.
const MOST: i64 = 10_000;
/// Characters of the first question that name a conversation.
const TITLE: usize = 60;

/// A message of a conversation's tree.
#[derive(Clone, Debug, Serialize)]
pub struct Message {
    pub id: i64,
    /// What it follows; none at the beginning.
    pub parent: Option<i64>,
    pub role: Role,
    pub content: String,
    /// Who wrote an answer.
    pub model: Option<String>,
    /// Why an answer ended: `stop`, `length`, `stopped` by a person, `failed`, or `lost` with a killed server; none while it is written.
    pub finish: Option<String>,
    pub prompt_tokens: Option<i64>,
    pub tokens: Option<i64>,
    /// From the question to the first piece of the answer.
    pub first_seconds: Option<f64>,
    /// From the question to the end of the answer.
    pub seconds: Option<f64>,
    /// 1 for good, -1 for bad.
    pub thumb: Option<i64>,
    /// The system message an answer was asked with.
    #[serde(skip)]
    pub system: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    User,
    Assistant,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

const COLUMNS: &str = "id, parent, role, content, model, finish, prompt_tokens, tokens, first_seconds, seconds, thumb, system";

impl Message {
    fn of(row: &Row) -> rusqlite::Result<Self> {
        let role: String = row.get(2)?;
        Ok(Self {
            id: row.get(0)?,
            parent: row.get(1)?,
            role: if role == "user" { Role::User } else { Role::Assistant },
            content: row.get(3)?,
            model: row.get(4)?,
            finish: row.get(5)?,
            prompt_tokens: row.get(6)?,
            tokens: row.get(7)?,
            first_seconds: row.get(8)?,
            seconds: row.get(9)?,
            thumb: row.get(10)?,
            system: row.get(11)?,
        })
    }

    pub fn to_chat(&self) -> chat::Message {
        match self.role {
            Role::User => chat::Message::user(self.content.as_str()),
            Role::Assistant => chat::Message::assistant(self.content.as_str()),
        }
    }
}

/// All messages of a conversation, each after what it follows.
pub fn all(db: &Connection, conversation: i64) -> Result<Vec<Message>, ApiError> {
    let mut query = db.prepare(&format!("SELECT {COLUMNS} FROM messages WHERE conversation = ?1 ORDER BY id"))?;
    let messages = query.query_map(params![conversation], Message::of)?.collect::<rusqlite::Result<_>>()?;
    Ok(messages)
}

pub fn one(db: &Connection, id: i64) -> Result<Message, ApiError> {
    let query = format!("SELECT {COLUMNS} FROM messages WHERE id = ?1");
    db.query_row(&query, params![id], Message::of).optional()?.ok_or_else(|| missing("message"))
}

/// The messages from the beginning to `last`.
pub fn path_to(messages: &[Message], last: i64) -> Vec<&Message> {
    let by_id: HashMap<i64, &Message> = messages.iter().map(|message| (message.id, message)).collect();
    let mut found = vec![];
    let mut next = Some(last);
    // A parent is older than its child, so that this ends.
    while let Some(message) = next.and_then(|id| by_id.get(&id)) {
        found.push(*message);
        next = message.parent.filter(|parent| *parent < message.id);
    }
    found.reverse();
    found
}

/// Adds a message and makes it the one that is looked at. `system` is what an answer is asked with.
pub fn add(
    db: &Connection,
    conversation: i64,
    parent: Option<i64>,
    (role, content): (Role, &str),
    system: &str,
    model: Option<&str>,
) -> Result<i64, ApiError> {
    let count: i64 =
        db.query_row("SELECT count(*) FROM messages WHERE conversation = ?1", params![conversation], |row| row.get(0))?;
    if count >= MOST {
        return Err(ApiError::bad_request(format!("a conversation has at most {MOST} messages; begin another")));
    }
    db.execute(
        "INSERT INTO messages (conversation, parent, role, content, system, model, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![conversation, parent, role.name(), content, system, model, now() as i64],
    )?;
    let id = db.last_insert_rowid();
    db.execute("UPDATE conversations SET leaf = ?2, updated = ?3 WHERE id = ?1", params![conversation, id, now() as i64])?;
    Ok(id)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// The answer it follows; none at the beginning of the conversation. A question that is edited has the parent of the one before.
    parent: Option<i64>,
    content: String,
}

/// Keeps a question.
pub async fn ask(Visit { desk, caller, place: id }: Visit<i64>, Body(ask): Body<Ask>) -> Result<Json<Message>, ApiError> {
    if ask.content.trim().is_empty() {
        return Err(ApiError::bad_request("the message is empty").param("content"));
    }
    desk.store(move |db| {
        let transaction = db.transaction()?;
        let conversation = conversations::of(&transaction, &caller, id)?;
        let parent = ask.parent.map(|parent| child_of(&transaction, id, parent, Role::Assistant)).transpose()?;
        if conversation.title.is_empty() {
            let title: String = ask.content.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(TITLE).collect();
            transaction.execute("UPDATE conversations SET title = ?2 WHERE id = ?1", params![id, title])?;
        }
        let message = add(&transaction, id, parent, (Role::User, &ask.content), "", None)?;
        let message = one(&transaction, message)?;
        transaction.commit()?;
        Ok(Json(message))
    })
    .await
}

/// The parent, if it is of this conversation and role.
pub fn child_of(db: &Connection, conversation: i64, parent: i64, role: Role) -> Result<i64, ApiError> {
    let query = "SELECT role FROM messages WHERE id = ?1 AND conversation = ?2";
    let found: Option<String> = db.query_row(query, params![parent, conversation], |row| row.get(0)).optional()?;
    match found {
        Some(found) if found == role.name() => Ok(parent),
        Some(_) => {
            Err(ApiError::bad_request(format!("what is followed must be a message of the {}", role.name())).param("parent"))
        }
        None => Err(missing("message").param("parent")),
    }
}
