//! The whole life in one command: text, tokenizer, pretraining, instruction tuning, alignment, the family measured on the same items, and a
//! page to talk with it on. Each training is a run of its own, which is reopened where it was; a model that is there is not made again.

mod clock;
mod family;
mod pretrain;
mod taught;

use std::cell::Cell;
use std::fs;
use std::path::Path;

use danlu_data::{Progress, catalogue};
use danlu_train::Recipe;

use super::Context;
use crate::exit::{Exit, Outcome, bad_input};
use crate::life::kinds::sft::conversations;
use crate::life::run;
use crate::views::progress::Lines;
use crate::views::run::Kind;
use crate::{human, interrupt, views};
use clock::Clock;
use taught::{ALIGNED, CHAT, Lesson};

/// Make a model in one command: text, tokenizer, pretraining, tuning on conversations, alignment by preferences, measuring, and a page to talk with it on.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  danlu up\n  danlu up --data ~/texts --minutes 20\n  danlu up --data crates --until pretrain --no-prompt\n  danlu up --talks talks.jsonl --until tune\n\nRun it again to go on where it was: finished stages are not repeated, and a finished life goes straight to the page."
)]
pub struct Args {
    /// The text: a file, folder or glob, a corpus, an entry of the catalogue, or `crates` (the sources cargo keeps).
    #[arg(long, default_value = DEFAULT)]
    data: String,
    /// How long the whole may take, once the text is there.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// The last stage; where it is an earlier one, those that remain have all of the time.
    #[arg(long, value_enum, default_value_t = Until::Align)]
    until: Until,
    /// The conversations it learns to answer from: a file, folder or glob, or an entry of the catalogue; without it, those of the catalogue in
    /// the text's language.
    #[arg(long, value_name = "SOURCE")]
    talks: Option<String>,
    /// The pairs of a better and a worse answer it is aligned by, in the same way.
    #[arg(long, value_name = "SOURCE")]
    pairs: Option<String>,
    /// Train anew, though there are models or unfinished runs.
    #[arg(long)]
    fresh: bool,
    /// End after a sample instead of serving the page to talk on.
    #[arg(long)]
    no_prompt: bool,
    /// How the course of the training is shown.
    #[arg(long, value_enum, default_value_t = Kind::Auto)]
    view: Kind,
}

/// A stage that makes a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Until {
    /// It goes on with texts.
    Pretrain,
    /// It answers.
    Tune,
    /// It answers as people prefer.
    Align,
}

const DEFAULT: &str = "wiki-leads";
const RECIPE: &str = include_str!("../../../../../recipes/up.toml");

/// What all stages are given.
struct Life<'a> {
    context: &'a Context,
    args: &'a Args,
    /// The last stage, which is an earlier one than asked for where there is nothing to learn from.
    until: Until,
    clock: Clock,
    /// The pretrained model's name, from which those of its children are made.
    model: String,
    /// Its run's.
    run: String,
    /// Whether this call made a model.
    made: Cell<bool>,
}

pub fn run(context: &Context, args: Args) -> Outcome {
    if !(args.minutes.is_finite() && args.minutes > 0.0) {
        return Err(bad_input(anyhow::anyhow!("--minutes must be a positive number")));
    }
    interrupt::install()?;
    let recipe = Recipe::from_toml(RECIPE, "recipes/up.toml", &[])?;
    let mut life = Life::new(context, &args, args.until);
    life.stage(1, "text");
    let corpus = pretrain::text(context, &args.data, &recipe)?;
    let (lessons, until) = lessons(context, &args)?;
    if corpus.manifest.name != DEFAULT {
        life.model = format!("up-{}", corpus.manifest.name);
    }
    life.run = format!("{}-{}m", life.model, args.minutes);
    (life.until, life.clock) = (until, Clock::start(args.minutes, until));
    if args.fresh {
        life.forget(&life.run)?;
        lessons.iter().try_for_each(|lesson| life.forget(&lesson.run(&life)))?;
    }

    let mut family = vec![pretrain::model(&life, recipe, corpus)?];
    for lesson in &lessons {
        match taught::model(&life, lesson, &family[family.len() - 1])? {
            Some(id) => family.push(id),
            None => break,
        }
    }
    let taught = &lessons[..family.len() - 1];
    if let Some(last) = taught.last() {
        life.stage(life.stages(), "evaluation");
        family::measure(&life, &family, &last.run(&life))?;
    }
    if life.made.get() {
        println!("the whole took {} since the text was there", human::duration(life.clock.elapsed()));
    }
    if interrupt::requested() {
        eprintln!("all is trained; talk with the last model by: {}", life.again());
        return Err(Exit::interrupted());
    }
    family::try_it(&life, &family)
}

impl<'a> Life<'a> {
    fn new(context: &'a Context, args: &'a Args, until: Until) -> Self {
        let model = "up".to_string();
        Self { context, args, until, clock: Clock::start(args.minutes, until), run: String::new(), model, made: Cell::new(false) }
    }

    fn stages(&self) -> usize {
        match self.until {
            Until::Pretrain => 5,
            Until::Tune => 7,
            Until::Align => 8,
        }
    }

    fn stage(&self, number: usize, name: &str) {
        println!("{}", views::bold(&format!("[{number}/{}] {name}", self.stages())));
    }

    /// Removes a run. A model that it made stays in the registry.
    fn forget(&self, run: &str) -> Outcome {
        let folder = run::folder(&self.context.home, run);
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        Ok(())
    }

    /// The command line that goes on with this.
    fn again(&self) -> String {
        let mut command = "danlu up".to_string();
        let args = self.args;
        let mut add = |option: &str, value: Option<&str>| {
            command.extend(value.map(|value| format!(" --{option} {value:?}")));
        };
        add("data", Some(args.data.as_str()).filter(|data| *data != DEFAULT));
        add("talks", args.talks.as_deref());
        add("pairs", args.pairs.as_deref());
        if args.minutes != 5.0 {
            command.push_str(&format!(" --minutes {}", args.minutes));
        }
        match args.until {
            Until::Pretrain => command.push_str(" --until pretrain"),
            Until::Tune => command.push_str(" --until tune"),
            Until::Align => {}
        }
        command
    }
}

fn detail(text: &str) {
    println!("  {text}");
}

/// What the pretrained model learns from afterwards, and where the whole ends: what the catalogue has but cannot be fetched ends it earlier, and
/// what was asked for by name and is not there is an error.
fn lessons(context: &Context, args: &Args) -> Outcome<(Vec<Lesson>, Until)> {
    let mut progress = Lines::new();
    let (mut lessons, mut until) = (vec![], Until::Pretrain);
    let language = language(&args.data)?;
    for (kind, given, usual) in [(&CHAT, &args.talks, "alpaca"), (&ALIGNED, &args.pairs, "dpo")] {
        if kind.stage > args.until {
            break;
        }
        let source = given.clone().unwrap_or_else(|| format!("{usual}-{language}"));
        match fetched(context, kind, &source, &mut progress) {
            Ok(source) => lessons.push(Lesson { kind, source, given: given.is_some() }),
            Err(error) if given.is_some() => return Err(bad_input(error)),
            Err(error) => {
                progress.finish();
                detail(&format!("{source} cannot be had: {}", error.root_cause()));
                detail(&format!("so there is no {}: {}", kind.title, kind.without));
                break;
            }
        }
        until = kind.stage;
    }
    progress.finish();
    Ok((lessons, until))
}

/// The source, once it is on this machine and can be read; a path in full, so that the run can be reopened from anywhere.
fn fetched(context: &Context, kind: &taught::Kind, source: &str, progress: &mut dyn Progress) -> anyhow::Result<String> {
    let is_path = Path::new(source).exists() || source.contains(['*', '/']);
    let source = if is_path { std::path::absolute(source)?.display().to_string() } else { source.to_owned() };
    let found = (kind.read)(&[conversations(&context.home, &source, progress)?])?;
    progress.note(&format!("{source}: {found}"));
    Ok(source)
}

/// Of the catalogue's conversations those that fit the text: in Chinese for an entry in Chinese, else in English.
fn language(data: &str) -> Outcome<&'static str> {
    let chinese = catalogue::entries()?.into_iter().any(|entry| entry.name == data && entry.language == "zh");
    Ok(if chinese { "zh" } else { "en" })
}
