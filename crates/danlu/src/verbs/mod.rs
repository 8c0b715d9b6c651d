//! One file for each verb: its arguments, and what it does with the crates below.

pub mod chat;
pub mod classify;
pub mod compare;
pub mod data;
pub mod doctor;
pub mod embed;
pub mod eval;
pub mod generate;
pub mod models;
pub mod plan;
pub mod reference;
pub mod sample;
pub mod serve;
pub mod tokenizer;
pub mod train;
pub mod translate;
pub mod up;

use std::path::PathBuf;

use crate::cli::{Cli, Verb};
use crate::exit::{Outcome, bad_input};
use crate::life::device;

/// What every verb is given.
pub struct Context {
    /// The folder everything is kept in.
    pub home: PathBuf,
}

pub fn run(cli: Cli) -> Outcome {
    if let Some(threads) = cli.threads {
        danlu_ops::set_threads(threads.max(1));
    }
    device::choose(cli.device.as_deref()).map_err(bad_input)?;
    let context = Context { home: danlu_files::home()? };
    match cli.verb {
        Verb::Up(args) => up::run(&context, args),
        Verb::Data(args) => data::run(&context, args),
        Verb::Tokenizer(args) => tokenizer::run(&context, args),
        Verb::Plan(args) => plan::run(&context, args),
        Verb::Train(args) => train::run(&context, args),
        Verb::Eval(args) => eval::run(&context, args),
        Verb::Models(args) => models::run(&context, args),
        Verb::Compare(args) => compare::run(&context, args),
        Verb::Classify(args) => classify::run(&context, args),
        Verb::Embed(args) => embed::run(&context, args),
        Verb::Generate(args) => generate::run(&context, args),
        Verb::Sample(args) => sample::run(&context, args),
        Verb::Translate(args) => translate::run(&context, args),
        Verb::Chat(args) => chat::run(&context, args),
        Verb::Serve(args) => serve::run(&context, args),
        Verb::Doctor(args) => doctor::run(&context, args),
        Verb::Help(args) => reference::run(args),
    }
}
