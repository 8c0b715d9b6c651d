use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use rusqlite::{Connection, params};

use crate::id::ModelId;
use crate::record::{FILE, Record};

/// The version of the tables; an index with another is thrown away and built again.
const SCHEMA: i32 = 1;

/// A cache of every `danlu.json`, so that listing thousands of models reads one file. Nothing in it is not in the folders, and whatever
/// is wrong with it is answered by building it again, at worst in memory.
pub(crate) struct Index {
    db: Connection,
}

impl Index {
    /// Opens the index at `path`, building a new one when it is missing or damaged, and one in memory when `path` cannot be written.
    pub fn open(path: &Path) -> Self {
        let db = Self::try_open(path).or_else(|_| {
            let _ = fs::remove_file(path);
            Self::try_open(path)
        });
        let db = db.or_else(|_| prepare(Connection::open_in_memory()?));
        // An empty connection in memory needs nothing but memory.
        Self { db: db.unwrap_or_else(|e| unreachable!("SQLite cannot open a database in memory: {e}")) }
    }

    fn try_open(path: &Path) -> rusqlite::Result<Connection> {
        let db = Connection::open(path)?;
        db.busy_timeout(Duration::from_secs(5))?;
        let sound: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if sound != "ok" {
            return Err(rusqlite::Error::InvalidQuery);
        }
        prepare(db)
    }

    /// The records of `ids`, from the index where its stamp is the file's, from the file otherwise. The index is brought up to date.
    pub fn records(&mut self, models: &Path, ids: &[ModelId]) -> Result<Vec<Record>> {
        let mut known = self.stored().unwrap_or_default();
        let mut records = Vec::with_capacity(ids.len());
        let mut fresh = Vec::new();
        for id in ids {
            let dir = models.join(id.to_string());
            let Some(stamp) = stamp(&dir) else { continue };
            match known.remove(&id.to_string()) {
                Some((at, record)) if at == stamp => records.push(record),
                _ => {
                    if let Ok(record) = Record::read(&dir, id) {
                        fresh.push((stamp, record.clone()));
                        records.push(record);
                    }
                }
            }
        }
        let gone: Vec<String> = known.into_keys().collect();
        if !fresh.is_empty() || !gone.is_empty() {
            // Another process may hold the index; the records are right either way.
            let _ = self.store(&fresh, &gone);
        }
        Ok(records)
    }

    fn stored(&self) -> Result<HashMap<String, (String, Record)>> {
        let mut query = self.db.prepare("SELECT id, stamp, record FROM models")?;
        let rows =
            query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?)))?;
        let mut known = HashMap::new();
        for row in rows {
            let (id, stamp, text) = row?;
            if let Ok(record) = serde_json::from_str(&text) {
                known.insert(id, (stamp, record));
            }
        }
        Ok(known)
    }

    fn store(&mut self, fresh: &[(String, Record)], gone: &[String]) -> Result<()> {
        let transaction = self.db.transaction()?;
        for id in gone {
            transaction.execute("DELETE FROM models WHERE id = ?1", params![id])?;
        }
        for (stamp, record) in fresh {
            let parent = record.lineage.parent.as_ref().map(ModelId::to_string);
            let level = record.lineage.level.map(|level| level.as_str());
            transaction.execute(
                "INSERT OR REPLACE INTO models (id, name, version, level, parent, created, stamp, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![record.id().to_string(), record.name, record.version, level, parent, record.created, stamp, serde_json::to_string(record)?],
            )?;
        }
        Ok(transaction.commit()?)
    }
}

fn prepare(db: Connection) -> rusqlite::Result<Connection> {
    let schema: i32 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if schema != SCHEMA {
        db.execute_batch(&format!(
            "DROP TABLE IF EXISTS models;
             CREATE TABLE models (id TEXT PRIMARY KEY, name TEXT NOT NULL, version INTEGER NOT NULL, level TEXT, parent TEXT,
                                  created TEXT NOT NULL, stamp TEXT NOT NULL, record TEXT NOT NULL);
             CREATE INDEX models_parent ON models (parent);
             PRAGMA user_version = {SCHEMA};"
        ))?;
    }
    db.prepare("SELECT id, stamp, record FROM models")?;
    Ok(db)
}

/// What changes when `danlu.json` is replaced: its time and its size.
fn stamp(dir: &Path) -> Option<String> {
    let about = fs::metadata(dir.join(FILE)).ok()?;
    let at = about.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{}.{:09}-{}", at.as_secs(), at.subsec_nanos(), about.len()))
}
