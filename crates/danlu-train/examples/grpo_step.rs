//! The speed of whole GRPO steps, answers drawn, through the trainer; `bench/grpo_step.py` sets it against TRL.
//!
//!     grpo_step MODEL_FOLDER PROMPTS.jsonl STEPS key=value…
//!
//! A line of the file is a list of tokens. Answers all have `rl.max_tokens` tokens: nothing ends them earlier.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use burn::tensor::Device;
use danlu_data::prompts::Reference;
use danlu_data::tokenizer::Tokenizer;
use danlu_models::folder;
use danlu_train::objectives::rl::{Game, Judge, Learner, Question, planned};
use danlu_train::recipe::ObjectiveKind;
use danlu_train::{Event, Grouped, Recipe, Run, train};
use serde_json::json;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "grpo_step MODEL_FOLDER PROMPTS.jsonl STEPS key=value…";
    let dir = PathBuf::from(arguments.next().context(usage)?);
    let prompts = danlu_files::read_text_bounded(Path::new(&arguments.next().context(usage)?), 64 << 20)?;
    let prompts: Vec<Vec<u32>> = prompts.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let steps = arguments.next().context(usage)?;
    // The last letter of an answer is about as often in the first half of the alphabet as not, so that every group has something to learn.
    let text = format!(
        "name = 'speed'\n[objective]\nkind = 'grpo'\n[rewards.regex]\npattern = '(?i)[a-m][^a-z]*$'\n[budget]\nsteps = {steps}\n[optimizer]\n\
         kind = 'adamw'\nrate = 1e-6\nembedding_rate = 1e-6\nschedule = 'constant'\nwarmup = 0.0\n[eval]\nevery = 1000000\ntokens = 1\n\
         final_tokens = 1\n[sample]\nevery = 0\n[checkpoint]\nminutes = 1000.0\n"
    );
    let recipe = Recipe::from_toml(&text, "speed", &arguments.collect::<Vec<_>>())?;
    let config = folder::load_config(&dir)?;
    let questions: Vec<Question> = prompts.into_iter().map(|ids| Question { ids, reference: Reference::default() }).collect();
    let plan = planned(&recipe, &questions, &config, 1e11)?;
    let judge = Judge::new(&plan.recipe.rewards, plan.recipe.rl.max_tokens, Tokenizer::load(&dir)?, vec![], None)?;
    let game = Game::new(&plan, questions.clone(), questions[..1].to_vec(), judge)?;
    let start = if recipe.rl.kl > 0.0 { Some(folder::load(&dir, &Device::flex())?.0) } else { None };
    let objective = Grouped::new(game, ObjectiveKind::Grpo, start)?;
    let (device, stop) = (Device::flex().autodiff(), AtomicBool::new(false));
    let out = tempfile::tempdir()?;
    let run = Run { folder: out.path(), plan: &plan, objective: &objective, device: &device, data: "speed", stop: &stop };
    let mut print = |event: &Event| {
        if let Event::Step(step) = event {
            let report: serde_json::Map<_, _> =
                step.report.iter().map(|(name, value)| (name.to_string(), json!(value))).collect();
            println!(
                "{}",
                json!({"who": "danlu", "step": step.step, "seconds": step.seconds, "peak_mb": peak() >> 20, "report": report})
            );
        }
    };
    train(&run, || Ok(folder::load(&dir, &device)?.0), &mut print)?;
    Ok(())
}

/// The most memory this process had, in bytes, as Linux tells it.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) << 10
}
