mod quantize;
mod show;

use std::path::PathBuf;

use clap::Subcommand;
use danlu_registry::{ModelId, ModelRef, Registry, Standing};

use super::Context;
use crate::exit::{Exit, Outcome, Reason, bad_input};
use crate::life::{adapters, import};
use crate::views::progress::Lines;
use crate::{human, views};
use show::{Listed, describe, listed, parameters, table};

/// List, inspect, copy in and out, and check the models kept here.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List all models with their size and their bits per byte on held-out text.
    #[command(after_help = "Examples:\n  danlu models list\n  danlu models list --remote")]
    List {
        /// List those that can be fetched by name instead.
        #[arg(long)]
        remote: bool,
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Show everything known about one model: recipe, data, measures, files.
    #[command(after_help = "Example:\n  danlu models show up@1")]
    Show {
        /// The model, as NAME or NAME@VERSION; without a version the current one.
        model: ModelRef,
        /// Print JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Show the family of a model: what it was made from, what was made from it, and what each step gained.
    #[command(after_help = "Examples:\n  danlu models lineage up\n  danlu models lineage up --svg family.svg")]
    Lineage {
        /// The model, as NAME or NAME@VERSION.
        model: ModelRef,
        /// Draw it as a picture into this file instead.
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
    /// Make a version the one that its name means, whatever its gate said.
    #[command(after_help = "Example:\n  danlu models promote office@2")]
    Promote {
        /// The model, as NAME@VERSION.
        model: ModelRef,
    },
    /// Make the version before the current one the current one again; nothing is deleted.
    #[command(after_help = "Example:\n  danlu models rollback office")]
    Rollback {
        /// The model's name.
        name: String,
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
    /// Take in a model made elsewhere, a folder saved by transformers or PEFT or a GGUF file, and check that it loads.
    #[command(
        after_help = "Examples:\n  danlu models import ./SmolLM2-135M --name smollm2 --licence Apache-2.0\n  danlu models import SmolLM2-135M-Instruct.Q4_1.gguf --name smollm2\n  danlu models import ./peft-adapter --base smollm2@1"
    )]
    Import {
        /// The folder, with config.json, model.safetensors and tokenizer.json or with adapter_config.json and adapter_model.safetensors, or the
        /// .gguf file.
        path: PathBuf,
        /// The name to keep it under; without one, that of the folder or file.
        #[arg(long)]
        name: Option<String>,
        /// The licence it comes with, to be recorded; without it, what a GGUF file says.
        #[arg(long)]
        licence: Option<String>,
        /// The model that an adapter is for, as NAME, NAME@VERSION or a folder; without it, what the adapter's folder says.
        #[arg(long)]
        base: Option<String>,
    },
    /// Make a whole model of an adapter and its base, and say how far it is from the two.
    #[command(after_help = "Example:\n  danlu models merge lora --name assistant")]
    Merge {
        /// The adapter, as NAME or NAME@VERSION.
        model: ModelRef,
        /// The name of the merged model; without one, the adapter's with "-merged".
        #[arg(long)]
        name: Option<String>,
    },
    /// Fetch a model by its name in the catalogue, and register it.
    #[command(after_help = "Example:\n  danlu models pull smollm2\n\n`danlu models list --remote` shows what can be fetched.")]
    Pull {
        /// Its name in the catalogue.
        entry: String,
        /// The name to keep it under; without one, that of the catalogue.
        #[arg(long)]
        name: Option<String>,
    },
    /// Make a smaller model with its weights in blocks of a few bits, in a GGUF file that llama.cpp runs too, and say what that costs.
    #[command(
        after_help = "Examples:\n  danlu models quantize office --to q4_k\n  danlu models quantize smollm2 --to q8_0 --data ./novel.txt"
    )]
    Quantize(quantize::Args),
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
        Verb::List { remote: true, json } => remote(json),
        Verb::List { remote: false, json: true } => views::print_json(&listed(&registry)?),
        Verb::List { remote: false, json: false } => {
            print!("{}", table(&listed(&registry)?));
            Ok(())
        }
        Verb::Show { model, json } => {
            let record = registry.show(&model).map_err(bad_input)?;
            let standing = listed(&registry)?.into_iter().find(|one| one.record.id() == record.id());
            let standing = standing.map_or(Standing::Candidate, |one| one.standing);
            if json {
                return views::print_json(&Listed { record, standing });
            }
            print!("{}", describe(&record, standing));
            println!("folder      {}", registry.folder(&record.id()).display());
            Ok(())
        }
        Verb::Lineage { model, svg: None } => {
            print!("{}", registry.lineage(&model).map_err(bad_input)?);
            Ok(())
        }
        Verb::Lineage { model, svg: Some(path) } => {
            let picture = registry.lineage_svg(&model).map_err(bad_input)?;
            danlu_files::write_atomic_bytes(&std::path::absolute(&path)?, picture.as_bytes())?;
            println!("the family of {model} is drawn in {}", path.display());
            Ok(())
        }
        Verb::Promote { model } => {
            let id = registry.promote(&model).map_err(bad_input)?;
            println!("{} now means {id}", id.name);
            Ok(())
        }
        Verb::Rollback { name } => {
            let (back, current) = registry.rollback(&name).map_err(bad_input)?;
            println!("{name} means {current} again; {back} is withdrawn, and `danlu models promote {back}` brings it back");
            Ok(())
        }
        Verb::Export { model, to, force } => {
            let id = registry.export(&model, &to, force).map_err(bad_input)?;
            println!("{id} is in {}", to.display());
            Ok(())
        }
        Verb::Import { path, name, licence, base } => {
            let id = import::import(&context.home, &path, import::About { name, licence, base }).map_err(bad_input)?;
            registered(&registry, &id)
        }
        Verb::Merge { model, name } => {
            let merged = adapters::merge(&context.home, &model, name).map_err(bad_input)?;
            println!("merged, its logits differ by at most {:.1e}; the largest is {:.1}", merged.gap, merged.largest);
            if let Some(error) = merged.quantization_error {
                println!(
                    "the base was in four bits: merged into what it stood for, which is {:.2} % of their length away from the weights it was \
                     made from",
                    error * 100.0
                );
            }
            registered(&registry, &merged.model)
        }
        Verb::Pull { entry, name } => {
            let mut progress = Lines::new();
            let id = import::pull(&context.home, &entry, name, &mut progress).map_err(bad_input)?;
            progress.finish();
            registered(&registry, &id)
        }
        Verb::Quantize(args) => quantize::run(context, args),
        Verb::Verify { model } => verify(&registry, &model),
        Verb::Remove { model, force } => {
            println!("{} is removed", registry.remove(&model, force).map_err(bad_input)?);
            Ok(())
        }
    }
}

fn registered(registry: &Registry, id: &ModelId) -> Outcome {
    let wanted = ModelRef { name: id.name.clone(), version: Some(id.version) };
    let parameters = parameters(&registry.show(&wanted)?).map_or("–".into(), human::count);
    let folder = registry.folder(id);
    let use_it = match danlu_models::folder::load_backbone_config(&folder) {
        Ok(danlu_models::BackboneConfig::Bert(_)) => format!("start a classifier from it with `--set model.from={id}`"),
        _ => format!("try it with `danlu generate {id} --prompt \"Hello\"`"),
    };
    println!("{id} is registered ({parameters} parameters); {use_it}");
    Ok(())
}

fn remote(json: bool) -> Outcome {
    let models = import::models()?;
    if json {
        return views::print_json(&models);
    }
    let mut rows = vec![["ENTRY", "MODEL", "LANGUAGE", "LICENCE", "FROM"].map(str::to_string)];
    for model in models {
        let places: Vec<String> = model.sources.iter().map(ToString::to_string).collect();
        rows.push([model.name, model.title, model.language, model.licence, places.join(", or ")]);
    }
    print!("{}", views::table(&rows));
    println!("\n`danlu models pull ENTRY` fetches one.");
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
