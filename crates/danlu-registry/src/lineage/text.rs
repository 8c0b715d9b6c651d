use super::{Member, Row, rows, short, signed};
use crate::evaluation::Verdict;
use crate::id::ModelId;
use crate::record::Record;

/// The tree of a family, a line or more for each member.
pub fn tree(root: &Member, asked: &ModelId) -> String {
    let mut text = String::new();
    branch(root, None, asked, ("", ""), &mut text);
    text
}

/// The first of `before` goes before the model's own line, the second before all lines below it.
fn branch(member: &Member, parent: Option<&Record>, asked: &ModelId, before: (&str, &str), text: &mut String) {
    let (first, rest) = before;
    let mark = if member.id == *asked { " *" } else { "" };
    let Some(record) = &member.record else {
        text.push_str(&format!("{first}{}{mark}  (not here)\n", member.id));
        return children(member, None, asked, rest, text);
    };
    let level = record.lineage.level.map(|level| format!("  {}", level.as_str())).unwrap_or_default();
    let standing = member.standing.map(|standing| format!("  {}", standing.as_str())).unwrap_or_default();
    text.push_str(&format!("{first}{}{mark}{level}  {}{standing}\n", member.id, record.created.get(..10).unwrap_or("")));
    let bar = if member.children.is_empty() { "   " } else { "│  " };
    for line in facts(record, parent) {
        text.push_str(&format!("{rest}{bar}{line}\n"));
    }
    children(member, Some(record), asked, rest, text);
}

fn children(member: &Member, record: Option<&Record>, asked: &ModelId, rest: &str, text: &mut String) {
    for (i, child) in member.children.iter().enumerate() {
        let last = i + 1 == member.children.len();
        let (first, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        branch(child, record, asked, (&format!("{rest}{first}"), &format!("{rest}{below}")), text);
    }
}

fn facts(record: &Record, parent: Option<&Record>) -> Vec<String> {
    let lineage = &record.lineage;
    let mut lines = Vec::new();
    if let Some(origin) = &lineage.origin {
        lines.push(format!("imported from {} ({})", origin.from, origin.licence.as_deref().unwrap_or("licence not said")));
    }
    if let Some(recipe) = &lineage.recipe {
        lines.push(format!("recipe {} {}", recipe.name, short(&recipe.hash)));
    }
    for data in &lineage.data {
        lines.push(format!("data {} {}", data.name, short(&data.manifest_hash)));
    }
    // Measures on a run's own data can be compared only where both were measured on the same, which only sets promise.
    for (name, measure) in &lineage.metrics {
        let same_data = parent.filter(|parent| parent.lineage.data == lineage.data || lineage.data.is_empty());
        let change =
            same_data.and_then(|p| p.lineage.metrics.get(name)).map(|was| format!(" ({:+.4})", measure.value - was.value));
        lines.push(format!("{name} {:.4}{}", measure.value, change.unwrap_or_default()));
    }
    lines.extend(aligned(&rows(record)));
    if let Some(gate) = lineage.gate.as_ref().filter(|gate| !gate.passed) {
        lines.extend(gate.reasons.iter().map(|reason| format!("not passed: {reason}")));
    }
    lines
}

/// A line for each set: name, measure, value, and what was gained or lost, in columns.
fn aligned(rows: &[Row]) -> Vec<String> {
    let width = |cell: &dyn Fn(&Row) -> usize| rows.iter().map(cell).max().unwrap_or(0);
    let (name, label) = (width(&|row| row.name.chars().count()), width(&|row| row.label.chars().count()));
    let line = |row: &Row| {
        let mut line = format!("{:<name$}  {:<label$}  {:>8.4}", row.name, row.label, row.value);
        if let Some(change) = &row.change {
            let verdict = match row.verdict {
                Some(Verdict::Better) => "better",
                Some(Verdict::Worse) => "worse",
                _ => "as before",
            };
            line.push_str(&format!("  {}  ({} to {})  {verdict}", signed(change.value), signed(change.low), signed(change.high)));
        }
        line
    };
    rows.iter().map(line).collect()
}
