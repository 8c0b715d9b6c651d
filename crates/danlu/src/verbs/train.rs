mod list;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use danlu_lab::refusal;
use danlu_train::Recipe;

use super::Context;
use super::plan::describe;
use crate::exit::{Exit, Outcome, bad_input, does_not_fit};
use crate::life::kinds::Prepared;
use crate::life::{few_shot, run};
use crate::views::progress::Lines;
use crate::views::run::Kind;
use crate::{human, interrupt, views};

/// Train what a recipe describes, or go on with a run that was stopped.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "danlu train <RECIPE> [OPTIONS]\n       danlu train --resume <RUN> [OPTIONS]\n       danlu train --list"
)]
#[command(
    after_help = "Examples:\n  danlu train recipe.toml\n  danlu train recipe.toml --run wide --set model.hidden=512 --set budget.minutes=30\n  danlu train --resume wide"
)]
pub struct Args {
    /// The recipe; `danlu help recipe` explains its keys.
    #[arg(required_unless_present_any = ["resume", "list"], conflicts_with = "resume")]
    recipe: Option<PathBuf>,
    /// Go on with this run from its newest checkpoint.
    #[arg(long, value_name = "RUN")]
    resume: Option<String>,
    /// List the milestones that can be trained, from 1998 on, and what to expect of each; with --json as JSON.
    #[arg(long, conflicts_with_all = ["recipe", "resume", "set", "run", "model"])]
    list: bool,
    /// Change a key of the recipe; can be given several times.
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "resume")]
    set: Vec<String>,
    /// Name the run and its model; without it, the recipe's name.
    #[arg(long, value_name = "NAME", conflicts_with = "resume")]
    run: Option<String>,
    /// Register the model as the next version of this name; without it, the run's.
    #[arg(long, value_name = "NAME", conflicts_with = "resume")]
    model: Option<String>,
    /// How the course of the run is shown.
    #[arg(long, value_enum, default_value_t = Kind::Auto)]
    view: Kind,
    /// Show the course as a JSON object for each event, the same as --view json.
    #[arg(long, conflicts_with = "view")]
    json: bool,
}

pub fn run(context: &Context, args: Args) -> Outcome {
    let home = &context.home;
    if args.list {
        return Ok(list::print(args.json)?);
    }
    let view = if args.json { Kind::Json } else { args.view };
    interrupt::install()?;
    let prepared = match (&args.resume, &args.recipe) {
        (Some(name), _) => {
            if let Some(model) = run::record(home, name).and_then(|record| record.model) {
                eprintln!("run {name} is finished: it made {model}; `danlu generate {model}` tries it");
                return Ok(());
            }
            run::reopen(home, name, &mut Lines::new()).map_err(bad_input)?
        }
        (None, Some(path)) => {
            let mut recipe = Recipe::load(path, &args.set).map_err(|error| bad_input(measured_instead(path, error)))?;
            if let Some(name) = &args.run {
                recipe.name.clone_from(name);
            }
            danlu_registry::check_name(&recipe.name).map_err(bad_input)?;
            let prepared = Prepared::new(home, &recipe, None, &mut Lines::new()).map_err(bad_input)?;
            let (prediction, machine) = run::prediction(home, &prepared);
            if view != Kind::Json {
                print!("{}", describe(prepared.plan(), &prediction, &machine));
            }
            if let Some(advice) = refusal(&prediction, prepared.plan(), &recipe, &machine) {
                return Err(does_not_fit(anyhow::anyhow!(advice)));
            }
            let model = args.model.as_deref().unwrap_or(&recipe.name);
            run::begin(home, &prepared, recipe.budget.minutes, model).map_err(bad_input)?;
            prepared
        }
        (None, None) => return Err(bad_input(anyhow::anyhow!("give a recipe, or --resume RUN"))),
    };
    let name = prepared.plan().recipe.name.clone();
    let done = execute(context, &prepared, view, &format!("danlu train --resume {name}"))?;
    if view != Kind::Json {
        report(&done);
    }
    Ok(())
}

/// What to do with a file that is no recipe but has tasks to ask.
fn measured_instead(path: &Path, error: anyhow::Error) -> anyhow::Error {
    if few_shot::is_one(path) {
        anyhow::anyhow!("{0} is asked and not trained: danlu eval MODEL --few-shot {0}", path.display())
    } else {
        error
    }
}

/// Runs it; a run that was stopped ends the program with the way to go on.
pub fn execute(context: &Context, prepared: &Prepared, view: Kind, again: &str) -> Outcome<run::Done> {
    let done = prepared.execute(&context.home, view).map_err(|error| {
        let folder = run::folder(&context.home, &prepared.plan().recipe.name);
        error.context(format!("the run stopped; its checkpoints are in {}", folder.join("checkpoints").display()))
    })?;
    if done.summary.finished {
        return Ok(done);
    }
    eprintln!("saved at step {} of {}; go on with: {again}", done.summary.step, done.summary.total);
    Err(Exit::interrupted())
}

/// The end of a run: the curve, the sample, plan against measured, and what to do next.
pub fn report(done: &run::Done) {
    println!("\n{}", done.curves.text(views::width(), 16, std::io::stdout().is_terminal()));
    if let Some(measure) = &done.summary.measure {
        println!("{} {measure}", views::bold("held out"));
    }
    if let Some((prompt, text)) = &done.sample {
        println!("\n{}{}\n", views::bold(prompt), text);
    }
    print!("{}", done.comparison);
    let counted = done.curves.counted;
    println!(
        "{} {counted} in {}, {} {counted}/s, {:.0} % of the GEMM rate, {:.1} % of the time waiting for data",
        human::count(done.summary.tokens as f64),
        human::seconds(done.summary.elapsed),
        human::thousands(done.summary.tokens_per_second as u64),
        done.summary.gemm_share * 100.0,
        done.summary.data_wait_share * 100.0
    );
    if let Some(picture) = &done.picture {
        println!("picture: {}", picture.display());
    }
    done.sets.iter().for_each(|set| println!("  {}", views::set_line(set)));
    let Some(model) = &done.model else { return };
    let name = views::bold(&model.to_string());
    match &done.gate {
        Some(gate) if !gate.passed => {
            println!("{name} is kept as a candidate, since it did not pass its gate:");
            gate.reasons.iter().for_each(|reason| println!("  {reason}"));
            println!("try it with: {}; make it current all the same with: danlu models promote {model}", done.usage);
        }
        _ => println!("{name} is registered; try it with: {}", done.usage),
    }
}
