//! Conversations, votes and templates in one SQLite file.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;

use crate::error::ApiError;

/// The version of the tables. What people wrote is never thrown away, so a later version has to bring these along.
const SCHEMA: i32 = 1;

/// Messages are a tree: editing a question or asking for another answer adds a sibling, and `leaf` says which path is looked at. Two siblings
/// that answer the same question are what a vote compares.
const TABLES: &str = "
CREATE TABLE conversations (
    id INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, title TEXT NOT NULL, system TEXT NOT NULL, settings TEXT NOT NULL,
    leaf INTEGER, created INTEGER NOT NULL, updated INTEGER NOT NULL);
CREATE INDEX conversations_owner ON conversations (owner, updated);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
    parent INTEGER REFERENCES messages ON DELETE CASCADE, role TEXT NOT NULL, content TEXT NOT NULL, system TEXT NOT NULL, model TEXT,
    finish TEXT, prompt_tokens INTEGER, tokens INTEGER, first_seconds REAL, seconds REAL, thumb INTEGER, created INTEGER NOT NULL);
CREATE INDEX messages_conversation ON messages (conversation);
CREATE INDEX messages_parent ON messages (parent);
CREATE TABLE votes (
    id INTEGER PRIMARY KEY AUTOINCREMENT, first INTEGER NOT NULL REFERENCES messages ON DELETE CASCADE,
    second INTEGER NOT NULL REFERENCES messages ON DELETE CASCADE, winner INTEGER, created INTEGER NOT NULL, UNIQUE (first, second));
CREATE INDEX votes_second ON votes (second);
CREATE TABLE templates (
    id INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, name TEXT NOT NULL, system TEXT NOT NULL, body TEXT NOT NULL,
    examples TEXT NOT NULL);
PRAGMA user_version = 1;
";

/// The file, one writer at a time.
pub struct Store(Mutex<Connection>);

impl Store {
    /// Opens the file, which is made when missing.
    ///
    /// # Errors
    /// When it is no such file, of a newer danlu, or cannot be written.
    pub fn open(path: &Path) -> Result<Self> {
        let db = prepare(path).with_context(|| format!("the studio's conversations in {} cannot be opened", path.display()))?;
        Ok(Self(Mutex::new(db)))
    }

    pub fn db(&self) -> MutexGuard<'_, Connection> {
        // What panicked while it was held left no transaction open: they end when they are dropped.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn prepare(path: &Path) -> Result<Connection> {
    let mut db = Connection::open(path)?;
    db.busy_timeout(Duration::from_secs(5))?;
    // A commit is in the log when it returns, so that a killed process loses nothing; only a machine that loses its power may lose the last.
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let schema: i32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    ensure!(schema <= SCHEMA, "it has version {schema}, and this danlu reads up to {SCHEMA}; use the newer danlu that wrote it");
    if schema == 0 {
        transaction.execute_batch(TABLES)?;
    }
    // An answer without an end was being written when the program was killed.
    transaction.execute("UPDATE messages SET finish = 'lost' WHERE finish IS NULL AND role = 'assistant'", [])?;
    transaction.commit()?;
    Ok(db)
}

impl From<rusqlite::Error> for ApiError {
    fn from(error: rusqlite::Error) -> Self {
        Self::internal(format!("the studio's conversations cannot be read or written: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_there_again_and_another_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("studio.sqlite");
        let store = Store::open(&path).unwrap();
        let add = "INSERT INTO conversations (owner, title, system, settings, created, updated) VALUES ('', 'a', '', '{}', 1, 1)";
        store.db().execute(add, []).unwrap();
        let unended =
            "INSERT INTO messages (conversation, role, content, system, created) VALUES (1, 'assistant', 'half', '', 1)";
        store.db().execute(unended, []).unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        let finish: String = store.db().query_row("SELECT finish FROM messages", [], |row| row.get(0)).unwrap();
        assert_eq!(finish, "lost");
        // Messages go with their conversation.
        store.db().execute("DELETE FROM conversations", []).unwrap();
        assert_eq!(store.db().query_row("SELECT count(*) FROM messages", [], |row| row.get::<_, i64>(0)).unwrap(), 0);
        store.db().pragma_update(None, "user_version", 9).unwrap();
        drop(store);
        let refused = |path: &Path| format!("{:#}", Store::open(path).err().unwrap());
        assert!(refused(&path).contains("version 9"));
        let other = dir.path().join("other");
        std::fs::write(&other, "not a database, however long this text may become in the end").unwrap();
        assert!(refused(&other).contains("other cannot be opened"));
    }
}
