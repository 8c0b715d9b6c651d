use std::fs;
use std::time::Instant;

use anyhow::Result;
use danlu_data::corpus::Corpus;
use danlu_lab::refusal;
use danlu_registry::{ModelId, Registry};
use danlu_train::Recipe;

use super::generate::{SamplingArgs, open, prompt};
use super::plan::describe;
use super::{Context, train};
use crate::exit::{Outcome, bad_input, does_not_fit};
use crate::life::kinds::{Prepared, Pretrain};
use crate::life::{corpora, prepare, run};
use crate::views::progress::Lines;
use crate::views::run::Kind;
use crate::{human, interrupt, views};

/// Make a model in one command: text, tokenizer, training, measuring, keeping it, and a prompt to try it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  danlu up\n  danlu up --data ~/texts --minutes 20\n  danlu up --data crates --no-prompt\n\nRun it again to go on where it was: finished stages are not repeated, and a finished model goes straight to the prompt."
)]
pub struct Args {
    /// The text: a file, folder or glob, a corpus, an entry of the catalogue, or `crates` (the sources cargo keeps).
    #[arg(long, default_value = DEFAULT)]
    data: String,
    /// How long the whole may take, once the text is there.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Train anew, though there is a model or an unfinished run.
    #[arg(long)]
    fresh: bool,
    /// End after the sample instead of asking for prompts.
    #[arg(long)]
    no_prompt: bool,
    /// How the course of the training is shown.
    #[arg(long, value_enum, default_value_t = Kind::Auto)]
    view: Kind,
}

const DEFAULT: &str = "wiki-leads";
const RECIPE: &str = include_str!("../../../../recipes/up.toml");
/// Seconds for what follows the training: export, reading back, picture.
const AFTER_TRAINING: f64 = 1.5;
const STAGES: usize = 6;

pub fn run(context: &Context, args: Args) -> Outcome {
    if !(args.minutes.is_finite() && args.minutes > 0.0) {
        return Err(bad_input(anyhow::anyhow!("--minutes must be a positive number")));
    }
    interrupt::install()?;
    let mut recipe = Recipe::from_toml(RECIPE, "recipes/up.toml", &[])?;
    stage(1, "text");
    let corpus = text(context, &args.data, &recipe)?;
    let began = Instant::now();
    let manifest = &corpus.manifest;
    detail(&format!(
        "{}: {} documents, {} ({} held out)",
        manifest.name,
        human::thousands(manifest.train.documents + manifest.held_out.documents),
        human::bytes(manifest.train.bytes + manifest.held_out.bytes),
        human::bytes(manifest.held_out.bytes)
    ));
    recipe.data.sources = vec![manifest.name.clone()];
    let model = if manifest.name == DEFAULT { "up".to_string() } else { format!("up-{}", manifest.name) };
    recipe.name = format!("{model}-{}m", args.minutes);

    if let Some(id) = finished(context, &recipe.name, &corpus, &args)? {
        println!("{} is there already; --fresh trains anew, --minutes longer.", views::bold(&id.to_string()));
        return try_it(context, &id, args.no_prompt);
    }
    let prepared = prepare_run(context, &mut recipe, &model, corpus, &args, began)?;
    stage(5, "training");
    let again = again(&args);
    let done = train::execute(context, &prepared, args.view, &again)?;
    stage(6, "model");
    train::report(&done);
    println!("the whole took {} since the text was there", human::duration(began.elapsed()));
    match &done.model {
        Some(id) => try_it(context, id, args.no_prompt),
        None => Ok(()),
    }
}

fn stage(number: usize, name: &str) {
    println!("{}", views::bold(&format!("[{number}/{STAGES}] {name}")));
}

fn detail(text: &str) {
    println!("  {text}");
}

/// The corpus. When the default cannot be fetched, the sources that cargo keeps take its place.
fn text(context: &Context, source: &str, recipe: &Recipe) -> Outcome<Corpus> {
    let mut progress = Lines::new();
    let mut get = |source: &str| {
        let wanted = corpora::Wanted { source, held_out: recipe.data.held_out, seed: recipe.seed };
        corpora::corpus(&context.home, &wanted, &mut progress)
    };
    match get(source) {
        Err(error) if source == DEFAULT => {
            detail(&format!("{DEFAULT} cannot be had: {}", error.root_cause()));
            detail("the sources that cargo keeps on this machine (crates) are used instead");
            get("crates").map_err(bad_input)
        }
        other => other.map_err(bad_input),
    }
}

/// The model of a finished run with the same text and budget.
fn finished(context: &Context, name: &str, corpus: &Corpus, args: &Args) -> Result<Option<ModelId>> {
    let Some(record) = run::record(&context.home, name) else { return Ok(None) };
    let same = record.data.iter().any(|data| data.manifest_hash == corpus.manifest.hash);
    if args.fresh || !same {
        // What a run was begun with has gone; its model, if it has one, is in the registry.
        fs::remove_dir_all(run::folder(&context.home, name))?;
        return Ok(None);
    }
    let registry = Registry::open(&context.home)?;
    Ok(record.model.filter(|id| registry.folder(id).exists()))
}

/// The run with everything in place: reopened when it was begun before, else planned and begun.
fn prepare_run(
    context: &Context,
    recipe: &mut Recipe,
    model: &str,
    corpus: Corpus,
    args: &Args,
    began: Instant,
) -> Outcome<Prepared> {
    let home = &context.home;
    let mut progress = Lines::new();
    if run::record(home, &recipe.name).is_some() {
        stage(2, "tokenizer, tokens and plan: as they were");
        return run::reopen(home, &recipe.name, &mut progress).map_err(bad_input);
    }
    // The vocabulary depends on the minutes asked for, so that a slow stage before does not change it.
    recipe.budget.minutes = Some(args.minutes);
    stage(2, "tokenizer");
    let corpora = vec![corpus];
    let tokenizer = prepare::tokenizer(home, recipe, &corpora, &mut progress)?;
    progress.finish();
    stage(3, "tokens");
    let sets = prepare::tokens(&corpora, &tokenizer, &mut progress)?;
    progress.finish();
    let (tokens, bytes) = sets.iter().fold((0, 0), |(t, b), set| (t + set.train.len(), b + set.train.bytes()));
    detail(&format!(
        "{} tokens of {:.2} bytes to train on, vocabulary {}",
        human::count(tokens as f64),
        bytes as f64 / tokens.max(1) as f64,
        human::thousands(tokenizer.vocab_size() as u64)
    ));
    stage(4, "plan");
    let _ = danlu_ops::gemm_rate();
    let left = args.minutes - (began.elapsed().as_secs_f64() + AFTER_TRAINING) / 60.0;
    // With a tiny budget the training still gets a share of it; the whole then takes a little longer than asked.
    recipe.budget.minutes = Some(left.max(args.minutes * 0.25).max(0.01));
    let prepared = Prepared::Pretrain(Box::new(Pretrain::planned(recipe, corpora, tokenizer, sets).map_err(bad_input)?));
    let (prediction, machine) = run::prediction(home, &prepared);
    print!("{}", describe(prepared.plan(), &prediction, &machine));
    if let Some(advice) = refusal(&prediction, prepared.plan(), recipe, &machine) {
        return Err(does_not_fit(anyhow::anyhow!(advice)));
    }
    run::begin(home, &prepared, Some(args.minutes), model)?;
    Ok(prepared)
}

/// The command line that goes on with this.
fn again(args: &Args) -> String {
    let mut command = "danlu up".to_string();
    if args.data != DEFAULT {
        command.push_str(&format!(" --data {:?}", args.data));
    }
    if args.minutes != 5.0 {
        command.push_str(&format!(" --minutes {}", args.minutes));
    }
    command
}

fn try_it(context: &Context, id: &ModelId, no_prompt: bool) -> Outcome {
    if no_prompt || !views::owns_terminal() {
        return Ok(());
    }
    println!();
    let generator = open(context, &id.to_string())?;
    prompt(&generator, &SamplingArgs::default())
}
