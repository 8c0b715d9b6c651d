//! A model asked in context, as a table, a picture and rows of its record.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use danlu_registry::Registry;
use serde_json::Value;

use super::super::Context;
use super::super::generate::open;
use crate::exit::{Outcome, bad_input};
use crate::life::few_shot::{self, FewShot, Row};
use crate::views::progress::Lines;
use crate::views::{self, shots};

/// Where the results go besides the standard output.
pub struct Wanted<'a> {
    pub file: &'a Path,
    pub picture: Option<&'a PathBuf>,
    pub questions: Option<&'a PathBuf>,
    pub json: bool,
}

pub fn run(context: &Context, model: &str, wanted: &Wanted) -> Outcome {
    let file = FewShot::load(wanted.file).map_err(bad_input)?;
    let generator = open(context, model)?;
    let mut out = wanted.questions.map(|path| create(path)).transpose().map_err(bad_input)?;
    let mut each = |row: &Value| -> Result<()> {
        let Some(out) = &mut out else { return Ok(()) };
        Ok(writeln!(out, "{row}")?)
    };
    let (mut rows, mut progress) = (vec![], Lines::new());
    for task in &file.tasks {
        let found = few_shot::measure(&context.home, &generator, &file, task, &mut each, &mut progress);
        rows.extend(found.with_context(|| format!("the task {:?} cannot be asked", task.name)).map_err(bad_input)?);
    }
    progress.finish();
    if let Some(mut out) = out {
        out.flush().context("the questions could not be written")?;
    }
    // A folder has no record.
    if !Path::new(model).is_dir() {
        let registry = Registry::open(&context.home)?;
        registry.note_sets(&registry.resolve(&model.parse().map_err(bad_input)?)?, &few_shot::records(&rows))?;
    }
    if let Some(path) = wanted.picture {
        let title = format!("{model}: answers in context, without a gradient step");
        shots::write(path, &lines(&rows), &title, &format!("{}; with 95 % intervals over questions", file.name))?;
    }
    if wanted.json {
        return views::print_json(&rows);
    }
    print!("{}", table(&rows));
    if let Some(path) = wanted.picture {
        println!("picture: {}", path.display());
    }
    Ok(())
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    Ok(BufWriter::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?))
}

/// A line for each task, and one for its calibrated answers.
fn lines(rows: &[Row]) -> Vec<shots::Line> {
    let mut lines: Vec<shots::Line> = vec![];
    let mut add = |name: String, point: (usize, f64, (f64, f64))| match lines.iter_mut().find(|line| line.name == name) {
        Some(line) => line.points.push(point),
        None => lines.push(shots::Line { name, points: vec![point] }),
    };
    for row in rows {
        let point = |share: few_shot::Share| (row.shots, share.value, (share.low, share.high));
        add(row.task.clone(), point(row.right));
        if let Some(share) = row.calibrated {
            add(format!("{}, calibrated", row.task), point(share));
        }
    }
    lines
}

fn table(rows: &[Row]) -> String {
    let mut cells =
        vec![["TASK", "SHOTS", "RIGHT", "95 % INTERVAL", "OF SINGLE DRAWS", "CALIBRATED", "MOST FREQUENT"].map(str::to_string)];
    for row in rows {
        let of_draws = if row.draws > 1 { format!("{:.3} – {:.3}", row.range.0, row.range.1) } else { "–".into() };
        cells.push([
            row.task.clone(),
            row.shots.to_string(),
            format!("{:.3}", row.right.value),
            format!("{:.3} – {:.3}", row.right.low, row.right.high),
            of_draws,
            row.calibrated.map_or("–".into(), |share| format!("{:.3} ({:.3} – {:.3})", share.value, share.low, share.high)),
            row.most_frequent.map_or("–".into(), |share| format!("{share:.3}")),
        ]);
    }
    views::table(&cells)
}
