use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use danlu_data::chat::{self, Conversation, Encoded, Encoder, Packed, Template};
use danlu_data::source::Source;
use danlu_data::tokenizer::Tokenizer;
use danlu_data::{Progress, catalogue};
use danlu_models::{Decoder, DecoderConfig};
use danlu_registry::ModelId;
use danlu_train::{Facts, Plan, Recipe, Sft, Summary, auto, initial_model};

use super::{Curve, DataRecord, Kind};
use crate::life::export::{Export, Made};

/// A rate at which a model of this kind keeps what it knows; pretraining's would wipe it out.
const RATE: f64 = 1e-4;

/// Instruction tuning on conversations.
pub struct Tune {
    data: Vec<DataRecord>,
    train: Packed,
    held_out: Vec<(Conversation, Encoded)>,
    encoder: Encoder,
    config: DecoderConfig,
    plan: Plan,
}

impl Tune {
    /// # Errors
    /// When the recipe names no model, conversations cannot be read, or the template does not suit the tokenizer.
    pub fn new(home: &Path, recipe: &Recipe, progress: &mut dyn Progress) -> Result<Self> {
        let from = recipe.model.from.as_deref().context(
            "instruction tuning starts from a model: give `model.from` (a registered model or a folder); `danlu models pull smollm2` brings one",
        )?;
        let mut tuned = recipe.clone();
        careful(&mut tuned);
        Self::reading(home, &tuned, encoder(Path::new(from))?, |talks, _, _| Ok(talks), progress)
    }

    /// The conversations of `recipe`, as `encoder` writes them; those to train on are what `rewritten` makes of them.
    ///
    /// # Errors
    /// As [`Tune::new`].
    pub fn reading(
        home: &Path,
        recipe: &Recipe,
        encoder: Encoder,
        rewritten: impl FnOnce(Vec<Conversation>, &Encoder, &mut dyn Progress) -> Result<Vec<Conversation>>,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let mut recipe = recipe.clone();
        let (mut data, mut all) = (vec![], vec![]);
        for source in &recipe.data.sources {
            let found = chat::read(&[conversations(home, source, progress)?]).with_context(|| format!("in {source}"))?;
            progress.note(&format!("{source}: {}", found.summary()));
            let text = serde_json::to_vec(&found.records)?;
            data.push(DataRecord { name: source.clone(), manifest_hash: danlu_files::hash_bytes(&text) });
            all.extend(found.records);
        }
        ensure!(!all.is_empty(), "`data.sources` is empty; name at least one file of conversations");
        let out = chat::held_out(&all, recipe.data.held_out, recipe.seed);
        let (mut talks, mut held_out) = (vec![], vec![]);
        for (conversation, out) in all.into_iter().zip(out) {
            if out {
                held_out.extend(encoder.rows(&conversation)?.into_iter().map(|row| (conversation.clone(), row)));
            } else {
                talks.push(conversation);
            }
        }
        let mut train = vec![];
        for conversation in rewritten(talks, &encoder, progress)? {
            train.extend(encoder.rows(&conversation)?);
        }
        // Rows no longer than need be: most conversations are short.
        let longest = train.iter().map(|one| one.ids.len()).max().unwrap_or(1).next_multiple_of(64);
        recipe.model.context.get_or_insert(longest.clamp(64, 1024));
        let tokens = train.iter().map(|one| one.ids.len() as u64).sum();
        let facts =
            Facts { vocabulary: encoder.tokenizer().vocab_size(), train_tokens: tokens, gemm_rate: danlu_ops::gemm_rate() };
        let (mut plan, config) = auto::resolve(&recipe, &facts)?;
        let train = Packed::new(train, plan.row_len, encoder.turn_end(), recipe.seed)?;
        progress.note(&format!(
            "{} conversations in {} rows of {} tokens, {:.0} % of which they fill; {} too long or without an answer; {} held out",
            train.conversations(),
            train.rows(),
            plan.row_len,
            train.filled() * 100.0,
            train.too_long,
            held_out.len()
        ));
        if let Some(epochs) = recipe.budget.epochs {
            plan.steps = (epochs * train.rows() as f64 / plan.rows as f64).round().max(1.0) as u64;
        }
        Ok(Self { data, train, held_out, encoder, config, plan })
    }

    /// The same run with another plan and another model.
    pub(super) fn for_student(mut self, of: impl FnOnce(Plan, DecoderConfig) -> (Plan, DecoderConfig)) -> Self {
        (self.plan, self.config) = of(self.plan, self.config);
        self
    }
}

/// What suits a model that knows something already, where the recipe does not say otherwise.
pub(super) fn careful(recipe: &mut Recipe) {
    recipe.optimizer.kind = danlu_train::recipe::OptimizerKind::Adamw;
    recipe.optimizer.rate.get_or_insert(recipe.adapter.usual_rate().unwrap_or(RATE));
    recipe.batch.tokens.get_or_insert(4096);
}

/// The template and tokenizer of a model's folder.
///
/// # Errors
/// When there is no tokenizer, or its template ends turns with nothing the model could learn to write.
pub fn encoder(folder: &Path) -> Result<Encoder> {
    let tokenizer = Tokenizer::load(folder).with_context(|| format!("{} has no tokenizer", folder.display()))?;
    let template = match Template::of_folder(folder)? {
        Some(template) => template,
        None => Template::chatml()?,
    };
    Encoder::new(template, tokenizer)
        .with_context(|| format!("conversations cannot be written for the model in {}", folder.display()))
}

/// The configuration of a model that has learned to end its turns: what loads its folder stops there.
pub fn answering(config: &DecoderConfig, encoder: &Encoder) -> DecoderConfig {
    let (mut config, end) = (config.clone(), encoder.turn_end());
    if !config.eos_token_id().contains(&end) {
        match &mut config {
            DecoderConfig::Llama(c) | DecoderConfig::Qwen3(c) => c.eos_token_id.push(end),
            DecoderConfig::Gpt2(c) => c.eos_token_id.push(end),
        }
    }
    config
}

/// A file or folder of conversations, or those of the catalogue's entry.
///
/// # Errors
/// When there is neither.
pub fn conversations(home: &Path, source: &str, progress: &mut dyn Progress) -> Result<Source> {
    if Path::new(source).exists() || source.contains(['*', '/']) {
        return Ok(Source::Path(source.to_string()));
    }
    let entry =
        catalogue::find(source).with_context(|| format!("{source:?} is no file, no folder and no entry of the catalogue"))?;
    Ok(catalogue::fetch_in(&home.join("cache"), &entry, progress)?.source)
}

impl Kind for Tune {
    type Objective = Sft;

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn objective(&self) -> Result<Sft> {
        ensure!(!self.held_out.is_empty(), "no conversation is held out to measure with; raise `data.held_out`");
        Ok(Sft::new(&self.plan, self.train.clone(), self.held_out.clone(), self.encoder.clone()))
    }

    fn fresh(&self, device: &Device) -> Result<Decoder> {
        initial_model(&self.plan.recipe, &self.config, device)
    }

    fn data(&self) -> Vec<DataRecord> {
        self.data.clone()
    }

    fn identity(&self) -> String {
        let data: Vec<&str> = self.data.iter().map(|data| data.manifest_hash.as_str()).collect();
        let text = format!("{} {} {}", self.encoder.tokenizer().hash(), self.encoder.template().hash(), data.join(" "));
        danlu_files::hash_bytes(text.as_bytes())
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        Some(self.encoder.tokenizer())
    }

    /// The loss in bits per byte of answers, by the bytes of the held-out ones.
    fn curve(&self) -> Curve {
        let (tokens, bytes) = self.held_out.iter().fold((0, 0), |(tokens, bytes), (_, one)| {
            (tokens + one.loss.iter().filter(|loss| **loss).count(), bytes + one.bytes)
        });
        Curve { key: "loss", scale: tokens as f64 / bytes.max(1) as f64 / std::f64::consts::LN_2 }
    }

    fn keep(&self, export: &Export, model: &Decoder, summary: &Summary) -> Result<ModelId> {
        let probe = self.held_out.first().map_or(&[][..], |(_, one)| &one.ids);
        let config = answering(&self.config, &self.encoder);
        let (tokenizer, template) = (self.encoder.tokenizer(), Some(self.encoder.template()));
        export.decoder(self, summary, &Made { decoder: model, config: &config, tokenizer, template, probe })
    }
}
