use clap::{Parser, Subcommand};

use crate::verbs::{
    chat, classify, compare, data, doctor, embed, eval, generate, models, plan, reference, sample, serve, tokenizer, train,
    translate, up,
};

const AFTER: &str = "\
Start with:
  danlu up                       Make a model from English Wikipedia in about 5 minutes, and chat with it.
  danlu up --data ~/texts        The same from your own text.

Everything is kept in ~/.danlu, or in the folder that DANLU_HOME names.

Exit codes:
  0    It was done.
  1    It failed, for a reason the message gives.
  2    The command line is wrong.
  3    Something given is wrong: a recipe, a file, a name.
  4    It does not fit: the plan needs more memory or disk than there is.
  130  You stopped it with Ctrl-C; what was done is saved, and the last line says how to go on.";

/// The whole life of a large model in one program: gather text, train a tokenizer and a model, measure it, keep it, and try it.
#[derive(Debug, Parser)]
#[command(name = "danlu", version, after_help = AFTER, max_term_width = 110, disable_help_subcommand = true, infer_subcommands = false)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,

    /// Use this many threads instead of one for each core.
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<usize>,

    /// Where models compute: auto (a graphics card that this program was built for, else the CPU), cpu, cuda, vulkan, cuda:1 …
    /// Without it, what DANLU_DEVICE says, else auto.
    #[arg(long, global = true, value_name = "DEVICE")]
    pub device: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    Up(up::Args),
    Data(data::Args),
    Tokenizer(tokenizer::Args),
    Plan(plan::Args),
    Train(train::Args),
    Eval(eval::Args),
    Models(models::Args),
    Compare(compare::Args),
    Classify(classify::Args),
    Embed(embed::Args),
    Generate(generate::Args),
    Sample(sample::Args),
    Translate(translate::Args),
    Chat(chat::Args),
    Serve(serve::Args),
    Doctor(doctor::Args),
    Help(reference::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    /// Help is for people: every verb and every option says what it does (clap takes the full stop off), and every verb shows an example.
    #[test]
    fn every_option_is_explained_and_every_verb_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(about.contains(' '), "{path}: {about:?} is not a sentence");
            if !command.has_subcommands() && command.get_name() != "help" {
                let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(after.contains("danlu "), "{path} has no example");
            }
            for argument in command.get_arguments().filter(|a| !["help", "version"].contains(&a.get_id().as_str())) {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains(' '), "{path}: {} has no sentence: {help:?}", argument.get_id());
            }
            command.get_subcommands().for_each(|sub| check(sub, &path));
        }
        check(&Cli::command(), "");
    }
}
