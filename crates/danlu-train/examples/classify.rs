//! Fine-tunes a classifier on encoded texts and prints the loss of every step, for comparison with other implementations:
//!
//!     classify CLASSIFIER_FOLDER ROWS.jsonl key=value…
//!
//! A line of the file is `{"ids": [ids], "kinds": [0 or 1], "label": place}`, or with `"number"`, or with `"tags"`, a place for each token or
//! null. The first line printed is the order in which the rows are seen.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use burn::tensor::Device;
use danlu_data::labelled::EncodedExample;
use danlu_data::tokenizer::{TrainSpec, train as learn};
use danlu_models::folder;
use danlu_train::auto::resolve_examples;
use danlu_train::objectives::classify::{Classify, ClassifyData, ClassifyRow, Rates, Target};
use danlu_train::{Event, Examples, Outline, Recipe, Run, train};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Row {
    ids: Vec<u32>,
    kinds: Vec<u32>,
    label: Option<u32>,
    number: Option<f32>,
    tags: Option<Vec<Option<u32>>>,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "classify CLASSIFIER_FOLDER ROWS.jsonl key=value…";
    let dir = PathBuf::from(arguments.next().context(usage)?);
    let rows = danlu_files::read_text_bounded(Path::new(&arguments.next().context(usage)?), 64 << 20)?;
    let rows: Vec<Row> = rows.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let text = "name = 'parity'\n[budget]\nsteps = 20\n[optimizer]\nkind = 'adamw'\nrate = 1e-3\nembedding_rate = 1e-3\nbeta2 = 0.999\n\
                epsilon = 1e-8\nweight_decay = 0.0\nclip = 1.0\nwarmup = 0.0\nschedule = 'constant'\n[eval]\nevery = 1000000\n[batch]\n\
                examples = 4\nmicro_tokens = 100000\n";
    let recipe = Recipe::from_toml(text, "parity", &arguments.collect::<Vec<_>>())?;
    let (model, config) = folder::load_classifier(&dir, &Device::flex())?;
    let head = model.config().clone();
    let rows: Vec<ClassifyRow> = rows
        .into_iter()
        .map(|row| ClassifyRow {
            source: String::new(),
            target: match (row.label, row.number) {
                (Some(label), _) => Target::Class(label),
                (None, Some(number)) => Target::Number(number),
                (None, None) => Target::Tags,
            },
            text: Some(EncodedExample {
                tags: row.tags.unwrap_or_default().into_iter().map(|tag| tag.unwrap_or(danlu_ops::IGNORE)).collect(),
                ids: row.ids,
                kinds: row.kinds,
                cut: false,
            }),
            features: vec![],
        })
        .collect();
    let examples = Examples { count: rows.len() as u64, tokens: 1, usual_batch: 4 };
    let parameters = danlu_models::names_and_shapes(&model).iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum();
    let outline = Outline::of_classifier(config.as_ref(), &head, parameters, parameters);
    let plan = resolve_examples(&recipe, outline, &examples, 1e6, 1e11)?;
    // Any tokenizer will do: what is shown is not compared.
    let tokenizer = learn(&TrainSpec { vocab_size: 300, ..TrainSpec::default() }, std::iter::once(Ok("a b".to_string())))?;
    let data = ClassifyData {
        train: rows.clone(),
        held_out: rows,
        labels: head.labels.clone(),
        task: head.task,
        tokenizer: Some(tokenizer),
        feature_names: vec![],
    };
    let objective = Classify::new(&plan, data, false, Rates { head: 1.0, features: 1.0 })?;
    let order: Vec<usize> = (0..plan.steps * plan.rows as u64).map(|position| objective.row(position)).collect();
    println!("{}", json!({"order": order, "batch": plan.rows}));
    let (device, stop) = (Device::flex().autodiff(), AtomicBool::new(false));
    let out = dir.join(format!("run-{}", std::process::id()));
    std::fs::create_dir_all(&out)?;
    let run = Run { folder: &out, plan: &plan, objective: &objective, device: &device, data: "parity", stop: &stop };
    let mut print = |event: &Event| {
        if let Event::Step(step) = event {
            println!("{}", json!({"step": step.step, "loss": step.loss}));
        }
    };
    train(&run, || Ok(folder::load_classifier(&dir, &device)?.0), &mut print)?;
    Ok(())
}
