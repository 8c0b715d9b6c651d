//! One file for each verb: its arguments, and what it does with the crates below.

pub mod chat;
pub mod data;
pub mod doctor;
pub mod eval;
pub mod generate;
pub mod models;
pub mod plan;
pub mod reference;
pub mod serve;
pub mod tokenizer;
pub mod train;
pub mod up;

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use danlu_registry::{ModelRef, Registry};

use crate::cli::{Cli, Verb};
use crate::exit::{Outcome, bad_input};

/// What every verb is given.
pub struct Context {
    /// The folder everything is kept in.
    pub home: PathBuf,
}

pub fn run(cli: Cli) -> Outcome {
    if let Some(threads) = cli.threads {
        danlu_ops::set_threads(threads.max(1));
    }
    let context = Context { home: danlu_files::home()? };
    match cli.verb {
        Verb::Up(args) => up::run(&context, args),
        Verb::Data(args) => data::run(&context, args),
        Verb::Tokenizer(args) => tokenizer::run(&context, args),
        Verb::Plan(args) => plan::run(&context, args),
        Verb::Train(args) => train::run(&context, args),
        Verb::Eval(args) => eval::run(&context, args),
        Verb::Models(args) => models::run(&context, args),
        Verb::Generate(args) => generate::run(&context, args),
        Verb::Chat(args) => chat::run(&context, args),
        Verb::Serve(args) => serve::run(&context, args),
        Verb::Doctor(args) => doctor::run(&context, args),
        Verb::Help(args) => reference::run(args),
    }
}

/// Where a model is, and what it is called.
pub struct Located {
    pub folder: PathBuf,
    /// The registry's name, or the folder's.
    pub name: String,
    /// `name@version`, when it is registered.
    pub full_name: Option<String>,
}

/// A registered model, or a folder.
pub fn locate(context: &Context, model: &str) -> Outcome<Located> {
    let path = Path::new(model);
    if path.is_dir() {
        let name = path.canonicalize()?.file_name().map_or_else(|| model.to_owned(), |name| name.to_string_lossy().into_owned());
        return Ok(Located { folder: path.to_path_buf(), name, full_name: None });
    }
    let wanted: ModelRef = model.parse().map_err(|e| bad_input(anyhow!("{model} is no folder, and as a name: {e}")))?;
    let registry = Registry::open(&context.home)?;
    let id = registry.resolve(&wanted).map_err(bad_input)?;
    Ok(Located { folder: registry.folder(&id), name: model.to_owned(), full_name: Some(id.to_string()) })
}
