//! What people think of answers: a thumb for one, a vote between two.

use std::collections::BTreeMap;

use axum::Json;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::messages::{self, Message, Role};
use super::{Visit, missing, preferences};
use crate::api::{Body, now};
use crate::error::ApiError;
use crate::rates::Caller;

/// A comparison of two answers to one question.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vote {
    pub first: i64,
    pub second: i64,
    /// The better one; none when they are as good.
    pub winner: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thumb {
    /// 1 for good, -1 for bad, null for neither.
    thumb: Option<i64>,
}

/// How often each model was preferred, and the data set that was made.
#[derive(Debug, Serialize)]
pub struct Tally {
    models: BTreeMap<String, Standing>,
    pairs: usize,
    judged: usize,
    /// The data set, and what trains on it.
    file: String,
    command: String,
}

#[derive(Debug, Default, Serialize)]
pub struct Standing {
    won: u32,
    lost: u32,
    tied: u32,
    good: u32,
    bad: u32,
}

/// The votes of a conversation.
pub fn of(db: &Connection, conversation: i64) -> Result<Vec<Vote>, ApiError> {
    let mut query = db.prepare(
        "SELECT first, second, winner FROM votes JOIN messages ON messages.id = first WHERE conversation = ?1 ORDER BY votes.id",
    )?;
    let vote = |row: &rusqlite::Row| Ok(Vote { first: row.get(0)?, second: row.get(1)?, winner: row.get(2)? });
    let votes = query.query_map(params![conversation], vote)?.collect::<rusqlite::Result<_>>()?;
    Ok(votes)
}

/// An answer of the caller's conversations.
fn answer(db: &Connection, caller: &Caller, id: i64) -> Result<Message, ApiError> {
    let query = "SELECT conversation FROM messages JOIN conversations ON conversations.id = conversation
                 WHERE messages.id = ?1 AND owner = ?2";
    let found: Option<i64> = db.query_row(query, params![id, caller.name], |row| row.get(0)).optional()?;
    found.ok_or_else(|| missing("message"))?;
    let message = messages::one(db, id)?;
    if message.role != Role::Assistant {
        return Err(ApiError::bad_request(format!("message {id} is no answer of a model")));
    }
    Ok(message)
}

pub async fn thumb(
    Visit { desk, caller, place: id }: Visit<i64>,
    Body(Thumb { thumb }): Body<Thumb>,
) -> Result<Json<Message>, ApiError> {
    if thumb.is_some_and(|thumb| thumb.abs() != 1) {
        return Err(ApiError::bad_request("thumb must be 1, -1 or null").param("thumb"));
    }
    let file = desk.studio.preferences();
    desk.store(move |db| {
        answer(db, &caller, id)?;
        db.execute("UPDATE messages SET thumb = ?2 WHERE id = ?1", params![id, thumb])?;
        preferences::write(db, &file)?;
        messages::one(db, id).map(Json)
    })
    .await
}

/// Keeps a vote; a later one between the same answers takes its place.
pub async fn vote(
    Visit { desk, caller, .. }: Visit,
    Body(Vote { first, second, winner }): Body<Vote>,
) -> Result<Json<Vote>, ApiError> {
    let file = desk.studio.preferences();
    desk.store(move |db| {
        let (one, other) = (answer(db, &caller, first)?, answer(db, &caller, second)?);
        let wrong = |message: &str| Err(ApiError::bad_request(message));
        if first == second || one.parent != other.parent || one.parent.is_none() {
            return wrong("a vote compares two answers to the same question");
        }
        if winner.is_some_and(|winner| ![first, second].contains(&winner)) {
            return wrong("the winner must be one of the two answers, or null when they are as good");
        }
        // In one order, so that a pair has one vote.
        let vote = Vote { first: first.min(second), second: first.max(second), winner };
        db.execute(
            "INSERT INTO votes (first, second, winner, created) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (first, second) DO UPDATE SET winner = excluded.winner, created = excluded.created",
            params![vote.first, vote.second, vote.winner, now() as i64],
        )?;
        preferences::write(db, &file)?;
        Ok(Json(vote))
    })
    .await
}

/// How the caller's votes and thumbs stand.
pub async fn tally(Visit { desk, caller, .. }: Visit) -> Result<Json<Tally>, ApiError> {
    let file = desk.studio.preferences().display().to_string();
    desk.store(move |db| {
        let found = preferences::all(db, Some(&caller.name))?;
        let command = format!("danlu train recipes/dpo.toml --set 'data.sources=[{file:?}]'");
        let models = standings(db, &caller)?;
        Ok(Json(Tally { models, pairs: found.pairs.len(), judged: found.judged.len(), file, command }))
    })
    .await
}

fn standings(db: &Connection, caller: &Caller) -> Result<BTreeMap<String, Standing>, ApiError> {
    let mut models: BTreeMap<String, Standing> = BTreeMap::new();
    let mut query = db.prepare(
        "SELECT a.id, a.model, b.id, b.model, winner FROM votes JOIN messages a ON a.id = first JOIN messages b ON b.id = second
         JOIN conversations ON conversations.id = a.conversation WHERE owner = ?1",
    )?;
    let mut rows = query.query(params![caller.name])?;
    while let Some(row) = rows.next()? {
        let winner: Option<i64> = row.get(4)?;
        for (id, model) in [(0, 1), (2, 3)] {
            let (id, model): (i64, Option<String>) = (row.get(id)?, row.get(model)?);
            let standing = models.entry(model.unwrap_or_default()).or_default();
            match winner {
                None => standing.tied += 1,
                Some(winner) if winner == id => standing.won += 1,
                Some(_) => standing.lost += 1,
            }
        }
    }
    let mut query = db.prepare(
        "SELECT model, thumb FROM messages JOIN conversations ON conversations.id = conversation
         WHERE owner = ?1 AND thumb IS NOT NULL",
    )?;
    let mut rows = query.query(params![caller.name])?;
    while let Some(row) = rows.next()? {
        let (model, thumb): (Option<String>, i64) = (row.get(0)?, row.get(1)?);
        let standing = models.entry(model.unwrap_or_default()).or_default();
        if thumb > 0 { standing.good += 1 } else { standing.bad += 1 }
    }
    Ok(models)
}
