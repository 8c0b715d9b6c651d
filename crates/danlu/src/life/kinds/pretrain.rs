use std::path::Path;

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use danlu_data::Progress;
use danlu_data::corpus::Corpus;
use danlu_data::shards::{TokenSet, TokenSplit};
use danlu_data::tokenizer::Tokenizer;
use danlu_models::{Decoder, DecoderConfig};
use danlu_registry::ModelId;
use danlu_train::{CausalLm, Facts, Plan, Recipe, Summary, auto, initial_model};

use super::{Curve, DataRecord, Kind};
use crate::life::export::{Export, Made};
use crate::life::prepare;
use crate::life::run::TOKENIZER;

/// What a run on documents reads: corpora, their tokenizer, their tokens.
pub struct Corpora {
    corpora: Vec<Corpus>,
    pub tokenizer: Tokenizer,
    sets: Vec<TokenSet>,
    /// How many of them are the recipe's sources; the others are read again.
    sources: usize,
}

impl Corpora {
    /// # Errors
    /// As the steps'.
    pub fn new(home: &Path, recipe: &Recipe, run: Option<&Path>, progress: &mut dyn Progress) -> Result<Self> {
        let corpora = prepare::corpora(home, recipe, progress)?;
        let tokenizer = match run {
            Some(folder) => Tokenizer::load(&folder.join(TOKENIZER))?,
            None => prepare::tokenizer(home, recipe, &corpora, progress)?,
        };
        let sets = prepare::tokens(&corpora, &tokenizer, progress)?;
        Ok(Self::of(recipe, corpora, tokenizer, sets))
    }

    fn of(recipe: &Recipe, corpora: Vec<Corpus>, tokenizer: Tokenizer, sets: Vec<TokenSet>) -> Self {
        let sources = recipe.data.sources.len().min(sets.len());
        Self { corpora, tokenizer, sets, sources }
    }

    pub fn facts(&self) -> Facts {
        let train_tokens = self.own().iter().map(|set| set.train.len()).sum();
        Facts { vocabulary: self.tokenizer.vocab_size(), train_tokens, gemm_rate: danlu_ops::gemm_rate() }
    }

    /// The share of the rows that each corpus has; those read again come last.
    fn shares(&self, plan: &Plan) -> Vec<f64> {
        let tokens: Vec<u64> = self.sets.iter().map(|set| set.train.len()).collect();
        let (sources, replay) = tokens.split_at(self.sources);
        plan.recipe.data.shares(sources, replay)
    }

    /// What is learned from and measured on: corpora that are only read again are neither.
    fn own(&self) -> &[TokenSet] {
        &self.sets[..self.sources]
    }

    /// The training splits with their shares of the rows.
    pub fn train(&self, plan: &Plan) -> Vec<(TokenSplit, f64)> {
        self.sets.iter().zip(self.shares(plan)).map(|(set, share)| (set.train.clone(), share)).collect()
    }

    /// What is measured on.
    ///
    /// # Errors
    /// When there is nothing.
    pub fn held_out(&self) -> Result<Vec<TokenSplit>> {
        if self.own().iter().all(|set| set.held_out.is_empty()) {
            bail!("no document is held out to measure with; raise `data.held_out` or add more documents");
        }
        Ok(self.own().iter().map(|set| set.held_out.clone()).collect())
    }

    /// How often each token occurs in what is trained on; 0 of special ones, which are no words.
    ///
    /// # Errors
    /// When tokens cannot be read.
    pub fn counts(&self) -> Result<Vec<u64>> {
        let mut counts = vec![0; self.tokenizer.vocab_size()];
        for set in &self.sets {
            counts.iter_mut().zip(set.train.counts()?).for_each(|(count, more)| *count += more);
        }
        for (id, count) in (0..).zip(&mut counts) {
            if self.tokenizer.is_special(id) {
                *count = 0;
            }
        }
        Ok(counts)
    }

    /// Held-out tokens on which the exported model is compared.
    ///
    /// # Errors
    /// When there are none.
    pub fn probe(&self) -> Result<Vec<u32>> {
        let set = self.own().iter().find(|set| !set.held_out.is_empty());
        set.context("there is no held-out text to compare logits on")?.held_out.document(0)
    }

    pub fn data(&self) -> Vec<DataRecord> {
        let one =
            |corpus: &Corpus| DataRecord { name: corpus.manifest.name.clone(), manifest_hash: corpus.manifest.hash.clone() };
        self.corpora.iter().map(one).collect()
    }

    pub fn identity(&self, plan: &Plan) -> String {
        let mut text = self.tokenizer.hash().to_string();
        for (corpus, share) in self.corpora.iter().zip(self.shares(plan)) {
            text.push_str(&format!(" {} {share}", corpus.manifest.hash));
        }
        danlu_files::hash_bytes(text.as_bytes())
    }
}

/// Next-token prediction on documents, from initial weights or going on from a model.
pub struct Pretrain {
    text: Corpora,
    config: DecoderConfig,
    plan: Plan,
}

impl Pretrain {
    /// # Errors
    /// As the steps'.
    pub fn new(home: &Path, recipe: &Recipe, run: Option<&Path>, progress: &mut dyn Progress) -> Result<Self> {
        Self::on(recipe, Corpora::new(home, recipe, run, progress)?)
    }

    /// Fills in what the recipe leaves open, for this data and this machine.
    ///
    /// # Errors
    /// When the recipe does not fit the data.
    pub fn planned(recipe: &Recipe, corpora: Vec<Corpus>, tokenizer: Tokenizer, sets: Vec<TokenSet>) -> Result<Self> {
        Self::on(recipe, Corpora::of(recipe, corpora, tokenizer, sets))
    }

    fn on(recipe: &Recipe, text: Corpora) -> Result<Self> {
        let (plan, config) = auto::resolve(recipe, &text.facts())?;
        Ok(Self { text, config, plan })
    }

    /// The same run with another plan and another model.
    pub(super) fn for_student(mut self, of: impl FnOnce(Plan, DecoderConfig) -> (Plan, DecoderConfig)) -> Self {
        (self.plan, self.config) = of(self.plan, self.config);
        self
    }
}

impl Kind for Pretrain {
    type Objective = CausalLm;

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn objective(&self) -> Result<CausalLm> {
        CausalLm::new(&self.plan, &self.text.train(&self.plan), self.text.held_out()?, self.text.tokenizer.clone())
    }

    fn fresh(&self, device: &Device) -> Result<Decoder> {
        initial_model(&self.plan.recipe, &self.config, device)
    }

    fn data(&self) -> Vec<DataRecord> {
        self.text.data()
    }

    fn identity(&self) -> String {
        self.text.identity(&self.plan)
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        Some(&self.text.tokenizer)
    }

    /// The loss in bits per byte, by the tokens of a byte of training text.
    fn curve(&self) -> Curve {
        let (tokens, bytes) = self.text.own().iter().fold((0, 0), |(t, b), set| (t + set.train.len(), b + set.train.bytes()));
        Curve { key: "loss", scale: Some(tokens as f64 / bytes.max(1) as f64 / std::f64::consts::LN_2) }
    }

    fn keep(&self, export: &Export, model: &Decoder, summary: &Summary) -> Result<ModelId> {
        // A model that was there before has its own tokens that begin and end a text.
        let config = match self.plan.recipe.model.from {
            Some(_) => self.config.clone(),
            None => with_ends(&self.config, self.text.tokenizer.end_of_text()),
        };
        let probe = self.text.probe()?;
        let tokenizer = &self.text.tokenizer;
        export.decoder(self, summary, &Made { decoder: model, config: &config, tokenizer, template: None, probe: &probe })
    }
}

/// Programs that load the folder must know which token begins and ends a text.
fn with_ends(config: &DecoderConfig, end: u32) -> DecoderConfig {
    let mut config = config.clone();
    match &mut config {
        DecoderConfig::Llama(c) | DecoderConfig::Qwen3(c) => (c.bos_token_id, c.eos_token_id) = (Some(end), vec![end]),
        DecoderConfig::Gpt2(c) => (c.bos_token_id, c.eos_token_id) = (Some(end), vec![end]),
    }
    config
}
