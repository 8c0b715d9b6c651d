use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use burn::module::Module;
use burn::tensor::Device;
use danlu_data::Progress;
use danlu_data::tokenizer::Tokenizer;
use danlu_models::{BackboneConfig, Bert, BertConfig, BertHeads, folder};
use danlu_ops::Segments;
use danlu_registry::ModelId;
use danlu_train::recipe::{ModelKind, TokenizerKind};
use danlu_train::{MaskedLm, Plan, Recipe, Summary, auto};

use super::pretrain::Corpora;
use super::{Curve, DataRecord, Kind};
use crate::life::export::{Export, PROBE, agree, finite};

/// An encoder that learns masked words of documents, from initial weights or going on from a model.
pub struct Masked {
    corpora: Corpora,
    config: BertConfig,
    plan: Plan,
}

impl Masked {
    /// # Errors
    /// When data cannot be had, or the recipe does not fit it.
    pub fn new(home: &Path, recipe: &Recipe, run: Option<&Path>, progress: &mut dyn Progress) -> Result<Self> {
        let mut recipe = recipe.clone();
        if recipe.model.from.is_none() {
            // What this objective is for, where the recipe leaves the defaults of pretraining.
            recipe.model.kind = ModelKind::Bert;
        }
        if recipe.tokenizer.from.is_none() {
            recipe.tokenizer.kind = TokenizerKind::Wordpiece;
        }
        let corpora = Corpora::new(home, &recipe, run, progress)?;
        let (plan, config) = auto::resolve_backbone(&recipe, &corpora.facts())?;
        let BackboneConfig::Bert(config) = config else {
            bail!("`model.from` is a decoder, which sees only what comes before a word; masked-lm is for bert")
        };
        Ok(Self { corpora, config, plan })
    }

    fn probe(&self, model: &Bert) -> Result<Vec<f32>> {
        let mut tokens = self.corpora.probe()?;
        tokens.truncate(PROBE.min(model.context()));
        let segments = Segments::rows(1, tokens.len());
        finite(model.masked_logits(model.hidden(&tokens.into(), None, &segments, false)))
    }
}

impl Kind for Masked {
    type Objective = MaskedLm;

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn objective(&self) -> Result<MaskedLm> {
        MaskedLm::new(&self.plan, &self.corpora.train(&self.plan), self.corpora.held_out()?, self.corpora.tokenizer.clone())
    }

    fn fresh(&self, device: &Device) -> Result<Bert> {
        let recipe = &self.plan.recipe;
        let Some(from) = recipe.model.from.as_deref() else {
            return Bert::new(&self.config, BertHeads { pooler: false, masked_lm: true }, recipe.seed, device);
        };
        let (mut bert, _) = folder::load_bert(Path::new(from), device)?;
        ensure!(
            bert.cls.is_some(),
            "{from} has no head for masked words, so that it cannot go on learning them; begin without `model.from`"
        );
        // The pooler sums up texts and takes no part in masked words.
        bert.bert.pooler = None;
        Ok(bert)
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
        Curve { key: "loss", scale: Some(1.0 / std::f64::consts::LN_2) }
    }

    fn usage(&self, id: &ModelId) -> String {
        format!("danlu compare RECIPE --set model.from={id}")
    }

    fn keep(&self, export: &Export, model: &Bert, summary: &Summary) -> Result<ModelId> {
        let model = model.valid().to_device(&Device::flex());
        let expected = self.probe(&model)?;
        let write = |dir: &Path| {
            folder::save_bert(&model, &self.config, dir)?;
            self.corpora.tokenizer.export(dir, self.config.max_position_embeddings)
        };
        let check = |copy: &Path| {
            let (read, _) = folder::load_bert(copy, &Device::flex()).context("it does not load")?;
            agree(&expected, &self.probe(&read)?)
        };
        export.folder(self, summary, write, check)
    }
}
