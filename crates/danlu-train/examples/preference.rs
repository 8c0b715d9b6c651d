//! Learns from encoded pairs and prints the loss of every step, for comparison with other implementations:
//!
//!     preference MODEL_FOLDER PAIRS.jsonl key=value…
//!
//! A line of the file is `{"prompt": [ids], "chosen": [ids], "rejected": [ids]}`, or `{"prompt": …, "answer": …, "good": true}`. The first line
//! printed is the order in which the rows are seen.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use burn::tensor::Device;
use danlu_data::preference::{Answer, EncodedJudged, EncodedPair};
use danlu_data::tokenizer::Tokenizer;
use danlu_models::folder;
use danlu_train::auto::resolve_examples;
use danlu_train::objectives::preference::Preferences;
use danlu_train::{Event, Examples, Outline, Preference, Recipe, Run, train};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Row {
    prompt: Vec<u32>,
    chosen: Option<Vec<u32>>,
    rejected: Option<Vec<u32>>,
    answer: Option<Vec<u32>>,
    good: Option<bool>,
}

impl Row {
    fn answer(&self, ids: &Option<Vec<u32>>) -> Result<Answer> {
        let ids = ids.as_ref().context("a row has neither two answers nor one that was judged")?;
        Ok(Answer { ids: self.prompt.iter().chain(ids).copied().collect(), prompt: self.prompt.len() })
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "preference MODEL_FOLDER PAIRS.jsonl key=value…";
    let dir = PathBuf::from(arguments.next().context(usage)?);
    let rows = danlu_files::read_text_bounded(Path::new(&arguments.next().context(usage)?), 64 << 20)?;
    let rows: Vec<Row> = rows.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let text = "name = 'parity'\n[budget]\nsteps = 20\n[optimizer]\nkind = 'adamw'\nbeta2 = 0.999\nepsilon = 1e-8\nweight_decay = 0.0\n\
                clip = 0.0\nwarmup = 0.0\nschedule = 'constant'\n[eval]\nevery = 1000000\n[sample]\ntokens = 1\n[batch]\nmicro_tokens = 100000\n";
    let recipe = Recipe::from_toml(text, "parity", &arguments.collect::<Vec<_>>())?;
    let data = match rows.first().is_some_and(|row| row.good.is_some()) {
        true => Preferences::Judged(
            rows.iter()
                .map(|row| Ok(EncodedJudged { answer: row.answer(&row.answer)?, good: row.good.unwrap_or_default() }))
                .collect::<Result<_>>()?,
        ),
        false => Preferences::Pairs(
            rows.iter()
                .map(|row| {
                    Ok(EncodedPair { chosen: row.answer(&row.chosen)?, rejected: row.answer(&row.rejected)?, margin: 0.0 })
                })
                .collect::<Result<_>>()?,
        ),
    };
    let (start, config) = folder::load(&dir, &Device::flex())?;
    let examples = Examples { count: rows.len() as u64, tokens: 1, usual_batch: 4 };
    let plan = resolve_examples(&recipe, Outline::from(&config), &examples, config.flops_per_token(64), 1e11)?;
    let objective = Preference::new(&plan, data.clone(), data, Some(start), Tokenizer::load(&dir)?, config)?;
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
    train(&run, || Ok(folder::load(&dir, &device)?.0), &mut print)?;
    Ok(())
}
