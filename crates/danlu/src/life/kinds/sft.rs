use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use danlu_data::chat::{self, Conversation, Encoded, Encoder, Packed, PackedMixture, Template};
use danlu_data::source::Source;
use danlu_data::tokenizer::Tokenizer;
use danlu_data::{Progress, catalogue};
use danlu_models::{Decoder, DecoderConfig};
use danlu_registry::ModelId;
use danlu_train::{Facts, Plan, Recipe, Sft, Summary, auto, initial_model};

use super::{Curve, DataRecord, Kind};
use crate::life::export::{Export, Made};

/// Decides what is held out of conversations, preferences, questions and labels. It is the same for all runs, whatever their seeds, so that
/// runs of several seeds are measured on the same, and no model of a line on what another was trained on.
pub const SPLIT: u64 = 0;

/// Instruction tuning on conversations.
pub struct Tune {
    data: Vec<DataRecord>,
    train: PackedMixture,
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
        let encoder = on_the_runs_day(encoder(Path::new(from))?, &mut tuned)?;
        Self::reading(home, &tuned, encoder, |talks, _, _| Ok(talks), progress)
    }

    /// The conversations of `recipe`, as `encoder` writes them; those to train on are what `rewritten` makes of each source's, but for what is
    /// only read again.
    ///
    /// # Errors
    /// As [`Tune::new`].
    pub fn reading(
        home: &Path,
        recipe: &Recipe,
        encoder: Encoder,
        mut rewritten: impl FnMut(Vec<Conversation>, &Encoder, &mut dyn Progress) -> Result<Vec<Conversation>>,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let mut recipe = recipe.clone();
        ensure!(!recipe.data.sources.is_empty(), "`data.sources` is empty; name at least one file of conversations");
        let (mut sources, mut replay) = (vec![], vec![]);
        for source in &recipe.data.sources {
            sources.push(read(home, source, &recipe, &encoder, &mut rewritten, progress)?);
        }
        for source in &recipe.data.replay {
            replay.push(read(home, source, &recipe, &encoder, &mut |talks, _, _| Ok(talks), progress)?);
        }
        let data = sources.iter().chain(&replay).map(|part: &Part| part.record.clone()).collect();
        // What is only read again is not what the run is measured on.
        let held_out: Vec<_> = sources.iter_mut().flat_map(|part| std::mem::take(&mut part.held_out)).collect();

        // Rows no longer than need be: most conversations are short.
        let lengths = sources.iter().chain(&replay).flat_map(|part| &part.train).map(|one| one.ids.len());
        let longest = lengths.max().unwrap_or(1).next_multiple_of(64);
        recipe.model.context.get_or_insert(longest.clamp(64, 1024));
        let sizes = |parts: &[Part]| parts.iter().map(Part::tokens).collect::<Vec<u64>>();
        let facts = Facts {
            vocabulary: encoder.tokenizer().vocab_size(),
            train_tokens: sizes(&sources).iter().sum(),
            gemm_rate: danlu_ops::gemm_rate(),
        };
        let mut shares = recipe.data.shares(&sizes(&sources), &sizes(&replay));
        let of_replay = shares.split_off(sources.len());
        let (mut plan, config) = auto::resolve(&recipe, &facts)?;
        // Sources in the shares of their sizes are one, so that every conversation is seen once in an epoch.
        if !recipe.data.is_mixed() {
            let train = sources.iter_mut().flat_map(|part| std::mem::take(&mut part.train)).collect();
            let record = DataRecord { name: recipe.data.sources.join(", "), ..DataRecord::default() };
            (sources, shares) = (vec![Part { record, train, ..Part::default() }], vec![shares.iter().sum()]);
        }
        let own = sources.len();
        let packed = sources.into_iter().chain(replay.drain(..)).zip(shares.iter().chain(&of_replay));
        let packed = packed.map(|(part, share)| Ok((part.packed(&plan, &encoder)?, *share))).collect::<Result<Vec<_>>>()?;
        let train = PackedMixture::new(packed, recipe.seed)?;
        let rows: u64 = train.sources()[..own].iter().map(Packed::rows).sum();
        if let Some(epochs) = recipe.budget.epochs {
            let share: f64 = shares.iter().sum();
            plan.steps = (epochs * rows as f64 / share / plan.rows as f64).round().max(1.0) as u64;
        }
        progress.note(&format!("{}; {} held out", described(&train, plan.row_len), held_out.len()));
        Ok(Self { data, train, held_out, encoder, config, plan })
    }

    /// The same run with another plan and another model.
    pub(super) fn for_student(mut self, of: impl FnOnce(Plan, DecoderConfig) -> (Plan, DecoderConfig)) -> Self {
        (self.plan, self.config) = of(self.plan, self.config);
        self
    }
}

/// One source, read and encoded.
#[derive(Default)]
struct Part {
    record: DataRecord,
    train: Vec<Encoded>,
    held_out: Vec<(Conversation, Encoded)>,
}

impl Part {
    fn tokens(&self) -> u64 {
        self.train.iter().map(|one| one.ids.len() as u64).sum()
    }

    fn packed(self, plan: &Plan, encoder: &Encoder) -> Result<Packed> {
        let name = self.record.name;
        Packed::new(self.train, plan.row_len, encoder.turn_end(), plan.recipe.seed).with_context(|| format!("in {name}"))
    }
}

/// What a source's conversations to train on become before they are encoded.
type Rewrite<'a> = &'a mut dyn FnMut(Vec<Conversation>, &Encoder, &mut dyn Progress) -> Result<Vec<Conversation>>;

fn read(
    home: &Path,
    source: &str,
    recipe: &Recipe,
    encoder: &Encoder,
    rewritten: Rewrite,
    progress: &mut dyn Progress,
) -> Result<Part> {
    let found = chat::read(&[conversations(home, source, progress)?]).with_context(|| format!("in {source}"))?;
    progress.note(&format!("{source}: {}", found.summary()));
    let text = serde_json::to_vec(&found.records)?;
    let record = DataRecord { name: source.to_owned(), manifest_hash: danlu_files::hash_bytes(&text) };
    let mut part = Part { record, ..Part::default() };
    let out = chat::held_out(&found.records, recipe.data.held_out, SPLIT);
    let mut talks = vec![];
    for (conversation, out) in found.records.into_iter().zip(out) {
        if out {
            part.held_out.extend(encoder.rows(&conversation)?.into_iter().map(|row| (conversation.clone(), row)));
        } else {
            talks.push(conversation);
        }
    }
    for conversation in rewritten(talks, encoder, progress)? {
        part.train.extend(encoder.rows(&conversation)?);
    }
    Ok(part)
}

fn described(train: &PackedMixture, row_len: usize) -> String {
    let sum = |count: &dyn Fn(&Packed) -> usize| train.sources().iter().map(count).sum::<usize>();
    let rows = sum(&|part| part.rows() as usize);
    let tokens = sum(&|part| part.tokens() as usize);
    format!(
        "{} conversations in {rows} rows of {row_len} tokens, {:.0} % of which they fill; {} too long or without an answer",
        sum(&|part| part.conversations()),
        100.0 * tokens as f64 / (rows * row_len) as f64,
        sum(&|part| part.too_long)
    )
}

/// A template that reads the clock is told the day on which the run began, also when it goes on on another.
fn on_the_runs_day(encoder: Encoder, recipe: &mut Recipe) -> Result<Encoder> {
    if !encoder.template().reads_the_clock() {
        return Ok(encoder);
    }
    let today = || danlu_registry::timestamp().chars().take("2026-11-24".len()).collect();
    let date = recipe.data.date.get_or_insert_with(today);
    let template = encoder.template().clone().on(date).context("`data.date` cannot be used")?;
    Encoder::new(template, encoder.tokenizer().clone())
}

/// What suits a model that knows something already, where the recipe does not say otherwise.
pub(super) fn careful(recipe: &mut Recipe) {
    recipe.optimizer.kind = danlu_train::recipe::OptimizerKind::Adamw;
    recipe.optimizer.rate.get_or_insert(recipe.adapter.rate(auto::TUNING_RATE));
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

    fn tokenizer(&self) -> Option<&Tokenizer> {
        Some(self.encoder.tokenizer())
    }

    fn template(&self) -> Option<&Template> {
        Some(self.encoder.template())
    }

    /// The loss in bits per byte of answers, by the bytes of the held-out ones.
    fn curve(&self) -> Curve {
        let (tokens, bytes) = self.held_out.iter().fold((0, 0), |(tokens, bytes), (_, one)| {
            (tokens + one.loss.iter().filter(|loss| **loss).count(), bytes + one.bytes)
        });
        Curve { key: "loss", scale: Some(tokens as f64 / bytes.max(1) as f64 / std::f64::consts::LN_2) }
    }

    fn usage(&self, id: &ModelId) -> String {
        format!("danlu chat {id}")
    }

    fn keep(&self, export: &Export, model: &Decoder, summary: &Summary) -> Result<ModelId> {
        let probe = self.held_out.first().map_or(&[][..], |(_, one)| &one.ids);
        let config = answering(&self.config, &self.encoder);
        let (tokenizer, template) = (self.encoder.tokenizer(), self.template());
        export.decoder(self, summary, &Made { decoder: model, config: &config, tokenizer, template, probe })
    }
}
