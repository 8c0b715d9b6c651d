//! Trains the model of `recipes/2017-transformer.toml` and translates what is held out, for comparison with other implementations; see
//! `bench/transformer.py`:
//!
//!     translate RECIPE FOLDER key=value…
//!
//! The folder gets `data.json` with the pairs as tokens and the order in which they are seen, and `danlu.txt` with the translations. The last
//! line printed says how fast it was and what it reached.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::tensor::Device;
use danlu_data::parallel::{self, Pair, divide};
use danlu_data::tokenizer::{Tokenizer, TrainSpec, train as learn};
use danlu_data::{catalogue, source::Source};
use danlu_engine::{Search, Translator};
use danlu_models::{Marian, MarianConfig};
use danlu_train::auto::resolve_examples;
use danlu_train::{Event, Examples, Objective, Outline, Plan, Recipe, Run, Translate, TranslateRow, train};
use serde_json::json;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "translate RECIPE FOLDER key=value…";
    let recipe = PathBuf::from(arguments.next().context(usage)?);
    let folder = PathBuf::from(arguments.next().context(usage)?);
    let recipe = Recipe::load(&recipe, &arguments.collect::<Vec<_>>())?;
    let sources = recipe.data.sources.iter().map(|name| match Path::new(name).exists() {
        true => Ok(Source::Path(name.clone())),
        false => Ok(catalogue::fetch(name, &mut ())?.source),
    });
    let found = parallel::read(&sources.collect::<Result<Vec<_>>>()?, &recipe.translate.from, &recipe.translate.to)?;
    let divided = divide(found.pairs, recipe.data.held_out, 0);
    let texts = divided.train.iter().flat_map(|pair| [&pair.source, &pair.target]);
    let vocab_size = recipe.tokenizer.vocabulary.context("`tokenizer.vocabulary` is needed")?;
    let tokenizer = learn(&TrainSpec { vocab_size, ..TrainSpec::default() }, texts.map(|text| Ok(text.clone())))?;
    let context = recipe.model.context.context("`model.context` is needed")?;
    let config = MarianConfig {
        attention_heads: recipe.model.heads.context("`model.heads` is needed")?,
        ffn_dim: recipe.model.intermediate.context("`model.intermediate` is needed")?,
        eos_token_id: tokenizer.end_of_text(),
        ..MarianConfig::new(
            tokenizer.vocab_size(),
            recipe.model.hidden.context("`model.hidden` is needed")?,
            recipe.model.layers.context("`model.layers` is needed")?,
            context,
        )
    };
    let encoded = |pairs: Vec<Pair>| -> Result<Vec<(Pair, TranslateRow)>> {
        let one = |pair: Pair| {
            let row = TranslateRow { source: tokenizer.encode(&pair.source)?, target: tokenizer.encode(&pair.target)? };
            Ok((pair, row))
        };
        let mut all = pairs.into_iter().map(one).collect::<Result<Vec<_>>>()?;
        all.retain(|(_, row)| row.source.len().max(row.target.len()) < context);
        Ok(all)
    };
    let (train_rows, held_out) = (encoded(divided.train)?, encoded(divided.held_out)?);
    let train_rows: Vec<TranslateRow> = train_rows.into_iter().map(|(_, row)| row).collect();
    ensure!(!train_rows.is_empty() && !held_out.is_empty(), "there is nothing to train on or nothing to measure with");
    let plan = planned(recipe, &config, &train_rows)?;
    let objective = Translate::new(&plan, train_rows.clone(), held_out.clone(), tokenizer.clone())?;

    let seen = (0..plan.steps * plan.rows as u64).map(|position| objective.row(position)).collect::<Vec<_>>();
    let tokens: u64 = seen.iter().map(|&row| train_rows[row].cost()).sum();
    let pair = |row: &TranslateRow| json!([row.source, row.target]);
    let data = json!({
        "vocabulary": config.vocab_size, "end": config.eos_token_id, "batch": plan.rows, "steps": plan.steps, "order": seen,
        "train": train_rows.iter().map(pair).collect::<Vec<_>>(),
        "held_out": held_out.iter().map(|(_, row)| pair(row)).collect::<Vec<_>>(),
        "references": held_out.iter().map(|(pair, _)| &pair.target).collect::<Vec<_>>(),
        "model": plan.recipe.model, "optimizer": plan.recipe.optimizer, "translate": plan.recipe.translate,
    });
    std::fs::create_dir_all(&folder)?;
    danlu_files::write_atomic_bytes(&folder.join("data.json"), data.to_string().as_bytes())?;
    tokenizer.save(&folder.join("tokenizer.json"))?;
    let out = folder.join(format!("run-{}", std::process::id()));
    std::fs::create_dir_all(&out)?;
    let (device, stop) = (Device::flex().autodiff(), AtomicBool::new(false));
    let run = Run { folder: &out, plan: &plan, objective: &objective, device: &device, data: "bench", stop: &stop };
    let mut print = |event: &Event| {
        if let Event::Step(step) = event {
            println!("{}", json!({"step": step.step, "loss": step.loss}));
        }
    };
    let trained = train(&run, || Marian::new(&config, plan.recipe.seed, &device), &mut print)?;
    let measure = objective.measure(&trained.model, u64::MAX)?;
    let other = |name: &str| measure.others.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let (seconds, texts) = translated(trained.model.valid(), &tokenizer, &held_out)?;
    danlu_files::write_atomic_bytes(&folder.join("danlu.txt"), (texts.join("\n") + "\n").as_bytes())?;
    std::fs::remove_dir_all(&out)?;
    let stepping = (plan.steps * plan.step_tokens()) as f64 / trained.summary.tokens_per_second;
    let row = json!({
        "who": "danlu", "steps": plan.steps, "parameters": config.parameters(), "seconds": stepping, "tokens_per_s": tokens as f64 / stepping,
        "pairs_per_s": seen.len() as f64 / stepping, "nats_per_token": other("nats_per_token"), "beam_bleu": other("bleu"),
        "translate_s": seconds, "peak_mb": trained.summary.peak_memory >> 20,
    });
    println!("{row}");
    Ok(())
}

fn planned(mut recipe: Recipe, config: &MarianConfig, rows: &[TranslateRow]) -> Result<Plan> {
    recipe.optimizer.embedding_rate = recipe.optimizer.rate;
    // What is measured on the way would be counted as training.
    (recipe.eval.every, recipe.sample.every) = (Some(1_000_000), Some(0));
    let count = rows.len() as u64;
    let tokens = (rows.iter().map(TranslateRow::cost).sum::<u64>() / count) as usize;
    recipe.batch.micro_tokens = Some(recipe.batch.examples.context("`batch.examples` is needed")? * tokens);
    let flops = config.flops_per_pair(tokens as f64 / 2.0, tokens as f64 / 2.0) / tokens as f64;
    let examples = Examples { count, tokens, usual_batch: 64 };
    resolve_examples(&recipe, Outline::from(config), &examples, flops, danlu_ops::gemm_rate())
}

/// The likeliest token each time, as the rival takes it.
fn translated(model: Marian, tokenizer: &Tokenizer, held_out: &[(Pair, TranslateRow)]) -> Result<(f64, Vec<String>)> {
    let begun = Instant::now();
    let translator = Translator::new(model, tokenizer.clone(), Search { beam: 1, length_penalty: 0.0 });
    let found = translator.search(&held_out.iter().map(|(_, row)| &row.source[..]).collect::<Vec<_>>())?;
    let seconds = begun.elapsed().as_secs_f64();
    let texts = found.iter().map(|one| Ok(tokenizer.decode_text(&one.tokens)?.replace('\n', " "))).collect::<Result<_>>()?;
    Ok((seconds, texts))
}
