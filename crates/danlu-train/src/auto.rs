//! One dial: what a recipe leaves open follows from its budget, the data and the machine's speed. The rules are stated here, each with
//! its source, and are meant to be changed when an experiment says so.

mod shape;
mod words;

use anyhow::{Result, bail, ensure};
use danlu_models::{BackboneConfig, DecoderConfig};

pub use shape::{backbone, parse_size, write_backbone, write_shape};
pub use words::{LEAST, WORDS_EFFICIENCY, resolve_words};

use crate::initial;
use crate::outline::Outline;
use crate::recipe::{AdapterKind, Budget, ModelKind, OptimizerKind, Recipe, TokenizerKind};
use shape::{choose, inherited, whole_flops};

/// What a training step reaches of the measured rate of matrix products, as measured for widths of 64 to 384: narrow layers are bound
/// by memory and by the number of operations.
fn efficiency(hidden: usize) -> f64 {
    let hidden = hidden as f64;
    0.8 * hidden / (hidden + 96.0)
}

/// The width for which a budget in minutes is turned into FLOPs before a width is chosen.
const USUAL_WIDTH: usize = 256;

/// Tokens for each parameter in a product: twenty for large models that see their data once (Hoffmann 2022), fewer for small ones in
/// minutes, where we measured it; between them with the fourth root of the FLOPs.
fn tokens_per_parameter(flops: f64) -> f64 {
    (2.0 * (flops / 2e13).powf(0.25)).clamp(2.0, 20.0)
}

/// A rate at which a model keeps what it knows; pretraining's would wipe it out.
pub const TUNING_RATE: f64 = 1e-4;

/// What is known about the data and the machine when a run is planned.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// Entries of the tokenizer.
    pub vocabulary: usize,
    /// Different tokens to train on.
    pub train_tokens: u64,
    /// FLOP/s of matrix products on this machine.
    pub gemm_rate: f64,
}

/// A recipe with nothing left open, and what follows from it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// With every automatic value filled in; this is what the run folder keeps.
    pub recipe: Recipe,
    pub model: Outline,
    pub facts: Facts,
    /// Tokens of one row; where rows are examples, of the usual one.
    pub row_len: usize,
    /// Rows of one update.
    pub rows: usize,
    /// Rows that go through the model at once; divides `rows`.
    pub micro_rows: usize,
    /// Updates of the whole run; an estimate when the budget is in minutes.
    pub steps: u64,
    /// Forward and backward.
    pub flops_per_token: f64,
    /// Parameters of models that only answer while this one is trained: the start model of preferences, a teacher, a judge.
    pub beside: u64,
}

impl Plan {
    /// Tokens of one update.
    pub fn step_tokens(&self) -> u64 {
        (self.rows * self.row_len) as u64
    }

    /// Tokens of the whole run.
    pub fn tokens(&self) -> u64 {
        self.steps * self.step_tokens()
    }

    /// How often the data is seen.
    pub fn epochs(&self) -> f64 {
        self.tokens() as f64 / self.facts.train_tokens.max(1) as f64
    }

    /// FLOPs of the whole run.
    pub fn flops(&self) -> f64 {
        self.tokens() as f64 * self.flops_per_token
    }
}

/// The size of a vocabulary for a corpus of `bytes` and the budget: larger ones shorten text but take a larger share of a small model
/// (Tao 2024), and need enough text for every entry to be learned.
pub fn vocabulary(recipe: &Recipe, bytes: u64, gemm_rate: f64) -> usize {
    if let Some(given) = recipe.tokenizer.vocabulary {
        return given;
    }
    if recipe.tokenizer.kind == TokenizerKind::Words {
        return words::MOST;
    }
    // The tokens of a corpus are not known before its tokenizer; four bytes each is near enough here.
    let budget = compute(&recipe.budget, bytes / 4, gemm_rate);
    let by_budget = match budget {
        c if c < 1e15 => 4096,
        c if c < 1e17 => 8192,
        c if c < 1e19 => 16_384,
        _ => 32_768,
    };
    let by_text = (bytes / 500).max(512).ilog2();
    by_budget.min(1 << by_text.min(20))
}

/// Fills in what the recipe leaves open. Resolving a resolved recipe changes nothing.
///
/// # Errors
/// When given values do not fit each other or the data.
pub fn resolve(recipe: &Recipe, facts: &Facts) -> Result<(Plan, DecoderConfig)> {
    match resolve_backbone(recipe, facts)? {
        (plan, BackboneConfig::Decoder(config)) => Ok((plan, config)),
        (_, BackboneConfig::Bert(_)) => {
            bail!("the model is bert, which sees whole texts and cannot write them; choose a decoder, or the objective masked-lm")
        }
    }
}

/// [`resolve`] for any kind of backbone.
///
/// # Errors
/// When given values do not fit each other or the data.
pub fn resolve_backbone(recipe: &Recipe, facts: &Facts) -> Result<(Plan, BackboneConfig)> {
    recipe.validate()?;
    ensure!(facts.train_tokens > 1, "there is no text to train on: after cleaning, {} tokens are left", facts.train_tokens);
    let mut recipe = recipe.clone();
    let context = recipe.model.context.unwrap_or_else(|| context(&recipe, facts));
    let config = match &recipe.model.from {
        Some(folder) => inherited(folder, facts)?,
        None => choose(&recipe, facts, context)?,
    };
    config.validate()?;
    let context = context.min(config.context());
    recipe.model.context = Some(context);
    initial::pin_base(&mut recipe)?;
    write_backbone(&mut recipe.model, &config);
    recipe.tokenizer.vocabulary = Some(facts.vocabulary);

    let (model, flops_per_token) = match &config {
        BackboneConfig::Decoder(config) => initial::outline(&recipe, config)?,
        BackboneConfig::Bert(bert) => (Outline::from(bert), whole_flops(&config, context)),
    };
    let tokens = budget_tokens(&recipe.budget, flops_per_token, facts.gemm_rate * efficiency(config.hidden_size()));
    let step_tokens = recipe.batch.tokens.unwrap_or_else(|| batch_tokens(&recipe, config.hidden_size(), tokens, context));
    let micro_tokens = recipe.batch.micro_tokens.unwrap_or_else(|| micro_tokens(config.hidden_size()));
    let wanted_rows = step_tokens.div_ceil(context).max(1);
    let micro_rows = (micro_tokens / context).clamp(1, wanted_rows);
    // A whole number of equal pieces, so that every update sees the same number of tokens.
    let rows = wanted_rows.div_ceil(micro_rows) * micro_rows;
    recipe.batch.tokens = Some(rows * context);
    recipe.batch.micro_tokens = Some(micro_rows * context);
    let of_epochs = |epochs: f64| epochs * facts.train_tokens as f64 / (rows * context) as f64;
    let steps = steps(&recipe.budget, of_epochs, tokens.map(|tokens| tokens / (rows * context) as f64))?;

    rates(&mut recipe, config.hidden_size());
    Ok((Plan { recipe, model, facts: *facts, row_len: context, rows, micro_rows, steps, flops_per_token, beside: 0 }, config))
}

/// What is known about the examples of a recipe whose rows are examples: pairs, prompts, labelled texts, images.
#[derive(Debug, Clone, Copy)]
pub struct Examples {
    /// To train on.
    pub count: u64,
    /// Tokens that go through the model for the usual one.
    pub tokens: usize,
    /// Of an update, when the recipe does not say.
    pub usual_batch: usize,
}

/// [`resolve`] where rows are examples of a model that is there already. The rates are the recipe's; what a kind of recipe prefers to
/// the rates of pretraining it puts there before.
///
/// # Errors
/// When given values do not fit each other or the data.
pub fn resolve_examples(
    recipe: &Recipe,
    model: Outline,
    examples: &Examples,
    flops_per_token: f64,
    gemm_rate: f64,
) -> Result<Plan> {
    recipe.validate()?;
    ensure!(examples.count > 0, "there is no example to train on");
    let mut recipe = recipe.clone();
    initial::pin_base(&mut recipe)?;
    let (model, flops_per_token) = initial::with_adapter(&recipe, model, flops_per_token)?;
    let row_len = examples.tokens.max(1);
    let wanted = recipe.batch.examples.unwrap_or(examples.usual_batch).max(1);
    let pieces = recipe.batch.micro_tokens.map_or(2048, |tokens| tokens);
    let micro_rows = (pieces / row_len).clamp(1, wanted);
    let rows = wanted.div_ceil(micro_rows) * micro_rows;
    (recipe.batch.examples, recipe.batch.micro_tokens) = (Some(rows), Some(micro_rows * row_len));
    let rate = gemm_rate * efficiency(model.hidden);
    let tokens = budget_tokens(&recipe.budget, flops_per_token, rate);
    let of_epochs = |epochs: f64| epochs * examples.count as f64 / rows as f64;
    let steps = steps(&recipe.budget, of_epochs, tokens.map(|tokens| tokens / (rows * row_len) as f64))?;
    let facts = Facts { vocabulary: model.vocabulary, train_tokens: examples.count * row_len as u64, gemm_rate };
    Ok(Plan { recipe, model, facts, row_len, rows, micro_rows, steps, flops_per_token, beside: 0 })
}

/// FLOPs that a budget stands for, before the shape is known.
fn compute(budget: &Budget, train_tokens: u64, gemm_rate: f64) -> f64 {
    // Six FLOPs for each pair of a token and a parameter.
    let of_tokens = |tokens: f64| 6.0 * tokens * tokens / tokens_per_parameter(tokens * tokens);
    match *budget {
        Budget { flops: Some(flops), .. } => flops,
        Budget { minutes: Some(minutes), .. } => minutes * 60.0 * gemm_rate * efficiency(USUAL_WIDTH),
        Budget { tokens: Some(tokens), .. } => of_tokens(tokens as f64),
        Budget { steps: Some(steps), .. } => of_tokens(steps as f64 * 4096.0),
        _ => of_tokens(train_tokens as f64),
    }
}

/// Tokens that a budget allows for, except a budget in steps, which asks for the batch first.
fn budget_tokens(budget: &Budget, flops_per_token: f64, rate: f64) -> Option<f64> {
    match *budget {
        Budget { tokens: Some(tokens), .. } => Some(tokens as f64),
        Budget { flops: Some(flops), .. } => Some(flops / flops_per_token),
        Budget { minutes: Some(minutes), .. } => Some(minutes * 60.0 * rate / flops_per_token),
        _ => None,
    }
}

/// Updates of the whole run: those of the budget, of its epochs, or of the tokens that it allows for.
fn steps(budget: &Budget, of_epochs: impl Fn(f64) -> f64, of_tokens: Option<f64>) -> Result<u64> {
    let steps = match (budget.steps, budget.epochs, of_tokens) {
        (Some(steps), ..) => return Ok(steps),
        (None, Some(epochs), _) => of_epochs(epochs),
        (None, None, Some(steps)) => steps,
        (None, None, None) => bail!("`budget` says nothing; give one of minutes, tokens, epochs, steps or flops"),
    };
    Ok(steps.round().max(1.0) as u64)
}

/// Rows are short while models are small: what a longer row could teach is learned later.
fn context(recipe: &Recipe, facts: &Facts) -> usize {
    match compute(&recipe.budget, facts.train_tokens, facts.gemm_rate) {
        c if c < 1e16 => 256,
        c if c < 1e18 => 512,
        c if c < 1e20 => 1024,
        _ => 2048,
    }
}

/// The best batch grows with the square root of the tokens of the run (Bergsma 2025), as a power of two. Muon's own work is about
/// `30 · hidden` FLOPs per parameter and update against `6` per parameter and token: with 16 tokens per channel it is under a third.
fn batch_tokens(recipe: &Recipe, hidden: usize, tokens: Option<f64>, context: usize) -> usize {
    let best = tokens.map_or(4096.0, |tokens| 2.0 * tokens.sqrt());
    let least = match recipe.optimizer.kind {
        OptimizerKind::Muon => 16.0 * hidden as f64,
        OptimizerKind::Adamw | OptimizerKind::Sgd => 1024.0,
    };
    let exponent = best.max(least).log2().round().clamp(10.0, 22.0);
    (1usize << exponent as u32).max(context)
}

/// Enough tokens to keep matrix products busy, few enough that activations stay small.
fn micro_tokens(hidden: usize) -> usize {
    match hidden {
        0..=256 => 4096,
        257..=1024 => 2048,
        _ => 1024,
    }
}

/// Peak learning rates. AdamW's falls with the square root of the width (between the standard parametrisation's constant and µP's
/// 1/width); Muon's too, which keeps Jordan's 0.02 in units of the spectral norm.
fn rates(recipe: &mut Recipe, hidden: usize) {
    let narrow = (256.0 / hidden as f64).sqrt();
    let optimizer = &mut recipe.optimizer;
    if recipe.adapter.kind != AdapterKind::None {
        optimizer.kind = OptimizerKind::Adamw;
    }
    // Behind each part a norm divides what came before (BERT's), and gradients are large near the output: at the others' rate such a
    // network learns how frequent words are and nothing more.
    let peak = if recipe.model.kind == ModelKind::Bert { 1e-3 } else { 4e-3 };
    let usual = if recipe.adapter.kind == AdapterKind::None { peak * narrow } else { recipe.adapter.rate(TUNING_RATE) };
    let rate = *optimizer.rate.get_or_insert(usual);
    optimizer.embedding_rate.get_or_insert(match optimizer.kind {
        OptimizerKind::Muon => 2.0 * rate,
        OptimizerKind::Adamw | OptimizerKind::Sgd => rate,
    });
    if optimizer.kind == OptimizerKind::Muon {
        optimizer.muon_rate.get_or_insert(muon_rate(hidden));
    }
}

/// The peak rate at which a model of this width learns a task and keeps its knowledge: that of BERT's base, and more in narrow ones.
pub fn keeping_rate(hidden: usize) -> f64 {
    5e-5 * 768.0 / hidden.max(1) as f64
}

/// Muon's peak rate where nobody gives it, for a width.
pub fn muon_rate(hidden: usize) -> f64 {
    8e-3 * (256.0 / hidden as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts = Facts { vocabulary: 4096, train_tokens: 1_600_000, gemm_rate: 1.5e11 };

    fn recipe(text: &str) -> Recipe {
        Recipe::from_toml(text, "test", &[]).unwrap()
    }

    #[track_caller]
    fn plan(text: &str) -> Plan {
        resolve(&recipe(text), &FACTS).unwrap().0
    }

    #[test]
    fn more_budget_makes_a_larger_model_that_sees_more() {
        let plans = [1.0, 5.0, 60.0, 600.0].map(|minutes| plan(&format!("[budget]\nminutes = {minutes:?}\n")));
        for pair in plans.windows(2) {
            assert!(pair[0].model.parameters <= pair[1].model.parameters && pair[0].tokens() < pair[1].tokens(), "{pair:?}");
        }
        assert!(plans[0].model.parameters < plans[2].model.parameters);
        let five = &plans[1];
        assert!((500_000..10_000_000).contains(&five.model.parameters), "{five:?}");
        assert!((0.5..20.0).contains(&five.epochs()), "{five:?}");
        let spent = five.flops() / (300.0 * FACTS.gemm_rate);
        assert!((0.2..0.8).contains(&spent), "{spent}");
    }

    #[test]
    fn resolving_again_changes_nothing() {
        for text in ["[budget]\nminutes = 5.0\n", "[model]\nkind = 'gpt2'\nsize = '3M'\n[budget]\ntokens = 1000000\n"] {
            let first = plan(text);
            let (second, _) = resolve(&first.recipe, &FACTS).unwrap();
            assert_eq!(first.recipe, second.recipe);
            assert_eq!(
                (first.model, first.steps, first.rows, first.micro_rows),
                (second.model, second.steps, second.rows, second.micro_rows)
            );
        }
    }

    #[track_caller]
    fn check(text: &str, holds: impl Fn(&Plan) -> bool) {
        let plan = plan(text);
        assert!(holds(&plan), "{text}: {plan:?}");
    }

    #[test]
    fn what_is_given_is_kept() {
        for (size, wanted) in [("1M", 1e6), ("10M", 10e6), ("124M", 124e6), ("1.5B", 1.5e9)] {
            check(&format!("[model]\nsize = '{size}'\n[budget]\nsteps = 9\n"), |p| {
                (p.model.parameters as f64 / wanted).ln().abs() < 0.1
            });
        }
        check("[model]\nlayers = 7\n[budget]\nsteps = 9\n", |p| p.model.layers == 7 && p.steps == 9);
        check("[model]\nhidden = 96\nheads = 3\n[budget]\nsteps = 9\n", |p| p.recipe.model.head_dim == Some(32));
        check("[model]\ncontext = 100\n[batch]\ntokens = 1000\nmicro_tokens = 300\n[budget]\nsteps = 9\n", |p| {
            (p.row_len, p.rows, p.micro_rows) == (100, 12, 3)
        });
        check("[optimizer]\nrate = 0.5\n[budget]\nflops = 1e12\n", |p| p.recipe.optimizer.rate == Some(0.5));
        check("[batch]\ntokens = 1024\n[budget]\ntokens = 102400\n", |p| p.steps == 100);
    }

    #[test]
    fn no_text_is_an_error() {
        let error = resolve(&recipe("[budget]\nsteps = 1\n"), &Facts { train_tokens: 0, ..FACTS }).unwrap_err();
        assert!(error.to_string().contains("no text"));
    }
}
