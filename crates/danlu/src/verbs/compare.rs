use std::path::PathBuf;

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use danlu_train::Recipe;
use danlu_train::recipe::{AdapterRecipe, TuneSpec, Way};
use serde_json::json;

use super::Context;
use super::train::execute;
use crate::exit::{Outcome, bad_input};
use crate::life::compare::{Row, markdown, table};
use crate::life::kinds::Prepared;
use crate::life::run;
use crate::views::progress::Lines;
use crate::views::run::Kind;
use crate::{interrupt, views};

/// Train the same labelled texts or pictures by every way there is, and say in one table what each reached and cost.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  danlu compare recipes/sentiment.toml\n  danlu compare recipes/sentiment.toml --ways linear,transfer,fine-tune --set budget.epochs=2\n  danlu compare recipes/pictures-ways.toml\n\nThe ways are `classify.way` of a recipe; `danlu help recipe` explains them. What is finished is not trained again."
)]
pub struct Args {
    /// A recipe with the objective classify, regression, token-classify or image-classify.
    recipe: PathBuf,
    /// The ways to compare; without it, all that the recipe's model allows.
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(Way::ALL.map(Way::name)))]
    ways: Vec<String>,
    /// Change a key of the recipe for all ways; can be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

pub fn run(context: &Context, args: Args) -> Outcome {
    interrupt::install()?;
    let recipe = Recipe::load(&args.recipe, &args.set).map_err(bad_input)?;
    let wanted = |way: &Way| match args.ways.is_empty() {
        true => !way.needs_model() || recipe.model.from.is_some(),
        false => args.ways.iter().any(|name| name == way.name()),
    };
    let mut rows: Vec<Row> = vec![];
    for way in Way::ALL.into_iter().filter(wanted) {
        let mut one = recipe.clone();
        one.classify.way = way;
        if matches!(way, Way::Linear | Way::Transfer) {
            // No layer moves that could go on predicting the texts.
            one.classify.auxiliary = 0.0;
        }
        // What the recipe says of an adapter, or of which part moves how fast, is about the ways that have one.
        if way != Way::Lora {
            one.adapter = AdapterRecipe::default();
        }
        if matches!(way, Way::Scratch | Way::Linear | Way::Lora) {
            one.tune = TuneSpec::default();
        }
        one.name = format!("{}-{}", recipe.name, way.name());
        println!("{}", views::bold(way.name()));
        rows.push(row(context, way, &one, &args.recipe)?);
    }
    let folder = context.home.join("compare").join(&recipe.name);
    let text = markdown(&recipe, &rows);
    danlu_files::write_atomic_bytes(&folder.join("compare.md"), text.as_bytes())?;
    danlu_files::write_atomic_bytes(&folder.join("compare.json"), serde_json::to_string_pretty(&rows)?.as_bytes())?;
    if args.json {
        return views::print_json(&json!(rows));
    }
    print!("\n{}\n{}", table(&rows), format_args!("{}\n", folder.join("compare.md").display()));
    Ok(())
}

/// Trains one way, or goes on with it, or reads what it reached when it is finished.
fn row(context: &Context, way: Way, recipe: &Recipe, path: &std::path::Path) -> Outcome<Row> {
    let (home, name) = (&context.home, &recipe.name);
    let begun = run::record(home, name);
    let prepared = match &begun {
        Some(_) => run::reopen(home, name, &mut Lines::new()).map_err(bad_input)?,
        None => Prepared::new(home, recipe, None, &mut Lines::new()).with_context(|| way.name()).map_err(bad_input)?,
    };
    if begun.as_ref().and_then(|record| record.model.as_ref()).is_none() {
        if begun.is_none() {
            run::begin(home, &prepared, recipe.budget.minutes, name).map_err(bad_input)?;
        }
        execute(context, &prepared, Kind::Plain, &format!("danlu compare {}", path.display()))?;
    }
    let record = run::record(home, name).and_then(|record| record.model).context("the run left no model")?;
    Ok(Row::of(home, way, &prepared, &record)?)
}
