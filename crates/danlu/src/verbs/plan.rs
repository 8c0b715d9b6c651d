use std::path::PathBuf;

use danlu_lab::{Machine, Prediction, Prices, predict, refusal};
use danlu_train::{Plan, Recipe};
use serde_json::json;

use super::Context;
use crate::exit::{Outcome, bad_input, does_not_fit};
use crate::life::kinds::Prepared;
use crate::views::progress::Lines;
use crate::{human, views};

/// Say what a recipe would make and take, before the first step: parameters, memory, time, energy and cost.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  danlu plan recipe.toml\n  danlu plan recipe.toml --set model.size=30M --watts 65 --per-kwh 0.30"
)]
pub struct Args {
    /// The recipe; `danlu help recipe` explains its keys.
    recipe: PathBuf,
    /// Change a key of the recipe; can be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// What the machine draws while it trains, in watts.
    #[arg(long)]
    watts: Option<f64>,
    /// The price of a kilowatt-hour.
    #[arg(long)]
    per_kwh: Option<f64>,
    /// The price of an hour of the machine.
    #[arg(long)]
    per_hour: Option<f64>,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

pub fn run(context: &Context, args: Args) -> Outcome {
    let recipe = Recipe::load(&args.recipe, &args.set).map_err(bad_input)?;
    // The data is needed to know how many tokens there are; what is made here is kept for the run.
    let prepared = Prepared::new(&context.home, &recipe, None, &mut Lines::new()).map_err(bad_input)?;
    let plan = prepared.plan();
    let machine = Machine::here(&context.home, &plan.model);
    let prices = Prices { watts: args.watts, per_kwh: args.per_kwh, per_hour: args.per_hour };
    let prediction = predict(plan, &machine, &prices);
    let refused = refusal(&prediction, plan, &recipe, &machine);
    if args.json {
        let parts: serde_json::Map<_, _> =
            prediction.memory.parts().iter().map(|(name, bytes)| (name.to_string(), json!(bytes))).collect();
        views::print_json(&json!({
            "plan": prediction, "memory_parts": parts, "memory_total": prediction.memory.total(), "memory_available": machine.available,
            "gemm_rate": machine.gemm_rate, "efficiency": machine.efficiency, "fits": refused.is_none(), "advice": refused,
            "model": plan.recipe.model,
        }))?;
    } else {
        print!("{}", describe(plan, &prediction, &machine));
    }
    match refused {
        Some(advice) => Err(does_not_fit(anyhow::anyhow!(advice))),
        None => Ok(()),
    }
}

/// The plan as a person reads it.
pub fn describe(plan: &Plan, prediction: &Prediction, machine: &Machine) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<14}{value}\n"));
    let (model, unit) = (&plan.model, prediction.unit);
    line(
        "model",
        format!(
            "{} with {} parameters{}: {} layers × {} channels{}",
            model.model_type,
            human::count(prediction.parameters as f64),
            if model.trained < model.parameters {
                format!(", of which {} are trained", human::count(model.trained as f64))
            } else {
                String::new()
            },
            model.layers,
            model.hidden,
            views::ends(plan).iter().map(|end| format!(", {end}")).collect::<String>()
        ),
    );
    line(
        "training",
        format!(
            "{} steps of {} {unit}: {} {unit}, {:.1} times the data, {}",
            human::thousands(prediction.steps),
            human::thousands(prediction.step_tokens),
            human::count(prediction.tokens as f64),
            prediction.epochs,
            human::flops(prediction.flops)
        ),
    );
    let from = match &machine.measured_in {
        Some(run) => format!("as run {run} reached"),
        None => "assumed; the first run measures it".into(),
    };
    line(
        "speed",
        format!(
            "{} {unit}/s at {:.0} % of {}/s ({from})",
            human::thousands(prediction.tokens_per_second as u64),
            machine.efficiency * 100.0,
            human::flops(machine.gemm_rate)
        ),
    );
    line("time", human::seconds(prediction.seconds));
    let parts: Vec<String> = prediction
        .memory
        .parts()
        .iter()
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(name, bytes)| format!("{name} {}", human::bytes(*bytes)))
        .collect();
    let available = machine.available.map_or(String::new(), |bytes| format!(" of {} available", human::bytes(bytes)));
    line("memory", format!("{}{available}", human::bytes(prediction.memory.total())));
    for parts in parts.chunks(4) {
        line("", parts.join(", "));
    }
    if let Some(energy) = prediction.energy {
        line("energy", format!("{energy:.3} kWh"));
    }
    if let Some(cost) = prediction.cost {
        line("cost", format!("{cost:.2}"));
    }
    text
}
