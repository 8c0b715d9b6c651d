use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{Subcommand, ValueEnum};
use danlu_data::corpus::{Corpus, Split};
use danlu_data::tokenizer::{BytesPerToken, Kind, Tokenizer, TrainSpec, bytes_per_token, train};
use danlu_registry::{ModelRef, Registry};

use super::Context;
use crate::exit::{Outcome, bad_input};
use crate::{human, views};

/// Train a tokenizer, look at one, and see how it cuts text.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Train a tokenizer on a corpus and say how many bytes its tokens hold.
    #[command(after_help = "Example:\n  danlu tokenizer train wiki-leads --vocabulary 4096")]
    Train {
        /// The corpus, as `danlu data list` names it.
        corpus: String,
        /// How many tokens it has.
        #[arg(long, default_value_t = 4096)]
        vocabulary: usize,
        /// How it is trained.
        #[arg(long, value_enum, default_value_t = Algorithm::Bpe)]
        kind: Algorithm,
        /// The file to write; without one, tokenizers/CORPUS-VOCABULARY.json in danlu's folder.
        #[arg(long, short)]
        out: Option<PathBuf>,
    },
    /// Show what a tokenizer is and how many bytes its tokens hold in English, Chinese and code.
    #[command(after_help = "Example:\n  danlu tokenizer show up@1")]
    Show {
        /// A tokenizer.json, a folder with one, or a model.
        tokenizer: String,
        /// Print JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Show the tokens of a text, with their ids.
    #[command(after_help = "Example:\n  danlu tokenizer encode up@1 \"The furnace is hot.\"")]
    Encode {
        /// A tokenizer.json, a folder with one, or a model.
        tokenizer: String,
        /// The text.
        text: String,
        /// Print only the ids, as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Algorithm {
    /// Byte-level byte-pair encoding, as GPT and Llama use.
    Bpe,
    /// A unigram language model over the same bytes.
    Unigram,
    /// Longest match, as BERT uses.
    Wordpiece,
    /// Whole words in small letters, as word2vec uses.
    Words,
}

/// A paragraph each, the same for every tokenizer, so that numbers can be compared. The English is the opening of Pride and Prejudice
/// (1813), the Chinese the opening of the Dao De Jing with a modern sentence after it.
const ENGLISH: &str = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife. However little known the feelings or views of such a man may be on his first entering a neighbourhood, this truth is so well fixed in the minds of the surrounding families, that he is considered as the rightful property of some one or other of their daughters.";
const CHINESE: &str = "道可道，非常道。名可名，非常名。无名天地之始；有名万物之母。故常无欲以观其妙；常有欲以观其徼。此两者同出而异名，同谓之玄。玄之又玄，众妙之门。大型语言模型通过预测下一个词来学习语言，训练它需要大量的文本和计算。";
const CODE: &str = include_str!("../exit.rs");

pub fn run(context: &Context, args: Args) -> Outcome {
    match args.verb {
        Verb::Train { corpus, vocabulary, kind, out } => train_one(context, &corpus, vocabulary, kind, out),
        Verb::Show { tokenizer, json } => show(&find(context, &tokenizer)?, json),
        Verb::Encode { tokenizer, text, json } => encode(&find(context, &tokenizer)?, &text, json),
    }
}

fn train_one(context: &Context, corpus: &str, vocabulary: usize, kind: Algorithm, out: Option<PathBuf>) -> Outcome {
    let corpus = Corpus::open_in(&context.home, corpus).map_err(bad_input)?;
    let kind = match kind {
        Algorithm::Bpe => Kind::Bpe,
        Algorithm::Unigram => Kind::Unigram,
        Algorithm::Wordpiece => Kind::WordPiece,
        Algorithm::Words => Kind::Words,
    };
    let texts = corpus.documents(Split::Train).map(|document| Ok(document?.text));
    let tokenizer = train(&TrainSpec { kind, vocab_size: vocabulary, ..TrainSpec::default() }, texts).map_err(bad_input)?;
    let name = format!("{}-{}.json", corpus.manifest.name, tokenizer.vocab_size());
    let out = out.unwrap_or_else(|| context.home.join("tokenizers").join(name));
    tokenizer.save(&out)?;
    let held_out: Vec<String> =
        corpus.documents(Split::HeldOut).take(2000).map(|document| Ok(document?.text)).collect::<anyhow::Result<_>>()?;
    let fit = bytes_per_token(&tokenizer, &held_out, 8 << 20)?;
    println!("{:<14}{:.3} bytes per token, over {}", "held out", fit.ratio(), human::bytes(fit.bytes));
    describe(&tokenizer)?;
    println!("written to {}", out.display());
    Ok(())
}

fn find(context: &Context, given: &str) -> Outcome<Tokenizer> {
    let path = Path::new(given);
    if path.exists() {
        return Tokenizer::load(path).map_err(bad_input);
    }
    let Ok(model) = given.parse::<ModelRef>() else {
        return Err(bad_input(anyhow!("{given} is no file and no model's name")));
    };
    let registry = Registry::open(&context.home)?;
    let id = registry.resolve(&model).map_err(bad_input)?;
    Tokenizer::load(&registry.folder(&id)).map_err(bad_input)
}

fn samples(tokenizer: &Tokenizer) -> anyhow::Result<[(&'static str, BytesPerToken); 3]> {
    let measure = |text: &str| bytes_per_token(tokenizer, [text], u64::MAX);
    Ok([("English", measure(ENGLISH)?), ("Chinese", measure(CHINESE)?), ("code", measure(CODE)?)])
}

fn describe(tokenizer: &Tokenizer) -> Outcome {
    for (name, fit) in samples(tokenizer)? {
        println!("{name:<14}{:.3} bytes per token", fit.ratio());
    }
    Ok(())
}

fn show(tokenizer: &Tokenizer, json: bool) -> Outcome {
    let end = tokenizer.id_to_token(tokenizer.end_of_text()).unwrap_or_default();
    if json {
        let fits: serde_json::Map<_, _> =
            samples(tokenizer)?.into_iter().map(|(name, fit)| (name.to_lowercase(), fit.ratio().into())).collect();
        return views::print_json(&serde_json::json!({
            "vocabulary": tokenizer.vocab_size(), "end_of_text": end, "hash": tokenizer.hash(), "bytes_per_token": fits,
        }));
    }
    println!("{:<14}{}", "vocabulary", human::thousands(tokenizer.vocab_size() as u64));
    println!("{:<14}{end}", "end of text");
    println!("{:<14}{}", "hash", tokenizer.hash());
    describe(tokenizer)
}

fn encode(tokenizer: &Tokenizer, text: &str, json: bool) -> Outcome {
    let ids = tokenizer.encode(text)?;
    if json {
        println!("{}", serde_json::to_string(&ids)?);
        return Ok(());
    }
    for id in &ids {
        println!("{id:>7}  {}", tokenizer.id_to_token(*id).unwrap_or_default());
    }
    println!("{} tokens, {:.3} bytes each", ids.len(), text.len() as f64 / ids.len().max(1) as f64);
    Ok(())
}
