use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use crate::id::{ModelId, ModelRef};
use crate::record::Record;
use crate::registry::Registry;

impl Registry {
    /// The family of a model as a tree, from its oldest known ancestor to its descendants, the one asked for marked with `*`. Each has its
    /// level, its measures with the change from its parent, and what it was made from.
    ///
    /// # Errors
    /// When there is no such model.
    pub fn lineage(&self, wanted: &ModelRef) -> Result<String> {
        let asked = self.resolve(wanted)?;
        let records: BTreeMap<ModelId, Record> = self.list()?.into_iter().map(|record| (record.id(), record)).collect();
        let mut root = asked.clone();
        let mut seen = BTreeSet::from([root.clone()]);
        // A record edited by hand could make a circle; each model is visited once.
        while let Some(parent) = records.get(&root).and_then(|r| r.lineage.parent.clone())
            && seen.insert(parent.clone())
        {
            root = parent;
        }
        let mut tree = Tree { records: &records, asked, text: String::new(), seen: BTreeSet::new() };
        tree.branch(&root, "", "");
        Ok(tree.text)
    }
}

struct Tree<'a> {
    records: &'a BTreeMap<ModelId, Record>,
    asked: ModelId,
    text: String,
    seen: BTreeSet<ModelId>,
}

impl Tree<'_> {
    /// `first` goes before the model's own line, `rest` before all lines below it.
    fn branch(&mut self, id: &ModelId, first: &str, rest: &str) {
        if !self.seen.insert(id.clone()) {
            return;
        }
        let children: Vec<ModelId> =
            self.records.values().filter(|r| r.lineage.parent.as_ref() == Some(id)).map(Record::id).collect();
        let mark = if *id == self.asked { " *" } else { "" };
        let Some(record) = self.records.get(id) else {
            self.text.push_str(&format!("{first}{id}{mark}  (not here)\n"));
            return self.children(&children, rest);
        };
        let level = record.lineage.level.map(|level| format!("  {}", level.as_str())).unwrap_or_default();
        self.text.push_str(&format!("{first}{id}{mark}{level}  {}\n", record.created.get(..10).unwrap_or("")));
        let bar = if children.is_empty() { "   " } else { "│  " };
        for line in facts(record, record.lineage.parent.as_ref().and_then(|parent| self.records.get(parent))) {
            self.text.push_str(&format!("{rest}{bar}{line}\n"));
        }
        self.children(&children, rest);
    }

    fn children(&mut self, children: &[ModelId], rest: &str) {
        for (i, child) in children.iter().enumerate() {
            let last = i + 1 == children.len();
            let (first, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            self.branch(child, &format!("{rest}{first}"), &format!("{rest}{below}"));
        }
    }
}

fn facts(record: &Record, parent: Option<&Record>) -> Vec<String> {
    let lineage = &record.lineage;
    let mut lines = Vec::new();
    for (name, measure) in &lineage.metrics {
        let change = parent.and_then(|p| p.lineage.metrics.get(name)).map(|was| format!(" ({:+.4})", measure.value - was.value));
        lines.push(format!("{name} {:.4}{}", measure.value, change.unwrap_or_default()));
    }
    if let Some(recipe) = &lineage.recipe {
        lines.push(format!("recipe {} {}", recipe.name, short(&recipe.hash)));
    }
    for data in &lineage.data {
        lines.push(format!("data {} {}", data.name, short(&data.manifest_hash)));
    }
    if let Some(hash) = &lineage.tokenizer_hash {
        lines.push(format!("tokenizer {}", short(hash)));
    }
    if let Some(origin) = &lineage.origin {
        lines.push(format!("imported from {} ({})", origin.from, origin.licence.as_deref().unwrap_or("licence not said")));
    }
    lines
}

/// Twelve digits of a hash tell models apart; `danlu models show` has the whole.
fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}
