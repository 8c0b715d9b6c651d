//! A run's curves, from its log.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use danlu_train::metrics::read_metrics;
use serde_json::{Map, Value};

use super::kinds::Curve;
use crate::views::Curves;

/// Reads the curves of the run in `folder`, along which `counted` are counted.
///
/// # Errors
/// When the log cannot be read.
pub fn read(folder: &Path, curve: Curve, counted: &'static str) -> Result<Curves> {
    let path = folder.join("metrics.jsonl");
    let rows = if path.exists() { read_metrics(&path)? } else { vec![] };
    Ok(Curves { counted, ..curves(&rows, curve) })
}

fn curves(rows: &[Map<String, Value>], curve: Curve) -> Curves {
    let mut curves = Curves { train_unit: train_unit(curve), ..Curves::default() };
    // Measurements say their step; the training rows say how many tokens that was.
    let mut tokens_at = BTreeMap::from([(0, 0.0)]);
    let number = |row: &Map<String, Value>, key: &str| row.get(key).and_then(Value::as_f64);
    for row in rows {
        let step = row.get("step").and_then(Value::as_u64).unwrap_or(0);
        match row.get("kind").and_then(Value::as_str) {
            Some("train") => {
                if let (Some(tokens), Some(value)) = (number(row, "tokens"), number(row, curve.key)) {
                    tokens_at.insert(step, tokens / 1e6);
                    curves.train.push((tokens / 1e6, value * curve.scale.unwrap_or(1.0)));
                }
            }
            Some("held_out" | "final") => {
                let measure = row.get("measure").and_then(Value::as_str).unwrap_or("bits_per_byte");
                if let (Some(value), Some((_, &tokens))) = (number(row, measure), tokens_at.range(..=step).next_back()) {
                    curves.held_out.push((tokens, value));
                    curves.unit = measure.replace('_', " ");
                }
            }
            _ => {}
        }
    }
    curves
}

/// What training batches are drawn in, where it is not the measure's unit.
fn train_unit(curve: Curve) -> Option<String> {
    curve.scale.is_none().then(|| curve.key.replace('_', " "))
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
            r#"{"step":2,"kind":"final","measure":"bits_per_byte","bits_per_byte":1.5}"#,
        ];
        let rows: Vec<_> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let curves = curves(&rows, Curve { key: "loss", scale: Some(0.25) });
        assert_eq!(curves.train, [(1.0, 0.5), (2.0, 0.25)]);
        assert_eq!(curves.held_out, [(0.0, 3.0), (2.0, 1.5)]);
    }
}
