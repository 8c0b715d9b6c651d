use anyhow::{Result, ensure};

use super::{Facts, Plan, budget_tokens, steps};
use crate::outline::Outline;
use crate::recipe::{ModelKind, ObjectiveKind, OptimizerKind, Recipe, WindowForm};

/// A vocabulary of words has at most so many, and each occurs so often, where the recipe does not say: fewer occurrences teach a vector
/// little (the original program's rule).
pub(super) const MOST: usize = 100_000;
pub const LEAST: u64 = 5;
/// Channels of a vector, the original program's.
const CHANNELS: usize = 100;
/// Words of a row: windows do not reach over its ends (the original takes sentences of 1,000 words).
const ROW: usize = 1024;
/// Words of an update: the rate is the same for all its windows, and what comes between updates costs nothing beside them.
const UPDATE: usize = 1 << 15;
/// The original program's rates.
const SKIP_GRAM_RATE: f64 = 0.025;
const CBOW_RATE: f64 = 0.05;
/// The share of the rate of large products that products of a few rows reach.
pub const WORDS_EFFICIENCY: f64 = 0.12;

/// [`super::resolve`] for word vectors. `kept` is the share of the text's tokens that windows are made of, after unknown words and what
/// subsampling leaves out.
///
/// # Errors
/// When given values do not fit each other or the data.
pub fn resolve_words(recipe: &Recipe, facts: &Facts, kept: f64) -> Result<Plan> {
    recipe.validate()?;
    ensure!(facts.train_tokens > 1, "there is no text to train on: after cleaning, {} tokens are left", facts.train_tokens);
    ensure!(recipe.model.from.is_none(), "`model.from`: word vectors begin from random ones; leave the key out");
    let mut recipe = recipe.clone();
    let spec = recipe.word2vec.clone();
    let channels = *recipe.model.hidden.get_or_insert(CHANNELS);
    let row_len = *recipe.model.context.get_or_insert(ROW);
    recipe.objective.kind = ObjectiveKind::Word2vec;
    (recipe.model.kind, recipe.model.size) = (ModelKind::Word2vec, None);
    recipe.tokenizer.vocabulary = Some(facts.vocabulary);
    recipe.optimizer.kind = OptimizerKind::Sgd;
    recipe.optimizer.rate.get_or_insert(match spec.form {
        WindowForm::SkipGram => SKIP_GRAM_RATE,
        WindowForm::Cbow => CBOW_RATE,
    });

    let parameters = 2 * (facts.vocabulary * channels) as u64;
    let model = Outline {
        model_type: "word2vec".into(),
        layers: 1,
        hidden: channels,
        vocabulary: facts.vocabulary,
        parameters,
        embeddings: parameters,
        trained: parameters,
        floats_per_layer: 0,
    };
    // A window has from one to `window` words on either side. Each product takes two FLOPs, and as many for each of its two gradients.
    let inputs = match spec.form {
        WindowForm::SkipGram => (spec.window + 1) as f64,
        WindowForm::Cbow => 1.0,
    };
    let flops_per_token = kept * 6.0 * inputs * (spec.negative + 1) as f64 * channels as f64;
    let tokens = budget_tokens(&recipe.budget, flops_per_token, facts.gemm_rate * WORDS_EFFICIENCY);
    let wanted = recipe.batch.tokens.unwrap_or(UPDATE).div_ceil(row_len).max(1);
    let micro_rows = recipe.batch.micro_tokens.map_or(wanted, |tokens| (tokens / row_len).clamp(1, wanted));
    let rows = wanted.div_ceil(micro_rows) * micro_rows;
    (recipe.batch.tokens, recipe.batch.micro_tokens) = (Some(rows * row_len), Some(micro_rows * row_len));
    let step_tokens = (rows * row_len) as f64;
    let of_epochs = |epochs: f64| epochs * facts.train_tokens as f64 / step_tokens;
    let steps = steps(&recipe.budget, of_epochs, tokens.map(|tokens| tokens / step_tokens))?;
    Ok(Plan { recipe, model, facts: *facts, row_len, rows, micro_rows, steps, flops_per_token, beside: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_open_is_the_original_programs_and_stays_when_resolved_again() {
        let facts = Facts { vocabulary: 12_000, train_tokens: 800_000, gemm_rate: 1e11 };
        let plan = |text: &str| resolve_words(&Recipe::from_toml(text, "test", &[]).unwrap(), &facts, 0.7).unwrap();
        let first = plan("[objective]\nkind = 'word2vec'\n[budget]\nepochs = 5.0\n");
        assert_eq!((first.model.parameters, first.steps), (2_400_000, 122));
        assert_eq!((first.rows * first.row_len, first.micro_rows), (32_768, first.rows));
        assert_eq!(first.recipe.optimizer.rate, Some(0.025));
        let second = resolve_words(&first.recipe, &facts, 0.7).unwrap();
        assert_eq!((second.recipe, second.steps), (first.recipe, first.steps));
        let cbow = plan("[word2vec]\nform = 'cbow'\n[batch]\ntokens = 5000\nmicro_tokens = 2048\n[budget]\nsteps = 3\n");
        assert_eq!((cbow.rows, cbow.micro_rows, cbow.steps), (6, 2, 3));
        assert!(cbow.flops_per_token < first.flops_per_token / 5.0);
        let from = Recipe::from_toml("[model]\nfrom = 'x'\n[budget]\nsteps = 3\n", "test", &[]).unwrap();
        assert!(resolve_words(&from, &facts, 0.7).unwrap_err().to_string().contains("model.from"));
    }
}
