use axum::Json;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::messages::{self, Message, Role};
use super::{Visit, check_short, missing, preferences};
use crate::api::{Body, now};
use crate::error::ApiError;
use crate::rates::Caller;

/// The newest are listed.
const LISTED: i64 = 1000;
/// Settings are a few numbers.
const MOST_SETTINGS: usize = 16 << 10;
/// Messages a conversation may begin with.
const MOST_BEGUN: usize = 200;

/// A conversation without its messages.
#[derive(Debug, Serialize)]
pub struct Conversation {
    pub id: i64,
    pub title: String,
    pub system: String,
    /// What the page's controls were set to; the server does not look at it.
    pub settings: Value,
    /// The last message of the path that is looked at.
    pub leaf: Option<i64>,
    /// In seconds since 1970.
    pub updated: u64,
}

#[derive(Debug, Serialize)]
pub struct Whole {
    #[serde(flatten)]
    pub conversation: Conversation,
    /// All of the tree, each after its parent.
    pub messages: Vec<Message>,
    pub votes: Vec<super::votes::Vote>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Change {
    title: Option<String>,
    system: Option<String>,
    settings: Option<Map<String, Value>>,
    leaf: Option<i64>,
    /// What a new conversation begins with: examples of questions and answers, in turns.
    messages: Vec<Begun>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begun {
    pub role: Role,
    pub content: String,
}

/// The conversation, if it is the caller's.
pub fn of(db: &Connection, caller: &Caller, id: i64) -> Result<Conversation, ApiError> {
    let query = "SELECT id, title, system, settings, leaf, updated FROM conversations WHERE id = ?1 AND owner = ?2";
    db.query_row(query, params![id, caller.name], read).optional()?.ok_or_else(|| missing("conversation"))
}

fn read(row: &rusqlite::Row) -> rusqlite::Result<Conversation> {
    let settings: String = row.get(3)?;
    Ok(Conversation {
        id: row.get(0)?,
        title: row.get(1)?,
        system: row.get(2)?,
        settings: serde_json::from_str(&settings).unwrap_or_else(|_| json!({})),
        leaf: row.get(4)?,
        updated: row.get::<_, i64>(5)?.unsigned_abs(),
    })
}

pub fn whole(db: &Connection, caller: &Caller, id: i64) -> Result<Whole, ApiError> {
    let conversation = of(db, caller, id)?;
    Ok(Whole { messages: messages::all(db, id)?, votes: super::votes::of(db, id)?, conversation })
}

/// The caller's conversations, the newest first.
pub async fn list(Visit { desk, caller, .. }: Visit) -> Result<Json<Vec<Conversation>>, ApiError> {
    desk.store(move |db| {
        let mut query = db.prepare(
            "SELECT id, title, system, settings, leaf, updated FROM conversations WHERE owner = ?1 ORDER BY updated DESC, id DESC LIMIT ?2",
        )?;
        let found = query.query_map(params![caller.name, LISTED], read)?.collect::<rusqlite::Result<_>>()?;
        Ok(Json(found))
    })
    .await
}

pub async fn show(Visit { desk, caller, place: id }: Visit<i64>) -> Result<Json<Whole>, ApiError> {
    desk.store(move |db| whole(db, &caller, id).map(Json)).await
}

pub async fn create(Visit { desk, caller, .. }: Visit, Body(change): Body<Change>) -> Result<Json<Whole>, ApiError> {
    desk.store(move |db| {
        let transaction = db.transaction()?;
        let id = begin(&transaction, &caller, change)?;
        let made = whole(&transaction, &caller, id)?;
        transaction.commit()?;
        Ok(Json(made))
    })
    .await
}

/// Makes a conversation of what stands in `change`.
fn begin(db: &Connection, caller: &Caller, change: Change) -> Result<i64, ApiError> {
    check(&change)?;
    if change.leaf.is_some() {
        return Err(ApiError::bad_request("a new conversation has no leaf").param("leaf"));
    }
    let Change { title, system, settings, messages, .. } = change;
    let settings = Value::Object(settings.unwrap_or_default()).to_string();
    new(db, caller, (&title.unwrap_or_default(), &system.unwrap_or_default()), &settings, &messages)
}

/// Makes a conversation with a title, a system message, and messages it begins with.
pub fn new(
    db: &Connection,
    caller: &Caller,
    (title, system): (&str, &str),
    settings: &str,
    begun: &[Begun],
) -> Result<i64, ApiError> {
    if begun.len() > MOST_BEGUN {
        let message = format!("a conversation can begin with {MOST_BEGUN} messages, not with {}", begun.len());
        return Err(ApiError::bad_request(message).param("messages"));
    }
    db.execute(
        "INSERT INTO conversations (owner, title, system, settings, created, updated) VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
        params![caller.name, title, system, settings, now() as i64],
    )?;
    let (id, mut parent) = (db.last_insert_rowid(), None);
    for (i, message) in begun.iter().enumerate() {
        let expected = if i % 2 == 0 { Role::User } else { Role::Assistant };
        if message.role != expected || message.content.trim().is_empty() {
            let message =
                format!("message {} must be the {}'s and not be empty: questions and answers take turns", i + 1, expected.name());
            return Err(ApiError::bad_request(message).param("messages"));
        }
        parent = Some(messages::add(db, id, parent, (message.role, &message.content), "", None)?);
    }
    // What was given is whole.
    db.execute("UPDATE messages SET finish = 'stop' WHERE conversation = ?1 AND role = 'assistant'", params![id])?;
    Ok(id)
}

fn check(change: &Change) -> Result<(), ApiError> {
    check_short(change.title.as_deref().unwrap_or_default(), "title")?;
    let size = change.settings.as_ref().map_or(0, |settings| Value::Object(settings.clone()).to_string().len());
    if size > MOST_SETTINGS {
        return Err(
            ApiError::bad_request(format!("settings take {size} bytes; at most {MOST_SETTINGS} are kept")).param("settings")
        );
    }
    Ok(())
}

pub async fn change(
    Visit { desk, caller, place: id }: Visit<i64>,
    Body(change): Body<Change>,
) -> Result<Json<Conversation>, ApiError> {
    check(&change)?;
    if !change.messages.is_empty() {
        return Err(ApiError::bad_request("messages are added one by one").param("messages"));
    }
    desk.store(move |db| {
        let transaction = db.transaction()?;
        of(&transaction, &caller, id)?;
        if let Some(leaf) = change.leaf {
            let query = "SELECT id FROM messages WHERE id = ?1 AND conversation = ?2";
            let found: Option<i64> = transaction.query_row(query, params![leaf, id], |row| row.get(0)).optional()?;
            found.ok_or_else(|| missing("message").param("leaf"))?;
        }
        let settings = change.settings.map(|settings| Value::Object(settings).to_string());
        // What is not given stays.
        transaction.execute(
            "UPDATE conversations SET title = coalesce(?2, title), system = coalesce(?3, system), settings = coalesce(?4, settings),
             leaf = coalesce(?5, leaf) WHERE id = ?1",
            params![id, change.title, change.system, settings, change.leaf],
        )?;
        let changed = of(&transaction, &caller, id)?;
        transaction.commit()?;
        Ok(Json(changed))
    })
    .await
}

/// Removes a conversation with its messages, votes and preferences.
pub async fn remove(Visit { desk, caller, place: id }: Visit<i64>) -> Result<Json<Value>, ApiError> {
    let file = desk.studio.preferences();
    desk.store(move |db| {
        of(db, &caller, id)?;
        db.execute("DELETE FROM conversations WHERE id = ?1", params![id])?;
        preferences::write(db, &file)?;
        Ok(Json(json!({"removed": id})))
    })
    .await
}
