use std::io::BufRead;

use anyhow::Context as _;
use danlu_data::tokenizer::Tokenizer;
use danlu_engine::{Search, Translator};
use serde_json::json;

use super::Context;
use super::generate::folder;
use crate::exit::{Outcome, bad_input};

/// Translate texts with a model that was trained to: `danlu train recipes/2017-transformer.toml` makes one.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  danlu translate transformer \"Choose Insert - Table.\"\n  danlu translate transformer < paragraphs.txt\n  danlu translate transformer --beam 8 --json \"Save the file.\""
)]
pub struct Args {
    /// The model, as NAME or NAME@VERSION, or a folder of a transformers MarianMTModel that danlu made.
    model: String,
    /// The texts; without any, each line of the standard input.
    texts: Vec<String>,
    /// Keep this many beginnings of each translation while searching; 1 takes the likeliest token each time.
    #[arg(long, default_value_t = Search::default().beam)]
    beam: usize,
    /// How much longer translations are preferred; 0 for not at all.
    #[arg(long, default_value_t = Search::default().length_penalty)]
    length_penalty: f64,
    /// Print a JSON object for each text.
    #[arg(long)]
    json: bool,
}

/// More beginnings than this find nothing better and take long.
const WIDEST: usize = 64;

pub fn run(context: &Context, args: Args) -> Outcome {
    if !(1..=WIDEST).contains(&args.beam) || !(0.0..=5.0).contains(&args.length_penalty) {
        return Err(bad_input(anyhow::anyhow!("--beam is from 1 to {WIDEST}, and --length-penalty from 0 to 5")));
    }
    let folder = folder(context, &args.model)?;
    let (model, _) = danlu_models::folder::load_marian(&folder, &danlu_ops::device()).map_err(bad_input)?;
    let tokenizer = Tokenizer::load(&folder).map_err(bad_input)?;
    let search = Search { beam: args.beam, length_penalty: args.length_penalty };
    let translator = Translator::new(model, tokenizer, search);
    if !args.texts.is_empty() {
        let texts: Vec<&str> = args.texts.iter().map(String::as_str).collect();
        return say(&translator, &texts, args.json);
    }
    for (number, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line.with_context(|| format!("line {} of the standard input is not text", number + 1)).map_err(bad_input)?;
        say(&translator, &[line.as_str()], args.json)?;
    }
    Ok(())
}

fn say(translator: &Translator, texts: &[&str], as_json: bool) -> Outcome {
    for (text, translation) in texts.iter().zip(translator.translate(texts).map_err(bad_input)?) {
        if as_json {
            println!("{}", json!({ "text": text, "translation": translation }));
        } else {
            println!("{translation}");
        }
    }
    Ok(())
}
