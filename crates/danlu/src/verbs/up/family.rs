//! The family of models: measured on the same items, shown in one table, and the page to talk with it on.

use danlu_registry::{ModelId, ModelRef, Record, Registry, SetRecord, Verdict};
use danlu_train::Recipe;

use super::Life;
use crate::exit::Outcome;
use crate::life::{gate, run};
use crate::verbs::chat::{self, Talk};
use crate::verbs::generate::{SamplingArgs, open, prompt};
use crate::verbs::serve;
use crate::views;

/// What is asked where nobody is there to ask.
const QUESTION: &str = "What is the capital of France?";

/// The measures that the table has, by their names in the records.
const UNITS: [(&str, &str); 3] = [
    ("bits_per_byte", "bits per byte of text"),
    ("answer_bits_per_byte", "of answers"),
    ("preference_accuracy", "preference accuracy"),
];

/// Measures every model of the family on the items that the last run names, adds what is new to their records, and prints a table. What was
/// measured before is not measured again.
pub fn measure(life: &Life, family: &[ModelId], last_run: &str) -> Outcome {
    let home = &life.context.home;
    let recipe = Recipe::load(&run::folder(home, last_run).join("recipe.toml"), &[])?;
    if recipe.gate.is_empty() {
        return Ok(());
    }
    let registry = Registry::open(home)?;
    let mut rows = vec![["model", "level", "made from", UNITS[0].1, UNITS[1].1, UNITS[2].1].map(str::to_string)];
    for id in family {
        let measured = gate::records(home, &recipe, &registry.folder(id))?;
        registry.note_sets(id, &measured)?;
        let record = registry.show(&ModelRef { name: id.name.clone(), version: Some(id.version) })?;
        rows.push(row(&record, &measured));
    }
    print!("{}", views::table(&rows));
    println!(
        "with 95 % intervals, on the same held-out items; better and worse: than what it was made from, by more than chance"
    );
    if let Some(last) = family.last() {
        println!("danlu models lineage {last} draws the family");
    }
    Ok(())
}

fn row(record: &Record, measured: &[SetRecord]) -> [String; 6] {
    let lineage = &record.lineage;
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "–".into());
    let cell = |unit: &str| {
        // The record knows the change from the parent, where the gate measured it on these items.
        let set = measured.iter().find(|set| set.unit == unit)?;
        let known = lineage.sets.iter().find(|known| known.hash == set.hash);
        Some(value(known.unwrap_or(set)))
    };
    [
        record.id().to_string(),
        or_none(lineage.level.map(|level| level.as_str().into())),
        or_none(lineage.parent.as_ref().map(ModelId::to_string)),
        or_none(cell(UNITS[0].0)),
        or_none(cell(UNITS[1].0)),
        or_none(cell(UNITS[2].0)),
    ]
}

fn value(set: &SetRecord) -> String {
    let mut text = format!("{:.3}", set.measure.value);
    if let (Some(low), Some(high)) = (set.measure.low, set.measure.high) {
        text.push_str(&format!(" ({low:.3} to {high:.3})"));
    }
    match set.verdict() {
        Some(Verdict::Better) => text.push_str(" better"),
        Some(Verdict::Worse) => text.push_str(" worse"),
        Some(Verdict::Same) | None => {}
    }
    text
}

/// The page, with all of the family and its last model first, or with the pretrained model alone a prompt; without a terminal one sample answer.
pub fn try_it(life: &Life, family: &[ModelId]) -> Outcome {
    let quiet = life.args.no_prompt || !views::owns_terminal();
    let Some(last) = family.last() else { return Ok(()) };
    if family.len() == 1 {
        // A sample of its own was printed when it was trained.
        return if quiet { Ok(()) } else { prompt(&open(life.context, &last.to_string())?, &SamplingArgs::default()) };
    }
    println!();
    if !quiet {
        println!("talk with {last} on the page, or here: danlu chat {last}");
        let models: Vec<String> = family.iter().rev().map(ModelId::to_string).collect();
        return serve::page(life.context, &models);
    }
    let sampling = SamplingArgs { temperature: 0.6, seed: Some(1), ..SamplingArgs::default() };
    let mut talk = Talk::open(life.context, chat::Args { model: last.to_string(), system: None, sampling })?;
    println!("{} {QUESTION}", views::bold(&format!("{last} is asked:")));
    talk.ask(QUESTION)?;
    println!("talk with it: danlu chat {last}, or on a page: danlu serve {last}");
    Ok(())
}
