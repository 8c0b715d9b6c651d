//! What ways of training reached and cost, side by side.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use danlu_registry::{ModelId, ModelRef, Registry};
use danlu_train::Recipe;
use danlu_train::metrics::read_metrics;
use danlu_train::recipe::Way;
use serde::Serialize;
use serde_json::Value;

use super::kinds::Prepared;
use super::run;
use crate::{human, views};

/// One way, as it ended.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub way: &'static str,
    pub model: String,
    /// "accuracy", or what else the objective measures.
    pub measure: String,
    pub value: f64,
    pub low: f64,
    pub high: f64,
    pub macro_f1: Option<f64>,
    pub minutes: f64,
    pub trained_parameters: u64,
    pub parameters: u64,
    pub epochs: f64,
}

impl Row {
    /// # Errors
    /// When the model or the run's log is not there any more.
    pub fn of(home: &Path, way: Way, prepared: &Prepared, id: &ModelId) -> Result<Self> {
        let plan = prepared.plan();
        let record = Registry::open(home)?.show(&ModelRef { name: id.name.clone(), version: Some(id.version) })?;
        let (measure, reached) = record.lineage.metrics.iter().next().context("the model has no measure")?;
        let log = read_metrics(&run::folder(home, &plan.recipe.name).join("metrics.jsonl"))?;
        let last = log.iter().rev().find(|row| row.get("kind").and_then(Value::as_str) == Some("final"));
        let last = last.context("the run's log has no last measure")?;
        let number = |key: &str| last.get(key).and_then(Value::as_f64);
        let steps = log.iter().rev().find_map(|row| row.get("step").and_then(Value::as_u64)).unwrap_or(plan.steps);
        Ok(Self {
            way: way.name(),
            model: id.to_string(),
            measure: measure.clone(),
            value: reached.value,
            low: reached.low.unwrap_or(f64::NEG_INFINITY),
            high: reached.high.unwrap_or(f64::INFINITY),
            macro_f1: number("macro_f1"),
            minutes: number("elapsed").unwrap_or(0.0) / 60.0,
            trained_parameters: plan.model.trained,
            parameters: plan.model.parameters,
            epochs: steps as f64 * plan.rows as f64 * plan.row_len as f64 / plan.facts.train_tokens.max(1) as f64,
        })
    }

    fn cells(&self) -> [String; 7] {
        [
            self.way.to_string(),
            format!("{:.4}", self.value),
            format!("{:.4} – {:.4}", self.low, self.high),
            self.macro_f1.map_or("–".into(), |f1| format!("{f1:.4}")),
            format!("{:.2}", self.minutes),
            human::count(self.trained_parameters as f64),
            format!("{:.1}", self.epochs),
        ]
    }
}

fn head(rows: &[Row]) -> [String; 7] {
    let measure = rows.first().map_or("measure", |row| row.measure.as_str());
    ["way", measure, "95 % interval", "macro-F1", "minutes", "trained", "epochs"].map(str::to_string)
}

/// As a person reads it in a terminal.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![head(rows)];
    lines.extend(rows.iter().map(Row::cells));
    views::table(&lines)
}

/// As a page.
pub fn markdown(recipe: &Recipe, rows: &[Row]) -> String {
    let mut text = format!("# {}\n\nData: {}. Model: {}.\n\n", recipe.name, recipe.data.sources.join(", "), {
        recipe.model.from.as_deref().unwrap_or("none")
    });
    let _ = writeln!(text, "| {} |\n|---|---|---|---|---|---|---|", head(rows).join(" | "));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.cells().join(" | "));
    }
    text
}
