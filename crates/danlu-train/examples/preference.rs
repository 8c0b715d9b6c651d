//! Learns from encoded pairs and prints the loss of every step, for comparison with other implementations:
//!
//!     preference MODEL_FOLDER PAIRS.jsonl key=value…
//!
//! A line of the file is `{"prompt": [ids], "chosen": [ids], "rejected": [ids]}`, or `{"prompt": …, "answer": …, "good": true}`. The first line
//! printed is the order in which the rows are seen. With `objective.kind=reward` the folder is a reward model's, and the last line names the
//! folder of the trained one and what it scores.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use burn::tensor::Device;
use danlu_data::preference::{Answer, EncodedJudged, EncodedPair};
use danlu_data::tokenizer::Tokenizer;
use danlu_models::folder;
use danlu_train::auto::resolve_examples;
use danlu_train::objectives::preference::Preferences;
use danlu_train::recipe::ObjectiveKind;
use danlu_train::{Event, Examples, Objective, Outline, Plan, Preference, Recipe, Reward, Run, train};
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
    let out = dir.join(format!("run-{}", std::process::id()));
    std::fs::create_dir_all(&out)?;
    let (device, tokenizer) = (Device::flex().autodiff(), Tokenizer::load(&dir)?);
    let config = folder::load_config(&dir)?;
    let examples = Examples { count: rows.len() as u64, tokens: 1, usual_batch: 4 };
    let plan = resolve_examples(&recipe, Outline::from(&config), &examples, config.flops_per_token(64), 1e11)?;
    match (recipe.objective.kind, data) {
        (ObjectiveKind::Reward, Preferences::Pairs(pairs)) => {
            let objective = Reward::new(&plan, pairs.clone(), pairs, tokenizer)?;
            let order = (0..plan.steps * plan.rows as u64).map(|position| objective.row(position)).collect();
            let model = follow(&plan, &objective, order, &out, || Ok(folder::load_reward(&dir, &device)?.0))?;
            // For transformers to score with.
            folder::save_reward(&model, &config, 2, &out)?;
            println!("{}", json!({"folder": out, "scores": model.score(&[&[5, 6, 7, 1], &[8, 1], &[9, 10, 11, 12, 13, 1]])?}));
        }
        (_, data) => {
            let start = folder::load(&dir, &Device::flex())?.0;
            let objective = Preference::new(&plan, data.clone(), data, Some(start), tokenizer, config)?;
            let order = (0..plan.steps * plan.rows as u64).map(|position| objective.row(position)).collect();
            follow(&plan, &objective, order, &out, || Ok(folder::load(&dir, &device)?.0))?;
        }
    }
    Ok(())
}

/// Trains, and prints the order of the rows and each step's loss.
fn follow<O: Objective>(
    plan: &Plan,
    objective: &O,
    order: Vec<usize>,
    out: &Path,
    fresh: impl FnOnce() -> Result<O::Model>,
) -> Result<O::Model> {
    println!("{}", json!({"order": order, "batch": plan.rows}));
    let (device, stop) = (Device::flex().autodiff(), AtomicBool::new(false));
    let run = Run { folder: out, plan, objective, device: &device, data: "parity", stop: &stop };
    let mut print = |event: &Event| {
        if let Event::Step(step) = event {
            println!("{}", json!({"step": step.step, "loss": step.loss}));
        }
    };
    Ok(train(&run, fresh, &mut print)?.model)
}
