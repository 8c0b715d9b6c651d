//! What a pretrained model learns afterwards: to answer, from conversations, and to answer as people prefer, from pairs of answers.

use std::path::Path;

use anyhow::{Context as _, Result};
use danlu_data::source::Source;
use danlu_data::{chat, preference};
use danlu_lab::refusal;
use danlu_registry::{ModelId, Registry};
use danlu_train::Recipe;

use super::{Life, Until, detail};
use crate::exit::{Outcome, bad_input, does_not_fit};
use crate::life::kinds::Prepared;
use crate::life::{gate, prepare, run};
use crate::verbs::plan::describe;
use crate::verbs::train;
use crate::views::progress::Lines;

/// A stage that starts from the model of the one before.
pub struct Kind {
    pub stage: Until,
    number: usize,
    pub title: &'static str,
    /// What is said where there is nothing to learn from.
    pub without: &'static str,
    /// What stands after the names of run and model.
    name: &'static str,
    recipe: &'static str,
    origin: &'static str,
    /// How the family is measured on the same source.
    metric: &'static str,
    /// Reads a source, and says what it holds.
    pub read: fn(&[Source]) -> Result<String>,
}

pub static CHAT: Kind = Kind {
    stage: Until::Tune,
    number: 6,
    title: "instruction tuning",
    without: "the pretrained model is the last",
    name: "chat",
    recipe: include_str!("../../../../../recipes/up-chat.toml"),
    origin: "recipes/up-chat.toml",
    metric: "answer-bits-per-byte",
    read: |sources| Ok(chat::read(sources)?.summary()),
};

pub static ALIGNED: Kind = Kind {
    stage: Until::Align,
    number: 7,
    title: "alignment",
    without: "the tuned model is the last",
    name: "aligned",
    recipe: include_str!("../../../../../recipes/up-aligned.toml"),
    origin: "recipes/up-aligned.toml",
    metric: "preference-accuracy",
    read: |sources| Ok(preference::read(sources)?.summary()),
};

/// A stage with what it learns from.
pub struct Lesson {
    pub kind: &'static Kind,
    pub source: String,
    /// Whether the source was asked for by name: then what is wrong with it is an error.
    pub given: bool,
}

impl Lesson {
    /// Its run, which no pretraining has the name of: those end in the minutes.
    pub fn run(&self, life: &Life) -> String {
        format!("{}-{}", life.run, self.kind.name)
    }

    /// The evaluation set of its source.
    fn set(&self) -> String {
        format!("{}:{}", self.source, self.kind.metric)
    }
}

/// The model of this stage, made from `parent`: the one that is there, or what comes of its run. None when the catalogue's source has nothing
/// that a model this small can read.
pub fn model(life: &Life, lesson: &Lesson, parent: &ModelId) -> Outcome<Option<ModelId>> {
    life.stage(lesson.kind.number, lesson.kind.title);
    if let Some(id) = finished(life, lesson, parent)? {
        detail(&format!("{id} is there already"));
        return Ok(Some(id));
    }
    let Some(prepared) = prepared(life, lesson, parent)? else { return Ok(None) };
    let done = train::execute(life.context, &prepared, life.args.view, &life.again())?;
    life.made.set(true);
    train::report(&done);
    Ok(Some(done.model.context("the run ended without a model")?))
}

/// The model of a finished run that started from `parent` and learned from the same source. A run that did not is removed.
fn finished(life: &Life, lesson: &Lesson, parent: &ModelId) -> Outcome<Option<ModelId>> {
    let (home, name) = (&life.context.home, lesson.run(life));
    let folder = run::folder(home, &name);
    if !folder.exists() {
        return Ok(None);
    }
    let begun = run::record(home, &name).zip(Recipe::load(&folder.join("recipe.toml"), &[]).ok());
    let same = begun.filter(|(_, recipe)| {
        let from = recipe.model.from.as_deref().and_then(|from| prepare::registered(home, Path::new(from)));
        from.as_ref() == Some(parent) && recipe.data.sources == [lesson.source.as_str()]
    });
    let Some((record, _)) = same else {
        life.forget(&name)?;
        return Ok(None);
    };
    let registry = Registry::open(home)?;
    Ok(record.model.filter(|id| registry.folder(id).exists()))
}

/// The run with everything in place: reopened when it was begun before, else planned and begun.
fn prepared(life: &Life, lesson: &Lesson, parent: &ModelId) -> Outcome<Option<Prepared>> {
    let (home, name) = (&life.context.home, lesson.run(life));
    let mut progress = Lines::new();
    if run::record(home, &name).is_some() {
        let reopened = run::reopen(home, &name, &mut progress);
        let reopened = reopened.with_context(|| format!("the run {name} cannot go on; `danlu up --fresh` trains anew"));
        return Ok(Some(reopened.map_err(bad_input)?));
    }
    let recipe = recipe(life, lesson, parent)?;
    let prepared = match Prepared::new(home, &recipe, None, &mut progress) {
        Ok(prepared) => prepared,
        Err(error) if lesson.given => return Err(bad_input(error)),
        Err(error) => {
            progress.finish();
            detail(&format!("nothing can be learned from {}: {}", lesson.source, error.root_cause()));
            detail(lesson.kind.without);
            return Ok(None);
        }
    };
    progress.finish();
    let (prediction, machine) = run::prediction(home, &prepared);
    print!("{}", describe(prepared.plan(), &prediction, &machine));
    if let Some(advice) = refusal(&prediction, prepared.plan(), &recipe, &machine) {
        return Err(does_not_fit(anyhow::anyhow!(advice)));
    }
    let model = format!("{}-{}", life.model, lesson.kind.name);
    run::begin(home, &prepared, Some(life.args.minutes), &model)?;
    Ok(Some(prepared))
}

/// The stage's recipe with what it is about here. It is measured on the text of the pretraining, on what it learns from, and on what the stage
/// before learned from, as far as there are items of them.
fn recipe(life: &Life, lesson: &Lesson, parent: &ModelId) -> Result<Recipe> {
    let home = &life.context.home;
    let mut recipe = Recipe::from_toml(lesson.kind.recipe, lesson.kind.origin, &[])?;
    recipe.name = lesson.run(life);
    recipe.model.from = Some(parent.to_string());
    recipe.data.sources = vec![lesson.source.clone()];
    let record = Registry::open(home)?.show(&parent.to_string().parse()?)?;
    let before: Vec<String> = match &record.lineage.recipe {
        // What the parent was measured on has the text in it.
        Some(before) if lesson.kind.stage > Until::Tune => Recipe::from_toml(&before.text, "its parent's recipe", &[])?.gate.also,
        _ => record.lineage.data.iter().map(|data| data.name.clone()).collect(),
    };
    let mut kept = vec![];
    for set in before.into_iter().chain([lesson.set()]) {
        recipe.gate.also = vec![set];
        let resolved = prepare::with_folders(home, &recipe)?;
        match gate::sets(home, &resolved, &mut ()) {
            Ok(_) => kept.append(&mut recipe.gate.also),
            Err(error) => detail(&format!("not measured: {}", error.root_cause())),
        }
    }
    recipe.gate.also = kept;
    // The more time there is, the more of it is for measuring.
    recipe.gate.items = (40.0 * life.args.minutes).clamp(20.0, 100.0) as usize;
    recipe.budget.minutes = Some(life.clock.minutes(lesson.kind.stage));
    Ok(recipe)
}
