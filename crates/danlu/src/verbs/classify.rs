use std::io::BufRead;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use danlu_data::scenes::{Instance, Picture, sheet};
use danlu_registry::{ModelRef, Registry};
use serde_json::{Value, json};

use super::Context;
use crate::exit::{Outcome, bad_input};
use crate::life::finder::Finder;
use crate::life::labels::{Answer, Labeller};
use crate::life::pictures::Namer;

/// Say what a classifier makes of texts or pictures: the label of each, a number, or a tag for each word; or what is where in pictures.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  danlu classify sentiment \"很好看的一本书\"\n  danlu classify sentiment < reviews.txt\n  danlu classify prices --json < rows.jsonl\n  danlu classify lenet5 shoe.png\n  danlu classify detect street.png --sheet seen.png"
)]
pub struct Args {
    /// The model, as NAME or NAME@VERSION, or a folder of a transformers classifier.
    model: String,
    /// The texts, or the files of pictures; without any, each line of the standard input, as text or as a JSON object with `text`, `pair` and numbers.
    texts: Vec<String>,
    /// Print a JSON object for each text.
    #[arg(long)]
    json: bool,
    /// Where to draw the pictures with what is seen in them (PNG), of a model that says where things are.
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
}

pub fn run(context: &Context, args: Args) -> Outcome {
    let path = Path::new(&args.model);
    let folder = if path.is_dir() {
        path.to_path_buf()
    } else {
        let wanted: ModelRef =
            args.model.parse().map_err(|e| bad_input(anyhow!("{} is no folder, and as a name: {e}", args.model)))?;
        let registry = Registry::open(&context.home)?;
        let id = registry.resolve(&wanted).map_err(bad_input)?;
        registry.folder(&id)
    };
    if let Some(finder) = Finder::open(&folder).map_err(bad_input)? {
        return find(&finder, &args);
    }
    if args.sheet.is_some() {
        return Err(bad_input(anyhow!("{} does not say where things are; leave --sheet out", args.model)));
    }
    if let Some(namer) = Namer::open(&folder).map_err(bad_input)? {
        return name(&namer, &args);
    }
    let labeller = Labeller::open(&folder).map_err(bad_input)?;
    for text in &args.texts {
        say(&labeller, text, args.json).map_err(bad_input)?;
    }
    if args.texts.is_empty() {
        for (number, line) in std::io::stdin().lock().lines().enumerate() {
            let line = line.context("the standard input is not text")?;
            if !line.trim().is_empty() {
                say(&labeller, line.trim(), args.json).with_context(|| format!("line {}", number + 1)).map_err(bad_input)?;
            }
        }
    }
    Ok(())
}

/// Names the pictures in the files that are given, one in a line of the standard input where none is.
fn name(namer: &Namer, args: &Args) -> Outcome {
    let one = |path: &str| -> Result<()> {
        let classes = namer.ask(Path::new(path)).with_context(|| format!("{path} cannot be classified"))?;
        let (label, probability) = classes.first().context("the model has no classes")?;
        if args.json {
            println!("{}", json!({ "picture": path, "answer": classes }));
        } else {
            println!("{label}  {probability:.3}  {path}");
        }
        Ok(())
    };
    each(args, one)
}

/// Does something with each file that is given, or with one in each line of the standard input where none is.
fn each(args: &Args, mut one: impl FnMut(&str) -> Result<()>) -> Outcome {
    args.texts.iter().try_for_each(|path| one(path)).map_err(bad_input)?;
    if args.texts.is_empty() {
        for line in std::io::stdin().lock().lines() {
            let line = line.context("the standard input is not text")?;
            if !line.trim().is_empty() {
                one(line.trim()).map_err(bad_input)?;
            }
        }
    }
    Ok(())
}

/// Says what is where in the pictures in the files, and draws it.
fn find(finder: &Finder, args: &Args) -> Outcome {
    let mut drawn: Vec<(Picture, Vec<Instance>)> = vec![];
    each(args, |path| {
        let (picture, found) = finder.ask(Path::new(path)).with_context(|| format!("{path} cannot be looked at"))?;
        if args.json {
            println!("{}", json!({ "picture": path, "found": found.iter().map(|one| finder.json(one)).collect::<Vec<_>>() }));
        } else if found.is_empty() {
            println!("nothing  {path}");
        } else {
            found.iter().for_each(|one| println!("{}  {path}", finder.line(&picture, one)));
        }
        if args.sheet.is_some() {
            drawn.push((picture, found.into_iter().map(|one| one.thing).collect()));
        }
        Ok(())
    })?;
    if let Some(path) = &args.sheet {
        let png = sheet(drawn.iter().map(|(picture, things)| (picture, &things[..]))).map_err(bad_input)?;
        danlu_files::write_atomic_bytes(path, &png)?;
    }
    Ok(())
}

fn say(labeller: &Labeller, input: &str, as_json: bool) -> Result<()> {
    let record: Option<Value> = if input.starts_with('{') { serde_json::from_str(input).ok() } else { None };
    let (text, pair) = match &record {
        Some(record) => (record["text"].as_str().context("the object has no `text`")?, record["pair"].as_str()),
        None => (input, None),
    };
    let number = |name: &str| {
        let value = record.as_ref().map(|record| &record[name]).and_then(Value::as_f64);
        value.with_context(|| format!("the model reads the number {name:?} beside the text; give it in a JSON object"))
    };
    let numbers = labeller.columns().into_iter().map(number).collect::<Result<_>>()?;
    let answer = labeller.ask(text, pair, numbers)?;
    if as_json {
        println!("{}", json!({ "text": text, "answer": answer }));
        return Ok(());
    }
    match answer {
        Answer::Classes(classes) => {
            let (label, probability) = classes.first().context("the model has no labels")?;
            println!("{label}  {probability:.3}  {text}");
        }
        Answer::Number(number) => println!("{number:.4}  {text}"),
        Answer::Tags(words) => {
            println!("{}", words.iter().map(|(word, tag)| format!("{word}/{tag}")).collect::<Vec<_>>().join(" "));
        }
    }
    Ok(())
}
