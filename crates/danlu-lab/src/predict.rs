use danlu_train::recipe::MomentsKind;
use danlu_train::{Plan, Recipe};
use serde::Serialize;

use crate::machine::Machine;
use crate::memory::{Memory, memory, optimizer};

/// What power and time cost, where that is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Prices {
    /// What the machine draws while it trains, in watts.
    pub watts: Option<f64>,
    /// The price of a kilowatt-hour.
    pub per_kwh: Option<f64>,
    /// The price of an hour of the machine.
    pub per_hour: Option<f64>,
}

/// What a run will be and take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// What is counted as tokens, for people.
    pub unit: &'static str,
    pub parameters: u64,
    pub steps: u64,
    pub step_tokens: u64,
    pub tokens: u64,
    /// How often each token of the data is seen.
    pub epochs: f64,
    /// Forward and backward, of the whole run.
    pub flops: f64,
    pub tokens_per_second: f64,
    /// From the first step to the last measurement.
    pub seconds: f64,
    pub memory: Memory,
    /// Kilowatt-hours, when the power is known.
    pub energy: Option<f64>,
    /// In the prices' currency.
    pub cost: Option<f64>,
}

/// Predicts a run of `plan` on `machine`.
pub fn predict(plan: &Plan, machine: &Machine, prices: &Prices) -> Prediction {
    let tokens_per_second = machine.gemm_rate * machine.efficiency / plan.flops_per_token;
    let share = plan.recipe.eval.share.clamp(0.0, 0.9);
    // A budget in minutes is what the clock will say; the steps are then what fits.
    let (seconds, steps) = match plan.recipe.budget.minutes {
        Some(minutes) => {
            let steps = minutes * 60.0 * (1.0 - share) * tokens_per_second / plan.step_tokens() as f64;
            (minutes * 60.0, steps.round().max(1.0) as u64)
        }
        None => (plan.tokens() as f64 / tokens_per_second / (1.0 - share), plan.steps),
    };
    let tokens = steps * plan.step_tokens();
    let energy = prices.watts.map(|watts| watts * seconds / 3.6e6);
    let power = energy.zip(prices.per_kwh).map(|(energy, price)| energy * price);
    let rent = prices.per_hour.map(|price| price * seconds / 3600.0);
    Prediction {
        unit: plan.recipe.unit(),
        parameters: plan.model.parameters,
        steps,
        step_tokens: plan.step_tokens(),
        tokens,
        epochs: tokens as f64 / plan.facts.train_tokens.max(1) as f64,
        flops: tokens as f64 * plan.flops_per_token,
        tokens_per_second,
        seconds,
        memory: memory(plan),
        energy,
        cost: match (power, rent) {
            (None, None) => None,
            (power, rent) => Some(power.unwrap_or(0.0) + rent.unwrap_or(0.0)),
        },
    }
}

/// Why the run does not fit and what to change, when it does not. A tenth of the memory is left to the system. `given` is the recipe as the
/// user wrote it: what was given there is what can be changed there.
pub fn refusal(prediction: &Prediction, plan: &Plan, given: &Recipe, machine: &Machine) -> Option<String> {
    let memory = &prediction.memory;
    let (needs, has) = (memory.total(), machine.available? / 10 * 9);
    if needs <= has {
        return None;
    }
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    let mut text = format!("this run needs {:.2} GB of memory and {:.2} GB can be used here.", gigabytes(needs), gigabytes(has));
    let movable = memory.activations + memory.loss;
    // A tenth is kept back: not all of it shrinks in proportion.
    let rows = has.saturating_sub(needs - movable) / 10 * 9 * plan.micro_rows as u64 / movable.max(1);
    // What grows with the model, and by how much it must shrink.
    let shrink = has.saturating_sub(memory.program) as f64 / (needs - memory.program) as f64;
    let layers = (plan.model.layers as f64 * shrink * 0.95) as usize;
    let advice = if rows >= 1 && (rows as usize) < plan.micro_rows {
        format!("Smaller pieces give the same result: --set batch.micro_tokens={}", rows as usize * plan.row_len)
    } else if needs - memory.optimizer + optimizer(plan, MomentsKind::Int8) <= has {
        "Moments in eight bits need less: --set optimizer.moments=int8".into()
    } else if !plan.recipe.batch.recompute && needs - memory.activations + memory.activations / plan.model.layers as u64 <= has {
        "Computing activations again needs less, for a third more time: --set batch.recompute=true".into()
    } else if (given.model.hidden.is_some() || given.model.layers.is_some()) && layers > 0 {
        format!("Fewer layers need less: --set model.layers={layers}")
    } else if given.model.hidden.is_some() {
        format!("A narrower model needs less: --set model.hidden={}", (plan.model.hidden / 2).max(64))
    } else {
        // Activations shrink more slowly than parameters.
        format!("A smaller model fits: --set model.size={}", short(plan.model.parameters as f64 * shrink.powf(1.5)))
    };
    text.push_str(&format!(" {advice}."));
    Some(text)
}

/// A size as recipes write it.
fn short(parameters: f64) -> String {
    match parameters {
        p if p >= 1e9 => format!("{:.1}B", p / 1e9),
        p if p >= 1e6 => format!("{:.0}M", p / 1e6),
        p => format!("{:.0}k", (p / 1e3).max(1.0)),
    }
}
