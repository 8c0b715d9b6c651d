use danlu_train::Plan;
use serde::Serialize;

use crate::machine::Machine;
use crate::memory::{Memory, memory};

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
        parameters: plan.parameters,
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

/// Why the run does not fit and what to change, when it does not. A tenth of the memory is left to the system.
pub fn refusal(prediction: &Prediction, plan: &Plan, machine: &Machine) -> Option<String> {
    let (needs, has) = (prediction.memory.total(), machine.available? / 10 * 9);
    if needs <= has {
        return None;
    }
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    let mut text = format!("this run needs {:.2} GB of memory and {:.2} GB can be used here.", gigabytes(needs), gigabytes(has));
    let movable = prediction.memory.activations + prediction.memory.loss;
    let fixed = needs - movable;
    let micro_tokens = plan.micro_rows * plan.row_len;
    if fixed < has {
        let fits = (micro_tokens as u64 * (has - fixed) / movable.max(1)) as usize / plan.row_len * plan.row_len;
        if fits >= plan.row_len && fits < micro_tokens {
            text.push_str(&format!(" Smaller pieces give the same result: --set batch.micro_tokens={fits}."));
        } else {
            text.push_str(&format!(" A shorter context needs less: --set model.context={}.", (plan.row_len / 2).max(8)));
        }
    } else {
        // Everything that does not move with the batch is proportional to the parameters.
        let size = plan.parameters as f64 * has as f64 * 0.7 / fixed as f64;
        text.push_str(&format!(" A smaller model fits: --set model.size={}.", short(size)));
    }
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
