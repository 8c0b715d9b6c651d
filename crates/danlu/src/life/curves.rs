//! A run's curves, from its log.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use danlu_train::metrics::read_metrics;
use serde_json::{Map, Value};

use crate::views::Curves;

/// Reads the curves of the run in `folder`. `tokens_per_byte` puts the training loss in bits per byte.
///
/// # Errors
/// When the log cannot be read.
pub fn read(folder: &Path, tokens_per_byte: f64) -> Result<Curves> {
    let path = folder.join("metrics.jsonl");
    let rows = if path.exists() { read_metrics(&path)? } else { vec![] };
    Ok(curves(&rows, tokens_per_byte))
}

fn curves(rows: &[Map<String, Value>], tokens_per_byte: f64) -> Curves {
    let mut curves = Curves::default();
    // Measurements say their step; the training rows say how many tokens that was.
    let mut tokens_at = BTreeMap::from([(0, 0.0)]);
    let number = |row: &Map<String, Value>, key: &str| row.get(key).and_then(Value::as_f64);
    for row in rows {
        let step = row.get("step").and_then(Value::as_u64).unwrap_or(0);
        match row.get("kind").and_then(Value::as_str) {
            Some("train") => {
                if let (Some(tokens), Some(loss)) = (number(row, "tokens"), number(row, "loss")) {
                    tokens_at.insert(step, tokens / 1e6);
                    curves.train.push((tokens / 1e6, loss * tokens_per_byte / std::f64::consts::LN_2));
                }
            }
            Some("held_out" | "final") => {
                if let (Some(value), Some((_, &tokens))) = (number(row, "bits_per_byte"), tokens_at.range(..=step).next_back()) {
                    curves.held_out.push((tokens, value));
                }
            }
            _ => {}
        }
    }
    curves
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_stand_where_their_step_does() {
        let lines = [
            r#"{"step":0,"kind":"held_out","bits_per_byte":3.0}"#,
            r#"{"step":1,"kind":"train","loss":2.0,"tokens":1000000}"#,
            r#"{"step":2,"kind":"train","loss":1.0,"tokens":2000000}"#,
            r#"{"step":2,"kind":"sample","prompt":"a","text":"b"}"#,
            r#"{"step":2,"kind":"final","bits_per_byte":1.5}"#,
        ];
        let rows: Vec<_> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let curves = curves(&rows, std::f64::consts::LN_2 / 4.0);
        assert_eq!(curves.train, [(1.0, 0.5), (2.0, 0.25)]);
        assert_eq!(curves.held_out, [(0.0, 3.0), (2.0, 1.5)]);
    }
}
