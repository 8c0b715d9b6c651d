//! How things look: tables, errors, progress, curves in the terminal and as a picture, and the live view of a run.

mod chart;
mod live;
mod observer;
pub mod picture;
pub mod progress;
pub mod run;
pub mod shots;

use std::io::IsTerminal;

use anyhow::Error;
use danlu_registry::{SetRecord, Verdict};
use danlu_train::Plan;
use danlu_train::recipe::ObjectiveKind;
use ratatui::text::Line;
use serde::Serialize;

use crate::exit::Outcome;
use crate::human;

pub use chart::Curves;
pub use observer::Watcher;

/// Prints an error with its causes, one to a line, each saying more exactly what was wrong.
pub fn error(error: &Error) {
    let mut lines = error.chain().map(ToString::to_string);
    eprintln!(
        "{} {}",
        if std::io::stderr().is_terminal() { "\x1b[31merror:\x1b[0m" } else { "error:" },
        lines.next().unwrap_or_default()
    );
    lines.for_each(|line| eprintln!("       {line}"));
}

/// Pretty JSON on the standard output.
pub fn print_json(value: &impl Serialize) -> Outcome {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Rows as columns of their widest cell, the first row being the head.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    // A Chinese character takes two columns.
    let width = |cell: &str| Line::from(cell).width();
    let widths: [usize; N] = std::array::from_fn(|column| rows.iter().map(|row| width(&row[column])).max().unwrap_or(0));
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, full)| format!("{cell}{}", " ".repeat(full - width(cell)))).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// What a model says and how much it reads, in parts of a line. A picture, and a text of which only features are read, is one token in the code,
/// which says nothing to people.
pub fn ends(plan: &Plan) -> Vec<String> {
    let outputs = human::thousands(plan.model.vocabulary as u64);
    let reads = matches!(plan.recipe.unit(), "tokens" | "words");
    let says = match plan.recipe.objective.kind {
        ObjectiveKind::ImageClassify | ObjectiveKind::Classify => Some(format!("{outputs} classes")),
        ObjectiveKind::TokenClassify => Some(format!("{outputs} tags")),
        ObjectiveKind::Regression => Some("a number".into()),
        _ => reads.then(|| format!("vocabulary {outputs}")),
    };
    says.into_iter().chain(reads.then(|| format!("context {}", plan.row_len))).collect()
}

/// What a model came to on an evaluation set, and what that is to its parent.
pub fn set_line(set: &SetRecord) -> String {
    let mut line = format!("{} {:.4} {}", set.set, set.measure.value, set.label);
    if let (Some(low), Some(high)) = (set.measure.low, set.measure.high) {
        line.push_str(&format!(" ({low:.4} to {high:.4})"));
    }
    if let Some(change) = &set.change {
        let verdict = match set.verdict() {
            Some(Verdict::Better) => "better",
            Some(Verdict::Worse) => "worse",
            _ => "as before",
        };
        line.push_str(&format!(
            ", {verdict}: {:+.4} ({:+.4} to {:+.4}) from {}",
            change.value, change.low, change.high, change.from
        ));
    }
    line
}

/// Whether there is a terminal and it is ours to draw on and read keys from. Under `timeout`, or in the background, it is not: the system
/// would stop the program at the first try.
pub fn owns_terminal() -> bool {
    #[cfg(unix)]
    let foreground = rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp());
    #[cfg(not(unix))]
    let foreground = true;
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && foreground
}

/// Text in bold on a terminal.
pub fn bold(text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_string() }
}

/// Text that steps back on a terminal.
pub fn dim(text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[2m{text}\x1b[0m") } else { text.to_string() }
}

/// The terminal's width, within what is comfortable to read.
pub fn width() -> u16 {
    crossterm::terminal::size().map_or(80, |(columns, _)| columns).clamp(40, 100)
}
