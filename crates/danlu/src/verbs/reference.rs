use clap::{CommandFactory, ValueEnum};

use crate::cli::Cli;
use crate::exit::{Outcome, bad_input};

/// Explain a topic: `recipe` for every key of a recipe, or any verb.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  danlu help recipe")]
pub struct Args {
    /// The topic, or the verb.
    topic: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Topic {
    Recipe,
}

const RECIPE: &str = "\
A recipe says everything that decides what a run makes. A short one is complete:

  name = \"mine\"
  [data]
  sources = [\"wiki-leads\", \"~/texts/**/*.md\"]
  [budget]
  minutes = 30

`danlu plan mine.toml` says what it would make and take, `danlu train mine.toml` does it, and
`--set key=value` changes any key for one run, such as --set model.layers=8.
";

pub fn run(args: Args) -> Outcome {
    let mut command = Cli::command();
    let Some(topic) = args.topic else {
        command.print_long_help()?;
        return Ok(());
    };
    if Topic::from_str(&topic, true).is_ok() {
        println!("{RECIPE}\n{}", danlu_train::Recipe::reference());
        return Ok(());
    }
    command.build();
    match command.find_subcommand_mut(&topic) {
        Some(verb) => Ok(verb.print_long_help()?),
        None => Err(bad_input(anyhow::anyhow!(
            "there is no help about {topic:?}; `danlu help recipe` explains recipes, `danlu --help` lists the verbs"
        ))),
    }
}
