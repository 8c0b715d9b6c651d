use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use danlu_data::chat::Message;
use danlu_data::prompts::{self, Prompt};
use danlu_engine::{Rollout, Sampling};
use danlu_rewards::RewardsSpec;
use danlu_train::objectives::rl::{Drawn, Judge, Question};
use danlu_train::recipe::PromptForm;
use serde_json::{Value, json};

use super::Context;
use super::generate::folder;
use crate::exit::{Exit, Outcome, bad_input};
use crate::life::kinds::rl::Reader;
use crate::life::kinds::sft::conversations;
use crate::life::{prepare, scorer};
use crate::views::progress::Lines;
use crate::{interrupt, views};

/// Questions that are answered together; after each such batch the program can be stopped.
const BATCH: usize = 64;

/// Answer many questions several times each, and keep the answers that a reward accepts: best of n, rejection sampling.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The file has a conversation a line, which instruction tuning reads: danlu train recipes/sft.toml --set 'data.sources=[\"right.jsonl\"]'.\n\nExamples:\n  danlu sample sums arithmetic-2 --reward arithmetic --best-of 8 --least 1 --out right.jsonl\n  danlu sample smollm2 questions.jsonl --reward 'regex=#### {answer}$' --reward length --keep all --out answers.jsonl"
)]
pub struct Args {
    /// The model, as NAME or NAME@VERSION, or a folder that transformers could load.
    model: String,
    /// Questions: a file of JSON lines (prompt, and answer, tests or schema), or an entry of the catalogue.
    questions: String,
    /// What answers are worth: exact, arithmetic, regex=PATTERN, format=PATTERN, schema=FILE, code, length, model=MODEL (a reward model); can be
    /// given several times. Or a recipe, whose `[rewards]` are used.
    #[arg(long, required = true, value_name = "RULE")]
    reward: Vec<String>,
    /// Answers to each question.
    #[arg(long, default_value_t = 8, value_name = "N")]
    best_of: usize,
    /// Only answers that are worth at least this.
    #[arg(long, value_name = "REWARD", allow_negative_numbers = true)]
    least: Option<f64>,
    /// The best answer to a question, or all different ones that are good enough.
    #[arg(long, value_enum, default_value_t = Keep::Best)]
    keep: Keep,
    /// Where the answers are written, a conversation a line.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Only this many of the questions, evenly taken.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// The most tokens of an answer.
    #[arg(long, default_value_t = 256)]
    max_tokens: usize,
    /// How daring it is: 0 always takes the likeliest token, 1 the model's own probabilities.
    #[arg(long, default_value_t = 1.0)]
    temperature: f32,
    /// Choose only among the likeliest tokens that together have this probability.
    #[arg(long, default_value_t = 1.0)]
    top_p: f32,
    /// The same seed draws the same answers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Keep {
    /// The best.
    Best,
    /// All that differ.
    All,
}

pub fn run(context: &Context, args: Args) -> Outcome {
    let mut spec = rules(&args.reward).map_err(bad_input)?;
    if let Some(model) = &mut spec.model {
        model.from = prepare::model_folder(&context.home, &model.from).map_err(bad_input)?.display().to_string();
    }
    let source = conversations(&context.home, &args.questions, &mut Lines::new()).map_err(bad_input)?;
    let mut found = prompts::read(&[source]).map_err(bad_input)?.records;
    if let Some(limit) = args.limit {
        let every = found.len().div_ceil(limit.max(1)).max(1);
        found = found.into_iter().step_by(every).collect();
    }
    let folder = folder(context, &args.model)?;
    let (decoder, config) = danlu_models::folder::load(&folder, &danlu_ops::device()).map_err(bad_input)?;
    let reader = Reader::new(&folder, PromptForm::Auto, &config).map_err(bad_input)?;
    let scorer = scorer::open(&mut spec, &reader).map_err(bad_input)?;
    let (tokenizer, ends) = (reader.tokenizer().clone(), reader.ends(&config));
    let judge = Judge::new(&spec, args.max_tokens, tokenizer, ends, scorer).map_err(bad_input)?;
    let rollout = Rollout {
        samples: args.best_of,
        max_tokens: args.max_tokens,
        sampling: Sampling { temperature: args.temperature, top_p: args.top_p, ..Rollout::default().sampling },
        seed: args.seed,
        ..Rollout::default()
    };
    let questions = found.iter().map(|one| reader.question(one)).collect::<Result<Vec<Question>>>().map_err(bad_input)?;
    questions.iter().try_for_each(|one| judge.accepts(one)).map_err(bad_input)?;

    interrupt::install()?;
    let mut tally = Tally::default();
    let mut lines = vec![];
    for begin in (0..found.len()).step_by(BATCH) {
        if interrupt::requested() {
            return Err(Exit::interrupted());
        }
        let batch = begin..(begin + BATCH).min(found.len());
        let asked: Vec<(u64, &Question)> = batch.clone().map(|i| (i as u64, &questions[i])).collect();
        let drawn = judge.answers(&decoder, &asked, &rollout).map_err(bad_input)?;
        for (i, answers) in batch.zip(drawn.chunks(args.best_of.max(1))) {
            let kept = kept(&judge, answers, &args)?;
            tally.add(answers, &kept);
            lines.extend(kept.iter().map(|(text, reward)| record(&found[i], text, *reward).to_string()));
        }
        if !args.json {
            eprint!("\r{} of {} questions, {} answers kept", tally.questions, found.len(), tally.kept);
        }
    }
    if !args.json {
        eprintln!();
    }
    danlu_files::write_atomic_bytes(&args.out, (lines.join("\n") + "\n").as_bytes())?;
    let shown = tally.shown(&judge.names());
    if args.json {
        return views::print_json(&shown);
    }
    println!("one answer is worth {:.4} on average, the best of {} {:.4}", tally.mean(), args.best_of, tally.mean_best());
    println!("{} answers to {} of {} questions are in {}", tally.kept, tally.answered, tally.questions, args.out.display());
    Ok(())
}

/// The rules that `--reward` names.
///
/// # Errors
/// When there is no such rule, or no such recipe.
pub fn rules(given: &[String]) -> Result<RewardsSpec> {
    let mut table = toml::Table::new();
    for one in given {
        if Path::new(one).extension().is_some_and(|extension| extension == "toml") {
            let text = danlu_files::read_text_bounded(Path::new(one), 1 << 20).context("a recipe could not be read")?;
            let recipe: toml::Table = toml::from_str(&text).map_err(|error| anyhow!("{one}: {}", error.message()))?;
            let rewards = recipe.get("rewards").and_then(toml::Value::as_table);
            table.extend(rewards.with_context(|| format!("{one} has no [rewards]"))?.clone());
            continue;
        }
        let (name, value) = one.split_once('=').map_or((one.as_str(), None), |(name, value)| (name, Some(value)));
        let key = match name {
            "regex" | "format" => "pattern",
            "schema" => "file",
            "model" => "from",
            _ => "",
        };
        ensure!(
            value.is_none() || !key.is_empty(),
            "--reward {one}: {name} takes no value; a recipe's [rewards.{name}] has its keys"
        );
        let keys = value.map(|value| (key.to_owned(), toml::Value::from(value)));
        table.insert(name.to_owned(), toml::Table::from_iter(keys).into());
    }
    table.try_into().map_err(|error: toml::de::Error| anyhow!("--reward {}: {}", given.join(" --reward "), error.message()))
}

/// The texts that are kept of the answers to one question, with what they are worth, the best first.
fn kept(judge: &Judge, answers: &[Drawn], args: &Args) -> Result<Vec<(String, f64)>> {
    let good = answers.iter().filter(|one| args.least.is_none_or(|least| one.score.total >= least));
    let mut texts = good.map(|one| Ok((judge.text(one)?, one.score.total))).collect::<Result<Vec<_>>>()?;
    // Of equal ones the first drawn.
    texts.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut seen = std::collections::HashSet::new();
    texts.retain(|(text, _)| !text.trim().is_empty() && seen.insert(text.clone()));
    if args.keep == Keep::Best {
        texts.truncate(1);
    }
    Ok(texts)
}

fn record(prompt: &Prompt, text: &str, reward: f64) -> Value {
    let mut messages = prompt.asked.messages.clone();
    messages.push(Message::assistant(text));
    let mut record = json!({"messages": messages, "reward": reward});
    if !prompt.asked.tools.is_empty() {
        record["tools"] = prompt.asked.tools.clone().into();
    }
    record
}

/// What was drawn and kept.
#[derive(Default)]
struct Tally {
    questions: usize,
    answered: usize,
    kept: usize,
    answers: usize,
    sum: f64,
    best: f64,
    each: Vec<f64>,
}

impl Tally {
    fn add(&mut self, answers: &[Drawn], kept: &[(String, f64)]) {
        self.questions += 1;
        self.answered += usize::from(!kept.is_empty());
        self.kept += kept.len();
        self.answers += answers.len();
        self.sum += answers.iter().map(|one| one.score.total).sum::<f64>();
        self.best += answers.iter().map(|one| one.score.total).fold(f64::NEG_INFINITY, f64::max);
        self.each.resize(answers.first().map_or(0, |one| one.score.each.len()), 0.0);
        answers.iter().for_each(|one| self.each.iter_mut().zip(&one.score.each).for_each(|(sum, score)| *sum += score));
    }

    fn mean(&self) -> f64 {
        self.sum / self.answers.max(1) as f64
    }

    fn mean_best(&self) -> f64 {
        self.best / self.questions.max(1) as f64
    }

    fn shown(&self, names: &[&str]) -> Value {
        let rules: serde_json::Map<String, Value> =
            names.iter().zip(&self.each).map(|(name, sum)| (name.to_string(), json!(sum / self.answers.max(1) as f64))).collect();
        json!({
            "questions": self.questions, "answers": self.answers, "reward": self.mean(), "best": self.mean_best(), "rules": rules,
            "kept": self.kept, "questions_kept": self.answered,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_named_on_the_command_line() {
        let of = |given: &[&str]| rules(&given.iter().map(|one| one.to_string()).collect::<Vec<_>>());
        let spec = of(&["arithmetic", "regex=#### {answer}$", "length"]).unwrap();
        assert!(spec.arithmetic.is_some() && spec.length.is_some() && spec.exact.is_none());
        assert_eq!(spec.regex.unwrap().pattern, "#### {answer}$");
        for (given, part) in [("arithmetik", "arithmetik"), ("exact=3", "takes no value"), ("none.toml", "none.toml")] {
            let error = format!("{:#}", of(&[given]).unwrap_err());
            assert!(error.contains(part), "{error}");
        }
    }
}
