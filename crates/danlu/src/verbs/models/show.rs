//! Models as text: one to a line, and everything that is known about one.

use danlu_registry::{Record, Registry, Standing};
use serde::Serialize;

use crate::exit::Outcome;
use crate::{human, views};

/// A model and what it is to its name.
#[derive(Serialize)]
pub struct Listed {
    #[serde(flatten)]
    pub record: Record,
    pub standing: Standing,
}

pub fn listed(registry: &Registry) -> Outcome<Vec<Listed>> {
    let all = registry.list()?;
    let standings = registry.standings(&all)?;
    Ok(all.into_iter().zip(standings).map(|(record, standing)| Listed { record, standing }).collect())
}

pub fn parameters(record: &Record) -> Option<f64> {
    record.lineage.facts.get("parameters").and_then(|value| value.as_f64())
}

pub fn table(records: &[Listed]) -> String {
    if records.is_empty() {
        return "There are no models yet; `danlu up` makes one.\n".into();
    }
    let mut rows = vec![["MODEL", "LEVEL", "STANDING", "PARAMETERS", "SIZE", "BITS/BYTE", "MADE", "FROM"].map(str::to_string)];
    for Listed { record, standing } in records {
        let lineage = &record.lineage;
        let from = match (&lineage.parent, &lineage.origin) {
            (Some(parent), _) => parent.to_string(),
            (None, Some(_)) => "import".into(),
            (None, None) => lineage.data.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", "),
        };
        let measured = lineage.metrics.get("bits_per_byte").map_or("–".into(), |m| format!("{:.3}", m.value));
        rows.push([
            record.id().to_string(),
            lineage.level.map_or("–", |level| level.as_str()).into(),
            standing.as_str().into(),
            parameters(record).map_or("–".into(), human::count),
            human::bytes(record.bytes()),
            measured,
            record.created.get(..10).unwrap_or("").into(),
            from,
        ]);
    }
    views::table(&rows)
}

pub fn describe(record: &Record, standing: Standing) -> String {
    let lineage = &record.lineage;
    let mut text = format!("{}\n", record.id());
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<12}{value}\n"));
    line("made", format!("{} by danlu {}", record.created, record.code_version));
    if let Some(level) = lineage.level {
        line("level", level.as_str().into());
    }
    line("standing", standing.as_str().into());
    if let Some(gate) = lineage.gate.as_ref().filter(|gate| !gate.passed) {
        gate.reasons.iter().for_each(|reason| line("not passed", reason.clone()));
    }
    if let Some(parent) = &lineage.parent {
        line("parent", parent.to_string());
    }
    if let Some(origin) = &lineage.origin {
        line("imported", format!("{} (licence: {})", origin.from, origin.licence.as_deref().unwrap_or("not said")));
        if let Some(blake3) = &origin.blake3 {
            line("blake3", blake3.clone());
        }
    }
    for (name, measure) in &lineage.metrics {
        let interval = match (measure.low, measure.high) {
            (Some(low), Some(high)) => format!(" (95 % interval {low:.4} to {high:.4})"),
            _ => String::new(),
        };
        line("measured", format!("{} {:.4}{interval}", name.replace('_', " "), measure.value));
    }
    for set in &lineage.sets {
        line("set", views::set_line(set));
    }
    for (name, value) in &lineage.facts {
        let value = value.as_u64().map_or_else(|| value.to_string().replace('"', ""), human::thousands);
        line("fact", format!("{} {value}", name.replace('_', " ")));
    }
    if let Some(recipe) = &lineage.recipe {
        line("recipe", format!("{} {}", recipe.name, recipe.hash));
    }
    for data in &lineage.data {
        line("data", format!("{} {}", data.name, data.manifest_hash));
    }
    if let Some(hash) = &lineage.tokenizer_hash {
        line("tokenizer", hash.clone());
    }
    for (name, file) in &record.files {
        line("file", format!("{name} {} {}", human::bytes(file.bytes), &file.blake3[..file.blake3.len().min(12)]));
    }
    text
}
