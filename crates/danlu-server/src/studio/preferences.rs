//! Votes and thumbs as a data set that `danlu train recipes/dpo.toml` takes: a line of JSON for each pair of answers, of which one was
//! preferred, and for each answer that was only judged good or bad.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::path::Path;

use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::messages::{self, Message};
use crate::error::ApiError;

/// Pairs and judgements, each as a record.
#[derive(Debug, Default)]
pub struct Preferences {
    pub pairs: Vec<Value>,
    pub judged: Vec<Value>,
}

/// The conversations whose answers were compared or judged, with their messages.
struct Trees {
    messages: HashMap<i64, Vec<Message>>,
    conversation_of: HashMap<i64, i64>,
}

/// What the owner of these conversations prefers; everybody, without one.
pub fn all(db: &Connection, owner: Option<&str>) -> Result<Preferences, ApiError> {
    let trees = Trees::read(db, owner)?;
    let mut found = Preferences::default();
    let mut used = BTreeSet::new();
    let mut voted = BTreeSet::new();
    for (first, second, winner) in votes(db)? {
        voted.insert((first, second));
        let Some(winner) = winner else { continue };
        let loser = if winner == first { second } else { first };
        if let Some(pair) = trees.pair(winner, loser, "vote") {
            used.extend([winner, loser]);
            found.pairs.push(pair);
        }
    }
    // Answers to one question of which one was found good and another bad are a pair too.
    let mut thumbs: BTreeMap<i64, (Vec<i64>, Vec<i64>)> = BTreeMap::new();
    let judged: BTreeMap<i64, &Message> = trees
        .messages
        .values()
        .flatten()
        .filter(|message| message.thumb.is_some())
        .map(|message| (message.id, message))
        .collect();
    for message in judged.values() {
        let (good, bad) = thumbs.entry(message.parent.unwrap_or(0)).or_default();
        if message.thumb > Some(0) { good.push(message.id) } else { bad.push(message.id) }
    }
    for (good, bad) in thumbs.values() {
        for (&good, &bad) in good.iter().flat_map(|good| bad.iter().map(move |bad| (good, bad))) {
            let known = voted.contains(&(good.min(bad), good.max(bad)));
            if let Some(pair) = trees.pair(good, bad, "thumbs").filter(|_| !known) {
                used.extend([good, bad]);
                found.pairs.push(pair);
            }
        }
    }
    // What is part of a pair is not said twice.
    let alone = judged.values().filter(|message| !used.contains(&message.id));
    found.judged = alone.filter_map(|message| trees.judged(message)).collect();
    Ok(found)
}

/// Writes the file anew; without preferences there is none.
pub fn write(db: &Connection, path: &Path) -> Result<(), ApiError> {
    let Preferences { pairs, judged } = all(db, None)?;
    let failed = |error: String| ApiError::internal(format!("the preferences cannot be written: {error}"));
    if pairs.is_empty() && judged.is_empty() {
        return match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error.to_string())),
            _ => Ok(()),
        };
    }
    let written = danlu_files::write_atomic(path, |file| {
        for record in pairs.iter().chain(&judged) {
            serde_json::to_writer(&mut *file, record)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    });
    written.map_err(|error| failed(format!("{error:#}")))
}

/// Of each vote the two answers, the older first, and the better one.
fn votes(db: &Connection) -> Result<Vec<(i64, i64, Option<i64>)>, ApiError> {
    let mut query = db.prepare("SELECT first, second, winner FROM votes ORDER BY id")?;
    let votes = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect::<rusqlite::Result<_>>()?;
    Ok(votes)
}

impl Trees {
    fn read(db: &Connection, owner: Option<&str>) -> Result<Self, ApiError> {
        let mut query = db.prepare(
            "SELECT DISTINCT conversation FROM messages JOIN conversations ON conversations.id = conversation
             WHERE (?1 IS NULL OR owner = ?1) AND (thumb IS NOT NULL OR messages.id IN (SELECT first FROM votes)) ORDER BY conversation",
        )?;
        let conversations: Vec<i64> = query.query_map(params![owner], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let mut trees = Self { messages: HashMap::new(), conversation_of: HashMap::new() };
        for conversation in conversations {
            let messages = messages::all(db, conversation)?;
            trees.conversation_of.extend(messages.iter().map(|message| (message.id, conversation)));
            trees.messages.insert(conversation, messages);
        }
        Ok(trees)
    }

    /// An answer and the messages before it, as models are asked.
    fn prompt(&self, id: i64) -> Option<(&Message, Vec<Value>)> {
        let messages = self.messages.get(self.conversation_of.get(&id)?)?;
        let mut path = messages::path_to(messages, id);
        let answer = path.pop()?;
        let message = |role: &str, content: &str| json!({"role": role, "content": content});
        let system = Some(&answer.system).filter(|system| !system.trim().is_empty()).map(|system| message("system", system));
        let before = path.iter().map(|one| message(one.role.name(), &one.content));
        Some((answer, system.into_iter().chain(before).collect()))
    }

    /// A pair, if something can be learned from it.
    fn pair(&self, chosen: i64, rejected: i64, from: &str) -> Option<Value> {
        let (chosen, prompt) = self.prompt(chosen)?;
        let (rejected, _) = self.prompt(rejected)?;
        let (better, worse) = (chosen.content.trim(), rejected.content.trim());
        (!better.is_empty() && !worse.is_empty() && better != worse).then(|| {
            json!({
                "prompt": prompt, "chosen": chosen.content, "rejected": rejected.content, "chosen_model": chosen.model,
                "rejected_model": rejected.model, "judged_by": from,
            })
        })
    }

    fn judged(&self, message: &Message) -> Option<Value> {
        let (answer, prompt) = self.prompt(message.id)?;
        (!answer.content.trim().is_empty()).then(|| {
            json!({"prompt": prompt, "completion": answer.content, "label": answer.thumb > Some(0), "completion_model": answer.model})
        })
    }
}
