mod few_shot;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow};
use danlu_data::corpus::{Corpus, Split};
use danlu_data::source::{ReadOptions, Source, documents, resolve};
use danlu_data::tokenizer::Tokenizer;
use danlu_eval::{Document, Limits, measure};
use danlu_registry::Registry;
use danlu_train::Recipe;

use super::Context;
use super::generate::open;
use crate::exit::{Outcome, bad_input};
use crate::life::{gate, prepare};
use crate::views;

/// Measure a model: bits per byte of held-out text, with a 95 % interval; or what it answers to tasks.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  danlu eval up\n  danlu eval up@1 --data crates\n  danlu eval up --data ./novel.txt --json\n  danlu eval smollm2 --sets recipes/l2-office-qa.toml\n  danlu eval smollm2 --few-shot recipes/questions/2020-gpt3.toml --picture few-shot.png"
)]
pub struct Args {
    /// The model, as NAME or NAME@VERSION, or a folder that transformers could load.
    model: String,
    /// The text: a corpus, of which the held-out documents are read, or files; without it, the corpora the model was trained on.
    #[arg(long)]
    data: Vec<String>,
    /// Measure the evaluation sets that this recipe's [gate] names instead, and add them to the model's record.
    #[arg(long, value_name = "RECIPE", conflicts_with = "data")]
    sets: Option<PathBuf>,
    /// Ask the tasks of this file in context, with none, one and more demonstrations before each question, and add them to the model's record.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "sets"])]
    few_shot: Option<PathBuf>,
    /// Draw how much was right with how many demonstrations, as a PNG.
    #[arg(long, value_name = "FILE", requires = "few_shot")]
    picture: Option<PathBuf>,
    /// Write every question that was asked, with the log-likelihoods of its answers, as JSON lines.
    #[arg(long, value_name = "FILE", requires = "few_shot")]
    questions: Option<PathBuf>,
    /// Read about this many bytes, evenly from the whole text.
    #[arg(long, default_value_t = 1_000_000)]
    bytes: u64,
    /// Stop after this many seconds, at the end of a document.
    #[arg(long)]
    seconds: Option<f64>,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

pub fn run(context: &Context, args: Args) -> Outcome {
    if let Some(recipe) = &args.sets {
        return sets(context, &args.model, recipe, args.json);
    }
    if let Some(file) = &args.few_shot {
        let (picture, questions) = (args.picture.as_ref(), args.questions.as_ref());
        return few_shot::run(context, &args.model, &few_shot::Wanted { file, picture, questions, json: args.json });
    }
    let generator = open(context, &args.model)?;
    let sources = if args.data.is_empty() { trained_on(context, &args.model)? } else { args.data.clone() };
    let time = args.seconds.map(Duration::try_from_secs_f64).transpose().map_err(bad_input)?;
    let limits = Limits { bytes: Some(args.bytes), time, tokens: None };
    let mut rows = Vec::new();
    for source in &sources {
        let decoder = generator.decoder();
        let mut failed = None;
        let texts = texts(context, source, args.bytes)?;
        let tokens = texts.map(|text| encode(generator.tokenizer(), &text?));
        let tokens = tokens.map_while(|document| document.map_err(|error| failed = Some(error)).ok());
        let measured = measure(|batch| decoder.token_nll(batch), decoder.context(), tokens, limits);
        if let Some(error) = failed {
            return Err(error.into());
        }
        let measured = measured.map_err(bad_input)?;
        if !args.json {
            println!("{source}: {measured}");
        }
        rows.push(serde_json::json!({ "model": args.model, "data": source, "bits_per_byte": measured }));
    }
    if args.json { views::print_json(&rows) } else { Ok(()) }
}

/// The sets of a recipe's gate, measured on a registered model.
fn sets(context: &Context, model: &str, recipe: &Path, as_json: bool) -> Outcome {
    let recipe = Recipe::load(recipe, &[]).map_err(bad_input)?;
    // The model that the recipe starts from need not be here to measure another.
    let recipe = prepare::with_folders(&context.home, &recipe).unwrap_or(recipe);
    let registry = Registry::open(&context.home)?;
    let id = registry.resolve(&model.parse().map_err(bad_input)?).map_err(bad_input)?;
    let records = gate::records(&context.home, &recipe, &registry.folder(&id)).map_err(bad_input)?;
    registry.note_sets(&id, &records)?;
    if as_json {
        return views::print_json(&records);
    }
    records.iter().for_each(|set| println!("{}", views::set_line(set)));
    Ok(())
}

/// The corpora in the model's lineage.
fn trained_on(context: &Context, model: &str) -> Outcome<Vec<String>> {
    let lost = || bad_input(anyhow!("what {model} was trained on is not known here; say what to measure on with --data"));
    if Path::new(model).is_dir() {
        return Err(lost());
    }
    let record = Registry::open(&context.home)?.show(&model.parse().map_err(bad_input)?).map_err(bad_input)?;
    let names: Vec<String> = record.lineage.data.into_iter().map(|data| data.name).collect();
    if names.is_empty() { Err(lost()) } else { Ok(names) }
}

/// The held-out documents of a corpus, or all of some files; every n-th when `bytes` leaves room for one in n.
fn texts(context: &Context, source: &str, bytes: u64) -> Outcome<Box<dyn Iterator<Item = Result<String>>>> {
    let path = Path::new(source);
    if path.exists() || source.contains(['*', '/']) {
        let inputs = resolve(&[Source::Path(source.to_string())], &[]).map_err(bad_input)?;
        let texts = documents(inputs.files, ReadOptions::default());
        return Ok(Box::new(
            texts.map(|document| document.map(|d| d.text).map_err(|bad| anyhow!("{}: {}", bad.origin, bad.reason))),
        ));
    }
    let corpus = Corpus::open_in(&context.home, source).map_err(bad_input)?;
    let every = (corpus.manifest.held_out.bytes / bytes.max(1)).max(1) as usize;
    Ok(Box::new(corpus.documents(Split::HeldOut).step_by(every).map(|document| Ok(document?.text))))
}

/// Up to `bytes` of those documents, encoded; the last is cut.
pub fn some_documents(context: &Context, tokenizer: &Tokenizer, source: &str, bytes: u64) -> Outcome<Vec<Document<'static>>> {
    let mut documents = vec![];
    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
    for text in texts(context, source, bytes)? {
        let text = text?;
        let text = &text[..text.floor_char_boundary(left)];
        if text.is_empty() {
            break;
        }
        left -= text.len();
        documents.push(encode(tokenizer, text)?);
    }
    Ok(documents)
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Document<'static>> {
    let mut tokens = vec![tokenizer.end_of_text()];
    tokens.extend(tokenizer.encode(text)?);
    Ok(Document { tokens: tokens.into(), bytes: text.len() as u64 })
}
