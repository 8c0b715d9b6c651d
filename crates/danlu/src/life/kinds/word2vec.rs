use std::path::Path;

use anyhow::{Context, Result};
use burn::module::Module;
use burn::tensor::Device;
use danlu_data::Progress;
use danlu_data::tokenizer::Tokenizer;
use danlu_models::{Word2Vec, Word2VecConfig, folder};
use danlu_registry::ModelId;
use danlu_train::objectives::word2vec::{kept_share, word_vectors};
use danlu_train::recipe::TokenizerKind;
use danlu_train::{Plan, Recipe, Summary, Word2vec, auto};

use super::pretrain::Corpora;
use super::{Curve, DataRecord, Kind};
use crate::life::export::{Export, agree};

/// Vectors of the words of documents.
pub struct Words {
    corpora: Corpora,
    /// How often each word occurs.
    counts: Vec<u64>,
    config: Word2VecConfig,
    plan: Plan,
}

impl Words {
    /// # Errors
    /// When data cannot be had, or the recipe does not fit it.
    pub fn new(home: &Path, recipe: &Recipe, run: Option<&Path>, progress: &mut dyn Progress) -> Result<Self> {
        let mut recipe = recipe.clone();
        if recipe.tokenizer.from.is_none() {
            // Vectors of parts of words would be another method.
            recipe.tokenizer.kind = TokenizerKind::Words;
        }
        let corpora = Corpora::new(home, &recipe, run, progress)?;
        let counts = corpora.counts()?;
        let facts = corpora.facts();
        let kept = kept_share(&counts, facts.train_tokens, recipe.word2vec.subsample);
        let plan = auto::resolve_words(&recipe, &facts, kept)?;
        let spec = &plan.recipe.word2vec;
        let config = Word2VecConfig {
            model_type: Word2VecConfig::MODEL_TYPE.into(),
            form: spec.form.name().into(),
            vocab_size: facts.vocabulary,
            hidden_size: plan.model.hidden,
            window: spec.window,
            negative: spec.negative,
        };
        Ok(Self { corpora, counts, config, plan })
    }
}

impl Kind for Words {
    type Objective = Word2vec;

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn objective(&self) -> Result<Word2vec> {
        let train = self.corpora.train(&self.plan);
        Word2vec::new(&self.plan, &train, &self.counts, self.corpora.held_out()?, self.corpora.tokenizer.clone())
    }

    /// On the processor, whatever the device: windows of a few words keep no graphics card busy.
    fn fresh(&self, _: &Device) -> Result<Word2Vec> {
        Word2Vec::new(&self.config, self.plan.recipe.seed, &Device::flex().autodiff())
    }

    fn data(&self) -> Vec<DataRecord> {
        self.corpora.data()
    }

    fn identity(&self) -> String {
        self.corpora.identity(&self.plan)
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        Some(&self.corpora.tokenizer)
    }

    fn curve(&self) -> Curve {
        Curve { key: "loss", scale: Some(1.0) }
    }

    fn usage(&self, id: &ModelId) -> String {
        format!("danlu embed near WORD --model {id}")
    }

    fn keep(&self, export: &Export, model: &Word2Vec, summary: &Summary) -> Result<ModelId> {
        let model = model.valid();
        let (objective, tokenizer) = (self.objective()?, &self.corpora.tokenizer);
        let probe = objective.probe()?;
        let expected = objective.losses(&model, &probe);
        let write = |dir: &Path| {
            folder::save_word2vec(&model, &self.config, dir)?;
            if let Some(file) = self.plan.recipe.word2vec.vectors.file() {
                word_vectors(&model, tokenizer)?.save(&dir.join(file))?;
            }
            tokenizer.export(dir, self.plan.row_len)
        };
        let check = |copy: &Path| {
            let (read, _) = folder::load_word2vec(copy, &Device::flex()).context("it does not load")?;
            agree(&expected, &objective.losses(&read, &probe))
        };
        export.folder(self, summary, write, check)
    }
}
