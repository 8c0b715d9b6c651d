//! Text, tokenizer, tokens, plan, and the model that everything after starts from.

use anyhow::{Context as _, Result};
use danlu_data::corpus::Corpus;
use danlu_lab::refusal;
use danlu_registry::{ModelId, Registry};
use danlu_train::Recipe;

use super::{DEFAULT, Life, Until, detail};
use crate::exit::{Outcome, bad_input, does_not_fit};
use crate::human;
use crate::life::kinds::{Kind as _, Prepared, Pretrain};
use crate::life::{corpora, prepare, run};
use crate::verbs::plan::describe;
use crate::verbs::{Context, train};
use crate::views::progress::Lines;

/// Tokens that a model reads at once if it is to hold conversations afterwards: in half of them hardly a pair of answers fits. Documents in one
/// row do not see each other, so longer rows cost little.
const TALKING: usize = 512;

/// The corpus. When the default cannot be fetched, the sources that cargo keeps take its place.
pub fn text(context: &Context, source: &str, recipe: &Recipe) -> Outcome<Corpus> {
    let mut progress = Lines::new();
    let mut get = |source: &str| {
        let wanted = corpora::Wanted { source, held_out: recipe.data.held_out, seed: recipe.seed };
        corpora::corpus(&context.home, &wanted, &mut progress)
    };
    let corpus = match get(source) {
        Err(error) if source == DEFAULT => {
            detail(&format!("{DEFAULT} cannot be had: {}", error.root_cause()));
            detail("the sources that cargo keeps on this machine (crates) are used instead");
            get("crates").map_err(bad_input)?
        }
        other => other.map_err(bad_input)?,
    };
    let manifest = &corpus.manifest;
    detail(&format!(
        "{}: {} documents, {} ({} held out)",
        manifest.name,
        human::thousands(manifest.train.documents + manifest.held_out.documents),
        human::bytes(manifest.train.bytes + manifest.held_out.bytes),
        human::bytes(manifest.held_out.bytes)
    ));
    Ok(corpus)
}

/// The pretrained model: the one that is there, or what comes of its run.
pub fn model(life: &Life, mut recipe: Recipe, corpus: Corpus) -> Outcome<ModelId> {
    recipe.data.sources = vec![corpus.manifest.name.clone()];
    recipe.name.clone_from(&life.run);
    if let Some(id) = finished(life, &corpus)? {
        life.stage(5, "pretraining");
        detail(&format!("{id} is there already; --fresh trains anew, --minutes longer"));
        return Ok(id);
    }
    let prepared = prepared(life, &mut recipe, corpus)?;
    life.stage(5, "pretraining");
    let done = train::execute(life.context, &prepared, life.args.view, &life.again())?;
    life.made.set(true);
    train::report(&done);
    Ok(done.model.context("the run ended without a model")?)
}

/// The model of a finished run with the same text and budget.
fn finished(life: &Life, corpus: &Corpus) -> Outcome<Option<ModelId>> {
    let home = &life.context.home;
    let Some(record) = run::record(home, &life.run) else { return Ok(None) };
    if !record.data.iter().any(|data| data.manifest_hash == corpus.manifest.hash) {
        // What a run was begun with has gone; its model, if it has one, is in the registry.
        life.forget(&life.run)?;
        return Ok(None);
    }
    let registry = Registry::open(home)?;
    Ok(record.model.filter(|id| registry.folder(id).exists()))
}

/// The run with everything in place: reopened when it was begun before, else planned and begun.
fn prepared(life: &Life, recipe: &mut Recipe, corpus: Corpus) -> Outcome<Prepared> {
    let home = &life.context.home;
    let mut progress = Lines::new();
    if run::record(home, &recipe.name).is_some() {
        life.stage(2, "tokenizer, tokens and plan: as they were");
        return run::reopen(home, &recipe.name, &mut progress).map_err(bad_input);
    }
    // The vocabulary depends on the minutes asked for, so that a slow stage before does not change it.
    recipe.budget.minutes = Some(life.clock.nominal(Until::Pretrain));
    life.stage(2, "tokenizer");
    let corpora = vec![corpus];
    let tokenizer = prepare::tokenizer(home, recipe, &corpora, &mut progress)?;
    progress.finish();
    life.stage(3, "tokens");
    let sets = prepare::tokens(&corpora, &tokenizer, &mut progress)?;
    progress.finish();
    let (tokens, bytes) = sets.iter().fold((0, 0), |(t, b), set| (t + set.train.len(), b + set.train.bytes()));
    detail(&format!(
        "{} tokens of {:.2} bytes to train on, vocabulary {}",
        human::count(tokens as f64),
        bytes as f64 / tokens.max(1) as f64,
        human::thousands(tokenizer.vocab_size() as u64)
    ));
    life.stage(4, "plan");
    let _ = danlu_ops::gemm_rate();
    recipe.budget.minutes = Some(life.clock.minutes(Until::Pretrain));
    let plan =
        |recipe: &Recipe| -> Result<Pretrain> { Pretrain::planned(recipe, corpora.clone(), tokenizer.clone(), sets.clone()) };
    let mut planned = plan(recipe).map_err(bad_input)?;
    if life.until > Until::Pretrain && planned.plan().row_len < TALKING {
        recipe.model.context = Some(TALKING);
        planned = plan(recipe).map_err(bad_input)?;
    }
    let prepared = Prepared::Pretrain(Box::new(planned));
    let (prediction, machine) = run::prediction(home, &prepared);
    print!("{}", describe(prepared.plan(), &prediction, &machine));
    if let Some(advice) = refusal(&prediction, prepared.plan(), recipe, &machine) {
        return Err(does_not_fit(anyhow::anyhow!(advice)));
    }
    run::begin(home, &prepared, Some(life.args.minutes), &life.model)?;
    Ok(prepared)
}
