use std::path::PathBuf;

use clap::Subcommand;
use danlu_registry::{ModelRef, Record, Registry};

use super::Context;
use crate::exit::{Exit, Outcome, Reason, bad_input};
use crate::{human, views};

/// List, inspect, copy in and out, and check the models kept here.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List all models with their size and their bits per byte on held-out text.
    #[command(after_help = "Example:\n  danlu models list")]
    List {
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Show everything known about one model: recipe, data, measures, files.
    #[command(after_help = "Example:\n  danlu models show up@1")]
    Show {
        /// The model, as NAME or NAME@VERSION; without a version the newest.
        model: ModelRef,
        /// Print JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Show the family of a model: what it was made from, what was made from it, and what each step gained.
    #[command(after_help = "Example:\n  danlu models lineage up")]
    Lineage {
        /// The model, as NAME or NAME@VERSION.
        model: ModelRef,
    },
    /// Copy a model's folder to a place outside, ready for transformers and other programs.
    #[command(after_help = "Example:\n  danlu models export up ./my-model")]
    Export {
        /// The model, as NAME or NAME@VERSION.
        model: ModelRef,
        /// The folder to write, which must be empty or not exist.
        to: PathBuf,
        /// Replace the folder when it holds something.
        #[arg(long)]
        force: bool,
    },
    /// Take in a model's folder made elsewhere, such as one saved by transformers, and check that it loads.
    #[command(after_help = "Example:\n  danlu models import ./SmolLM2-135M --name smollm2 --licence Apache-2.0")]
    Import {
        /// The folder, with config.json, model.safetensors and tokenizer.json.
        folder: PathBuf,
        /// The name to keep it under; without one, the folder's name.
        #[arg(long)]
        name: Option<String>,
        /// The licence it comes with, to be recorded.
        #[arg(long)]
        licence: Option<String>,
    },
    /// Compare a model's files with their checksums.
    #[command(after_help = "Example:\n  danlu models verify up@1")]
    Verify {
        /// The model, as NAME or NAME@VERSION.
        model: ModelRef,
    },
    /// Delete one version of a model.
    #[command(after_help = "Example:\n  danlu models remove up@1")]
    Remove {
        /// The model, as NAME or NAME@VERSION.
        model: ModelRef,
        /// Delete it even when other models were made from it.
        #[arg(long)]
        force: bool,
    },
}

pub fn run(context: &Context, args: Args) -> Outcome {
    let registry = Registry::open(&context.home)?;
    match args.verb {
        Verb::List { json: true } => views::print_json(&registry.list()?),
        Verb::List { json: false } => {
            print!("{}", table(&registry.list()?));
            Ok(())
        }
        Verb::Show { model, json } => {
            let record = registry.show(&model).map_err(bad_input)?;
            if json {
                return views::print_json(&record);
            }
            print!("{}", describe(&record));
            println!("folder      {}", registry.folder(&record.id()).display());
            Ok(())
        }
        Verb::Lineage { model } => {
            print!("{}", registry.lineage(&model).map_err(bad_input)?);
            Ok(())
        }
        Verb::Export { model, to, force } => {
            let id = registry.export(&model, &to, force).map_err(bad_input)?;
            println!("{id} is in {}", to.display());
            Ok(())
        }
        Verb::Import { folder, name, licence } => import(&registry, folder, name, licence),
        Verb::Verify { model } => verify(&registry, &model),
        Verb::Remove { model, force } => {
            println!("{} is removed", registry.remove(&model, force).map_err(bad_input)?);
            Ok(())
        }
    }
}

fn import(registry: &Registry, folder: PathBuf, name: Option<String>, licence: Option<String>) -> Outcome {
    let own = std::path::absolute(&folder)?.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.or(own).unwrap_or_default();
    let mut parameters = 0;
    let id = registry
        .import(&name, &folder, licence, |copy| {
            let (decoder, config) = danlu_models::folder::load(copy, &burn::tensor::Device::flex())?;
            parameters = config.parameters();
            let tokenizer = danlu_data::tokenizer::Tokenizer::load(copy)?;
            anyhow::ensure!(
                tokenizer.vocab_size() <= config.vocab_size(),
                "its tokenizer has {} tokens and its model only {}",
                tokenizer.vocab_size(),
                config.vocab_size()
            );
            // One step through the weights shows that they are numbers.
            let mut cache = danlu_models::Cache::new(&decoder, 1);
            let logits = decoder.step(&[tokenizer.end_of_text()], &mut cache);
            anyhow::ensure!(logits.iter().all(|x| x.is_finite()), "its weights give logits that are not numbers");
            Ok(())
        })
        .map_err(bad_input)?;
    println!(
        "{id} is registered ({} parameters); try it with `danlu generate {id} --prompt \"Hello\"`",
        human::count(parameters as f64)
    );
    Ok(())
}

fn verify(registry: &Registry, model: &ModelRef) -> Outcome {
    let verified = registry.verify(model).map_err(bad_input)?;
    for damage in &verified.damage {
        println!("{}  {}", damage.what, damage.file);
    }
    match verified.damage.len() {
        0 => println!("{}: {} files, {}, all as registered", verified.id, verified.files, human::bytes(verified.bytes)),
        n => {
            return Err(Exit {
                reason: Reason::Failure,
                error: Some(anyhow::anyhow!("{}: {n} files are not as registered", verified.id)),
            });
        }
    }
    Ok(())
}

fn parameters(record: &Record) -> Option<f64> {
    record.lineage.facts.get("parameters").and_then(|value| value.as_f64())
}

fn table(records: &[Record]) -> String {
    if records.is_empty() {
        return "There are no models yet; `danlu up` makes one.\n".into();
    }
    let mut rows = vec![["MODEL", "LEVEL", "PARAMETERS", "SIZE", "BITS/BYTE", "MADE", "FROM"].map(str::to_string)];
    for record in records {
        let lineage = &record.lineage;
        let from = match (&lineage.parent, &lineage.origin) {
            (Some(parent), _) => parent.to_string(),
            (None, Some(_)) => "import".into(),
            (None, None) => lineage.data.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", "),
        };
        let measured = lineage.metrics.get("bits_per_byte").map_or("–".into(), |m| format!("{:.3}", m.value));
        rows.push([
            record.id().to_string(),
            lineage.level.map_or("–", |level| level.as_str()).into(),
            parameters(record).map_or("–".into(), human::count),
            human::bytes(record.bytes()),
            measured,
            record.created.get(..10).unwrap_or("").into(),
            from,
        ]);
    }
    views::table(&rows)
}

fn describe(record: &Record) -> String {
    let lineage = &record.lineage;
    let mut text = format!("{}\n", record.id());
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<12}{value}\n"));
    line("made", format!("{} by danlu {}", record.created, record.code_version));
    if let Some(level) = lineage.level {
        line("level", level.as_str().into());
    }
    if let Some(parent) = &lineage.parent {
        line("parent", parent.to_string());
    }
    if let Some(origin) = &lineage.origin {
        line("imported", format!("{} (licence: {})", origin.from, origin.licence.as_deref().unwrap_or("not said")));
    }
    for (name, measure) in &lineage.metrics {
        let interval = match (measure.low, measure.high) {
            (Some(low), Some(high)) => format!(" (95 % interval {low:.4} to {high:.4})"),
            _ => String::new(),
        };
        line("measured", format!("{} {:.4}{interval}", name.replace('_', " "), measure.value));
    }
    for (name, value) in &lineage.facts {
        let value = value.as_u64().map_or_else(|| value.to_string().replace('"', ""), human::thousands);
        line("fact", format!("{} {value}", name.replace('_', " ")));
    }
    if let Some(recipe) = &lineage.recipe {
        line("recipe", format!("{} {}", recipe.name, recipe.hash));
    }
    for data in &lineage.data {
        line("data", format!("{} {}", data.name, data.manifest_hash));
    }
    if let Some(hash) = &lineage.tokenizer_hash {
        line("tokenizer", hash.clone());
    }
    for (name, file) in &record.files {
        line("file", format!("{name} {} {}", human::bytes(file.bytes), &file.blake3[..file.blake3.len().min(12)]));
    }
    text
}
