use std::io::{BufRead, IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use danlu_data::tokenizer::Tokenizer;
use danlu_engine::{Finish, Generator, Reason, Sampling};
use danlu_ops::KvFormat;
use danlu_registry::{ModelRef, Registry};

use super::Context;
use crate::exit::{Exit, Outcome, bad_input};
use crate::life::pictures::draw;
use crate::{interrupt, views};

/// Let a model go on with a text: one prompt, or one after another. A model that draws fills a sheet with pictures.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  danlu generate up --prompt \"The city of\"\n  danlu generate up --interactive\n  echo \"The river\" | danlu generate up --max-tokens 50 --seed 7\n  danlu generate gan --out pictures.png"
)]
pub struct Args {
    /// The model, as NAME or NAME@VERSION, or a folder that transformers could load.
    pub model: String,
    /// The text to go on with; without it, the standard input.
    #[arg(long, short)]
    pub prompt: Option<String>,
    /// Ask for prompts one after another until you leave with Ctrl-D.
    #[arg(long, short)]
    pub interactive: bool,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Keep keys and values of the text as 32-bit floats or as halves, which take half the memory; without it, models in blocks keep halves.
    #[arg(long, value_name = "f32|f16")]
    pub kv: Option<KvFormat>,
    /// Print one JSON object with the text and the numbers, instead of streaming.
    #[arg(long, conflicts_with = "interactive")]
    pub json: bool,
    /// Draw pictures into this PNG file; for models that draw.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "interactive", "json"])]
    pub out: Option<PathBuf>,
    /// How many pictures to draw.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub pictures: u16,
}

#[derive(Debug, Clone, clap::Args)]
pub struct SamplingArgs {
    /// Write at most this many tokens.
    #[arg(long, default_value_t = 200)]
    pub max_tokens: usize,
    /// How daring it is: 0 always takes the likeliest token, 1 the model's own probabilities.
    #[arg(long, default_value_t = 0.8)]
    pub temperature: f32,
    /// Choose only among this many likeliest tokens; 0 for all.
    #[arg(long, default_value_t = 0)]
    pub top_k: usize,
    /// Choose only among the likeliest tokens that together have this probability.
    #[arg(long, default_value_t = 0.95)]
    pub top_p: f32,
    /// Choose only among tokens at least this likely, as a share of the likeliest one's probability.
    #[arg(long, default_value_t = 0.0)]
    pub min_p: f32,
    /// Make tokens already written less likely by this factor; 1 changes nothing.
    #[arg(long, default_value_t = 1.1)]
    pub repetition: f32,
    /// The same seed writes the same text; without one, each time another.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Stop before this text; can be given several times.
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
}

impl Default for SamplingArgs {
    fn default() -> Self {
        Self { max_tokens: 200, temperature: 0.8, top_k: 0, top_p: 0.95, min_p: 0.0, repetition: 1.1, seed: None, stop: vec![] }
    }
}

pub fn run(context: &Context, args: Args) -> Outcome {
    // A folder that cannot be read says so where it is opened.
    let found = folder(context, &args.model)?;
    let draws = danlu_models::folder::is_gan(&found).unwrap_or(false);
    match (&args.out, draws) {
        (Some(out), true) => {
            let png = draw(&found, args.sampling.seed.unwrap_or_else(fresh_seed), args.pictures.into()).map_err(bad_input)?;
            danlu_files::write_atomic_bytes(out, &png)?;
            println!("{} pictures in {}", args.pictures, out.display());
            return Ok(());
        }
        (None, true) => return Err(bad_input(anyhow!("{} draws pictures; say where to with --out FILE.png", args.model))),
        (Some(_), false) => {
            return Err(bad_input(anyhow!("--out is for models that draw pictures, and {} draws none", args.model)));
        }
        (None, false) => {}
    }
    let generator = open(context, &args.model)?;
    let generator = match args.kv {
        Some(format) => generator.with_kv(format),
        None => generator,
    };
    interrupt::install()?;
    if args.interactive {
        return prompt(&generator, &args.sampling);
    }
    let text = match &args.prompt {
        Some(text) => text.clone(),
        None if std::io::stdin().is_terminal() => return prompt(&generator, &args.sampling),
        None => read_input()?,
    };
    if args.json {
        return json(&generator, &text, &args.sampling);
    }
    print!("{}", views::bold(&text));
    stream(&generator, &text, &args.sampling)?;
    if interrupt::requested() { Err(Exit::interrupted()) } else { Ok(()) }
}

/// The folder of a registered model, or the folder that is named.
pub fn folder(context: &Context, model: &str) -> Outcome<PathBuf> {
    let path = Path::new(model);
    if path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let wanted: ModelRef = model.parse().map_err(|e| bad_input(anyhow!("{model} is no folder, and as a name: {e}")))?;
    let registry = Registry::open(&context.home)?;
    let id = registry.resolve(&wanted).map_err(bad_input)?;
    Ok(registry.folder(&id))
}

/// A registered model, or a folder.
pub fn open(context: &Context, model: &str) -> Outcome<Generator> {
    let folder = folder(context, model)?;
    let (decoder, config) = danlu_models::folder::load_to_run(&folder, &danlu_ops::device()).map_err(bad_input)?;
    let tokenizer = Tokenizer::load(&folder).map_err(bad_input)?;
    Ok(Generator::new(decoder, tokenizer).with_config(&config))
}

fn read_input() -> Result<String> {
    /// A prompt is text for a context of thousands of tokens; more than this is a mistake.
    const LIMIT: u64 = 16 << 20;
    let mut text = String::new();
    std::io::stdin().lock().take(LIMIT).read_to_string(&mut text).context("the standard input is not text")?;
    Ok(text.trim_end_matches('\n').to_string())
}

pub fn sampling(args: &SamplingArgs) -> Sampling {
    Sampling {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repetition_penalty: args.repetition,
        seed: args.seed.unwrap_or_else(fresh_seed),
        stop: args.stop.clone(),
        max_tokens: args.max_tokens,
        ..Sampling::default()
    }
}

fn fresh_seed() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

/// Writes the text as it comes, then how fast it came.
pub fn stream(generator: &Generator, prompt: &str, args: &SamplingArgs) -> Result<()> {
    end(&generator.generate(prompt, &sampling(args), write)?);
    Ok(())
}

/// Prints a piece of a text, unless somebody has had enough of it: by Ctrl-C, or by closing the pipe.
pub fn write(piece: &str) -> ControlFlow<()> {
    let mut out = std::io::stdout();
    if interrupt::requested() || write!(out, "{piece}").and_then(|()| out.flush()).is_err() {
        return ControlFlow::Break(());
    }
    ControlFlow::Continue(())
}

/// Ends a text that was printed: how fast it went, and why it ended.
pub fn end(finish: &Finish) {
    println!();
    if !std::io::stderr().is_terminal() {
        return;
    }
    let why = match &finish.reason {
        Reason::EndOfText => "the model ended the text",
        Reason::StopString(_) => "a stop string came up",
        Reason::MaxTokens => "as many tokens as asked for",
        Reason::Context => "the model's context is full",
        Reason::Cancelled => "stopped",
    };
    eprintln!("{}", views::dim(&format!("{} tokens, {:.0} tokens/s, {why}", finish.tokens, finish.tokens_per_second)));
}

fn json(generator: &Generator, prompt: &str, args: &SamplingArgs) -> Outcome {
    let sampling = sampling(args);
    let mut text = String::new();
    let finish = generator.generate(prompt, &sampling, |piece| {
        text.push_str(piece);
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    views::print_json(&serde_json::json!({
        "prompt": prompt, "text": text, "tokens": finish.tokens, "prompt_tokens": finish.prompt_tokens,
        "prompt_seconds": finish.prompt_seconds, "finish": format!("{:?}", finish.reason), "seed": sampling.seed, "seconds": finish.seconds,
        "tokens_per_second": finish.tokens_per_second,
    }))
}

/// Asks for a text, goes on with it, asks again. Ctrl-C stops the text being written, Ctrl-D leaves.
pub fn prompt(generator: &Generator, args: &SamplingArgs) -> Outcome {
    println!("{}", views::dim("Write the beginning of a text; the model goes on with it. Ctrl-C stops it, Ctrl-D leaves."));
    each_line(|text| {
        if text.is_empty() {
            return;
        }
        print!("{text}");
        if let Err(error) = stream(generator, text, args) {
            views::error(&error);
        }
    })
}

/// Asks for a line at a time and gives it to `take`, until Ctrl-D. A Ctrl-C is for what `take` does with one line alone.
pub fn each_line(mut take: impl FnMut(&str)) -> Outcome {
    let mut line = String::new();
    loop {
        print!("{} ", views::bold(">"));
        std::io::stdout().flush()?;
        line.clear();
        if std::io::stdin().lock().read_line(&mut line)? == 0 {
            println!();
            return Ok(());
        }
        interrupt::clear();
        take(line.trim_end_matches(['\r', '\n']));
        interrupt::clear();
    }
}
