//! The family of a model: its oldest known ancestor, and everything that was made from it.

mod svg;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use crate::evaluation::{ChangeRecord, SetRecord, Verdict};
use crate::id::{ModelId, ModelRef};
use crate::record::Record;
use crate::registry::Registry;
use crate::standing::Standing;

/// A model with those made from it.
struct Member {
    id: ModelId,
    /// None when it is not on this machine any more.
    record: Option<Record>,
    standing: Option<Standing>,
    children: Vec<Member>,
}

impl Registry {
    /// The family of a model as a tree of text, from its oldest known ancestor to its descendants, the one asked for marked with `*`. Each
    /// has its level, its standing, what it was made from, and what it came to on every evaluation set with the change from its parent.
    ///
    /// # Errors
    /// When there is no such model.
    pub fn lineage(&self, wanted: &ModelRef) -> Result<String> {
        let (asked, root) = self.family(wanted)?;
        Ok(text::tree(&root, &asked))
    }

    /// The same as a picture, an SVG.
    ///
    /// # Errors
    /// When there is no such model.
    pub fn lineage_svg(&self, wanted: &ModelRef) -> Result<String> {
        let (asked, root) = self.family(wanted)?;
        Ok(svg::picture(&root, &asked))
    }

    fn family(&self, wanted: &ModelRef) -> Result<(ModelId, Member)> {
        // A model that is only a candidate is part of the family too.
        let asked = self.resolve(wanted).or_else(|error| match self.ids()?.into_iter().rfind(|id| id.name == wanted.name) {
            Some(newest) if wanted.version.is_none() => Ok(newest),
            _ => Err(error),
        })?;
        let all = self.list()?;
        let standings = self.standings(&all)?;
        let records: Records =
            all.into_iter().zip(standings).map(|(record, standing)| (record.id(), (record, standing))).collect();
        let mut root = asked.clone();
        let mut seen = BTreeSet::from([root.clone()]);
        // A record edited by hand could make a circle; each model is visited once.
        while let Some(parent) = records.get(&root).and_then(|(r, _)| r.lineage.parent.clone())
            && seen.insert(parent.clone())
        {
            root = parent;
        }
        let member = member(&root, &records, &mut BTreeSet::new());
        Ok((asked, member))
    }
}

type Records = BTreeMap<ModelId, (Record, Standing)>;

fn member(id: &ModelId, records: &Records, seen: &mut BTreeSet<ModelId>) -> Member {
    seen.insert(id.clone());
    let mut children = Vec::new();
    for child in records.values().filter(|(record, _)| record.lineage.parent.as_ref() == Some(id)).map(|(record, _)| record.id())
    {
        if !seen.contains(&child) {
            children.push(member(&child, records, seen));
        }
    }
    let (record, standing) = records.get(id).cloned().unzip();
    Member { id: id.clone(), record, standing, children }
}

/// A measure as the views show it: on a set of the line, or on what the model itself was trained on.
struct Row {
    name: String,
    label: String,
    value: f64,
    change: Option<ChangeRecord>,
    verdict: Option<Verdict>,
}

/// The measures of a member, and how each differs from its parent's.
fn rows(record: &Record) -> Vec<Row> {
    let of_set = |set: &SetRecord| Row {
        name: set.set.clone(),
        label: set.label.clone(),
        value: set.measure.value,
        change: set.change.clone(),
        verdict: set.verdict(),
    };
    record.lineage.sets.iter().map(of_set).collect()
}

/// A number with the digits that four significant ones need, as people compare them.
fn number(value: f64) -> String {
    let digits = if value.abs() >= 10.0 { 2 } else { 4 };
    format!("{value:.digits$}")
}

fn signed(value: f64) -> String {
    if value < 0.0 { format!("−{}", number(-value)) } else { format!("+{}", number(value)) }
}

/// Twelve digits of a hash tell models apart; `danlu models show` has the whole.
fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}
