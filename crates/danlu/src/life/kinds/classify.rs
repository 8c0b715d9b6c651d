use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use burn::module::Module;
use burn::tensor::Device;
use danlu_data::Progress;
use danlu_data::labelled::{self, Columns, Example, FeatureSpec, Features, Frame, Label, Labels, Lexicon};
use danlu_data::tokenizer::{Kind as Algorithm, Tokenizer, TrainSpec, train as learn};
use danlu_models::{Backbone, BackboneConfig, Classifier, HeadConfig, SparseRows, Task, Texts, adapter, folder};
use danlu_registry::ModelId;
use danlu_train::objectives::classify::{Classify, ClassifyData, ClassifyRow, Rates, Target, is_new};
use danlu_train::recipe::{AdapterKind, ObjectiveKind, OptimizerKind, Part, Pooling, TokenizerKind, Way};
use danlu_train::{Examples, Facts, Outline, Plan, Recipe, Summary, auto, check_base, tune};

use super::{Curve, DataRecord, Kind, sft};
use crate::life::export::{Export, agree, finite};
use crate::life::run::TOKENIZER;

/// The features of a model, beside its weights.
pub const FEATURES: &str = "features.json";
/// Rows are cut at this many tokens, where the recipe does not say otherwise: most of what is labelled is short.
const LONGEST: usize = 256;
/// Tokens that may go through the model at once.
const LARGEST_PIECE: usize = 8192;
/// Texts of an update, where the recipe does not say.
const BATCH: usize = 32;
/// Held-out texts on which the exported model is compared.
const PROBE: usize = 8;

/// Labels of texts: classes, numbers, or a tag for each word.
pub struct Labeller {
    data: Vec<DataRecord>,
    rows: Vec<ClassifyRow>,
    held_out: Vec<ClassifyRow>,
    frame: Option<Frame>,
    features: Option<Features>,
    head: HeadConfig,
    config: Option<BackboneConfig>,
    plan: Plan,
}

impl Labeller {
    /// # Errors
    /// When labelled texts cannot be read, or the recipe does not fit them or the model it starts from.
    pub fn new(home: &Path, recipe: &Recipe, run: Option<&Path>, progress: &mut dyn Progress) -> Result<Self> {
        let mut recipe = recipe.clone();
        by_way(&mut recipe)?;
        let (data, examples) = examples(home, &recipe, progress)?;
        let out = labelled::held_out(&examples, recipe.data.held_out, sft::SPLIT);
        let (mut train, mut held_out) = (vec![], vec![]);
        for (example, out) in examples.iter().zip(out) {
            if out { held_out.push(example) } else { train.push(example) }
        }
        ensure!(!train.is_empty(), "no labelled text is left to train on; lower `data.held_out` or give more texts");
        let labels = labels(&recipe, &examples)?;

        let features = match recipe.classify.way.has_features() {
            true => Some(Features::fit(&feature_spec(&recipe)?, &train).context("in `[features]`")?),
            false => None,
        };
        let tokenizer = match recipe.classify.way {
            Way::Linear => None,
            _ => Some(tokenizer(&recipe, &train, run)?),
        };
        let config = tokenizer.as_ref().map(|tokenizer| backbone(&mut recipe, tokenizer, &train)).transpose()?;
        let longest = config.as_ref().map_or(LONGEST, |config| config.context().min(recipe.model.context.unwrap_or(LONGEST)));
        let frame = tokenizer.map(|tokenizer| Frame::new(tokenizer, longest)).transpose()?;
        if frame.is_some() {
            recipe.model.context = Some(longest);
        }
        let head = HeadConfig {
            task: task(&recipe),
            pooling: pooling(&recipe, config.as_ref()),
            features: features.as_ref().map_or(0, Features::len),
            labels,
        };
        let row = |example: &&Example| row(example, &head, frame.as_ref(), features.as_ref());
        let rows: Vec<ClassifyRow> = train.iter().map(row).collect::<Result<_>>()?;
        let held_out: Vec<ClassifyRow> = held_out.iter().map(row).collect::<Result<_>>()?;
        let cut = rows.iter().chain(&held_out).filter(|row| row.text.as_ref().is_some_and(|text| text.cut)).count();
        println!(
            "  {} texts to train on, {} held out; {}{}",
            rows.len(),
            held_out.len(),
            described(&head),
            if cut > 0 { format!("; {cut} are longer than {longest} tokens and cut there") } else { String::new() }
        );
        let plan = planned(&recipe, config.as_ref(), &head, &rows)?;
        Ok(Self { data, rows, held_out, frame, features, head, config, plan })
    }

    fn way(&self) -> Way {
        self.plan.recipe.classify.way
    }

    /// The logits of a few held-out texts.
    fn probe(&self, model: &Classifier) -> Result<Vec<f32>> {
        let rows = &self.held_out[..self.held_out.len().min(PROBE)];
        let texts: Option<Vec<_>> = rows.iter().map(|row| row.text.as_ref()).collect();
        let texts = texts.map(|texts| Texts::new(texts.into_iter().map(|text| (&text.ids[..], &text.kinds[..]))));
        let mut features = SparseRows::default();
        rows.iter().for_each(|row| features.push(&row.features));
        let states = texts.and_then(|texts| model.states(&texts, false));
        finite(model.head(states, Some(&features)))
    }
}

/// What a way means, written into the sections it is made of, where the recipe does not say otherwise.
fn by_way(recipe: &mut Recipe) -> Result<()> {
    let way = recipe.classify.way;
    if way.needs_model() {
        ensure!(
            recipe.model.from.is_some(),
            "`classify.way` is {:?}, which starts from a model: give `model.from`, a registered model or a folder; \"scratch\" and \"linear\" need none",
            way.name()
        );
    }
    let frozen = recipe.adapter.kind != AdapterKind::None || recipe.tune.part != Part::All;
    match way {
        Way::FineTune | Way::Features => {}
        Way::Transfer if recipe.tune.part == Part::All => recipe.tune.part = Part::Head,
        Way::Transfer => {}
        Way::Lora if recipe.adapter.kind == AdapterKind::None => recipe.adapter.kind = AdapterKind::Lora,
        Way::Lora => {}
        Way::Scratch | Way::Linear => {
            ensure!(
                !frozen,
                "`classify.way` is {:?}, in which nothing is frozen; leave `[adapter]` and `tune.part` out",
                way.name()
            );
        }
    }
    ensure!(
        way == Way::Lora || recipe.adapter.kind == AdapterKind::None,
        "`[adapter]` goes with `classify.way = \"lora\"`; it is {:?}",
        way.name()
    );
    Ok(())
}

fn task(recipe: &Recipe) -> Task {
    match recipe.objective.kind {
        ObjectiveKind::Regression => Task::Number,
        ObjectiveKind::TokenClassify => Task::Tags,
        _ => Task::Classes,
    }
}

fn pooling(recipe: &Recipe, config: Option<&BackboneConfig>) -> danlu_models::Pooling {
    match (recipe.classify.pooling, config) {
        (Some(Pooling::First), _) => danlu_models::Pooling::First,
        (Some(Pooling::Last), _) => danlu_models::Pooling::Last,
        (Some(Pooling::Mean), _) => danlu_models::Pooling::Mean,
        (None, Some(BackboneConfig::Bert(_))) => danlu_models::Pooling::First,
        (None, _) => danlu_models::Pooling::Last,
    }
}

/// The labelled texts of all sources, each once.
fn examples(home: &Path, recipe: &Recipe, progress: &mut dyn Progress) -> Result<(Vec<DataRecord>, Vec<Example>)> {
    let spec = &recipe.classify;
    let columns = Columns {
        text: spec.text.clone(),
        pair: spec.pair.clone(),
        label: spec.label.clone(),
        numbers: if spec.way.has_features() { recipe.features.columns.clone() } else { vec![] },
    };
    let kind = match task(recipe) {
        Task::Classes => Labels::Classes,
        Task::Number => Labels::Numbers,
        Task::Tags => Labels::Tags,
    };
    let mut places = vec![];
    for source in &recipe.data.sources {
        places.push(sft::conversations(home, source, progress)?);
    }
    let found = labelled::read(&places, &columns, kind)?;
    println!("  {}: {}", recipe.data.sources.join(", "), found.summary());
    let mut hash = String::new();
    for example in &found.examples {
        hash.push_str(&danlu_files::hash_bytes(format!("{example:?}").as_bytes()));
    }
    let manifest_hash = danlu_files::hash_bytes(hash.as_bytes());
    Ok((vec![DataRecord { name: recipe.data.sources.join("+"), manifest_hash }], found.examples))
}

/// The labels in the order of the outputs: the recipe's, or those of the data, sorted.
fn labels(recipe: &Recipe, examples: &[Example]) -> Result<Vec<String>> {
    let mut found = BTreeSet::new();
    for example in examples {
        match &example.label {
            Label::Class(class) => drop(found.insert(class.clone())),
            Label::Tags(words) => found.extend(words.iter().map(|(_, tag)| tag.clone())),
            Label::Number(_) => {}
        }
    }
    let given = &recipe.classify.labels;
    if task(recipe) == Task::Number {
        return Ok(vec![]);
    }
    if let Some(other) = found.iter().find(|label| !given.is_empty() && !given.contains(label)) {
        bail!("the data has the label {other:?}, which `classify.labels` does not name; it names {}", given.join(", "));
    }
    ensure!(
        found.len() <= 4096,
        "the data has {} different labels; that is a column of numbers or texts and not of labels (for numbers there is \"regression\")",
        found.len()
    );
    if let (true, Some(only)) = (found.len() == 1, found.first()) {
        bail!("all {} texts have the label {only:?}; there is nothing to tell apart", examples.len());
    }
    Ok(if given.is_empty() { found.into_iter().collect() } else { given.clone() })
}

fn feature_spec(recipe: &Recipe) -> Result<FeatureSpec> {
    let spec = &recipe.features;
    Ok(FeatureSpec {
        counts: spec.counts,
        ngrams: if let [low, high] = spec.ngrams[..] { Some((low, high)) } else { None },
        ngram_limit: spec.ngram_limit,
        lexicon: spec.lexicon.as_ref().map(|path| Lexicon::load(Path::new(path)).context("`features.lexicon`")).transpose()?,
        columns: spec.columns.clone(),
    })
}

/// The run's tokenizer when it was begun, that of the model it starts from, or one learned from the training texts.
fn tokenizer(recipe: &Recipe, train: &[&Example], run: Option<&Path>) -> Result<Tokenizer> {
    let begun = run.map(|folder| folder.join(TOKENIZER)).filter(|path| path.exists());
    if let Some(from) = begun.or(recipe.tokenizer.from.as_ref().map(Into::into)) {
        return Tokenizer::load(&from).with_context(|| format!("{} has no tokenizer that can be used", from.display()));
    }
    let kind = match recipe.tokenizer.kind {
        TokenizerKind::Bpe => Algorithm::Bpe,
        TokenizerKind::Unigram => Algorithm::Unigram,
        TokenizerKind::Wordpiece => Algorithm::WordPiece,
    };
    let bytes: usize = train.iter().map(|example| example.text.len()).sum();
    let vocab_size = auto::vocabulary(recipe, bytes as u64, danlu_ops::gemm_rate());
    let texts = train.iter().flat_map(|example| [Some(&example.text), example.pair.as_ref()]).flatten();
    learn(&TrainSpec { kind, vocab_size, ..TrainSpec::default() }, texts.map(|text| Ok(text.clone())))
}

/// The configuration of the backbone. From scratch, a model that is named gives its shape, which is then the recipe's own.
fn backbone(recipe: &mut Recipe, tokenizer: &Tokenizer, train: &[&Example]) -> Result<BackboneConfig> {
    let config = match recipe.model.from.as_deref() {
        Some(from) => folder::load_backbone_config(Path::new(from)).with_context(|| format!("`model.from` is {from:?}"))?,
        None => {
            let bytes: usize = train.iter().map(|example| example.text.len()).sum();
            let facts = Facts {
                vocabulary: tokenizer.vocab_size(),
                // As many bytes to a token as English text has; near enough to choose a shape by.
                train_tokens: (bytes as u64 / 4).max(2),
                gemm_rate: danlu_ops::gemm_rate(),
            };
            auto::backbone(recipe, &facts)?
        }
    };
    ensure!(
        tokenizer.vocab_size() <= config.vocab_size(),
        "the tokenizer has {} entries and the model room for {}; use the model's own tokenizer",
        tokenizer.vocab_size(),
        config.vocab_size()
    );
    auto::write_backbone(&mut recipe.model, &config);
    if recipe.classify.way == Way::Scratch {
        recipe.model.from = None;
    }
    Ok(config)
}

fn row(example: &Example, head: &HeadConfig, frame: Option<&Frame>, features: Option<&Features>) -> Result<ClassifyRow> {
    let place = |label: &str| head.labels.iter().position(|known| known == label).map(|place| place as u32);
    let target = match &example.label {
        Label::Class(class) => Target::Class(place(class).with_context(|| format!("the label {class:?} is not known"))?),
        Label::Number(number) => Target::Number(*number as f32),
        Label::Tags(_) => Target::Tags,
    };
    Ok(ClassifyRow {
        source: example.text.clone(),
        text: frame.map(|frame| frame.example(example, place)).transpose()?,
        features: features.map_or(vec![], |features| features.of(example)),
        target,
    })
}

fn described(head: &HeadConfig) -> String {
    let what = match head.task {
        Task::Number => "a number each".to_string(),
        _ if head.labels.len() <= 8 => format!("labels {}", head.labels.join(", ")),
        _ => format!("{} labels", head.labels.len()),
    };
    if head.features > 0 { format!("{what}; {} features", head.features) } else { what }
}

fn planned(recipe: &Recipe, config: Option<&BackboneConfig>, head: &HeadConfig, rows: &[ClassifyRow]) -> Result<Plan> {
    let mut recipe = recipe.clone();
    recipe.optimizer.kind = OptimizerKind::Adamw;
    let hidden = config.map_or(1, BackboneConfig::hidden_size) as f64;
    // What a model keeps its knowledge under: 5e-5 at the width of BERT's base, more in narrow ones. From nothing, as in pretraining.
    let usual = match recipe.classify.way {
        Way::Scratch => 1e-3 * (256.0 / hidden).sqrt(),
        Way::Linear => recipe.features.rate.max(1e-9),
        _ => recipe.adapter.rate(5e-5 * (768.0 / hidden)),
    };
    let rate = *recipe.optimizer.rate.get_or_insert(usual);
    recipe.optimizer.embedding_rate.get_or_insert(rate);
    recipe.classify.head_rate.get_or_insert((10.0 * rate).max(1e-3));
    recipe.eval.tasks = vec![];
    let tokens: u64 = rows.iter().map(ClassifyRow::cost).sum();
    // Labels are few, and an interval on part of them is wider than it need be.
    recipe.eval.final_tokens = recipe.eval.final_tokens.max(tokens);
    let usual_tokens = (tokens / rows.len() as u64).max(1) as usize;

    // One piece where it is not large, so that an update has as many texts whatever their length.
    let whole = recipe.batch.examples.unwrap_or(BATCH) * usual_tokens;
    if whole <= LARGEST_PIECE {
        recipe.batch.micro_tokens.get_or_insert(whole.max(8));
    }
    let outline = outline(&recipe, config, head)?;
    let share = match recipe.classify.way {
        // Frozen layers read each text once, forward alone.
        Way::Transfer if frozen(&recipe) => 1.0 / 3.0 / recipe.budget.epochs.unwrap_or(1.0).max(1.0),
        Way::Lora => 2.0 / 3.0,
        _ => 1.0,
    };
    let reading = config.map_or(0.0, |config| config.flops_per_token(usual_tokens) * share);
    // A table of features costs what moving its weights does, whatever is in a batch.
    let table = 20.0 * (head.features * head.outputs()) as f64 / (BATCH * usual_tokens) as f64;
    let examples = Examples { count: rows.len() as u64, tokens: usual_tokens, usual_batch: BATCH };
    auto::resolve_examples(&recipe, outline, &examples, reading + table, danlu_ops::gemm_rate())
}

fn outline(recipe: &Recipe, config: Option<&BackboneConfig>, head: &HeadConfig) -> Result<Outline> {
    let parameters = Classifier::shapes(config, head)?;
    let size = |shape: &[usize]| shape.iter().product::<usize>() as u64;
    let all: u64 = parameters.iter().map(|(_, shape)| size(shape)).sum();
    let new: u64 = parameters.iter().filter(|(name, _)| is_new(name)).map(|(_, shape)| size(shape)).sum();
    let (extra, trained) = match (recipe.adapter.spec(), config) {
        (Some(spec), Some(BackboneConfig::Decoder(config))) => {
            let beside = adapter::parameters(config, &spec).context("in `[adapter]`")?;
            (beside, beside + new)
        }
        (Some(_), _) => bail!("`[adapter]` goes on decoders; for bert there are \"fine-tune\" and \"transfer\""),
        (None, _) => {
            let chosen = tune::chosen(&parameters, &recipe.tune, is_new).context("in `[tune]`")?;
            (0, parameters.iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|((_, shape), _)| size(shape)).sum())
        }
    };
    Ok(Outline::of_classifier(config, head, all + extra, trained))
}

/// Whether everything below the head stays as it is.
fn frozen(recipe: &Recipe) -> bool {
    recipe.tune.part == Part::Head && recipe.adapter.kind == AdapterKind::None
}

impl Kind for Labeller {
    type Objective = Classify;

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn objective(&self) -> Result<Classify> {
        let recipe = &self.plan.recipe;
        let data = ClassifyData {
            train: self.rows.clone(),
            held_out: self.held_out.clone(),
            labels: self.head.labels.clone(),
            task: self.head.task,
            tokenizer: self.frame.as_ref().map(|frame| frame.tokenizer().clone()),
            feature_names: self.features.iter().flat_map(Features::names).map(str::to_string).collect(),
        };
        let rate = recipe.optimizer.rate.unwrap_or(1.0).max(1e-12);
        let rates = Rates { head: recipe.classify.head_rate.unwrap_or(rate) / rate, features: recipe.features.rate / rate };
        Classify::new(&self.plan, data, frozen(recipe), rates)
    }

    fn fresh(&self, device: &Device) -> Result<Classifier> {
        let recipe = &self.plan.recipe;
        let backbone = match (&self.config, &recipe.model.from) {
            (None, _) => None,
            (Some(config), None) => Some((Backbone::new(config, recipe.seed, device)?, config)),
            (Some(config), Some(from)) => {
                check_base(recipe)?;
                let (mut backbone, _) = folder::load_backbone(Path::new(from), device)?;
                if let (Some(spec), Backbone::Decoder(decoder)) = (recipe.adapter.spec(), &mut backbone) {
                    *decoder = decoder.with_adapter(&spec, recipe.seed).context("in `[adapter]`")?;
                }
                Some((backbone, config))
            }
        };
        let model = Classifier::new(backbone, &self.head, recipe.seed, device)?;
        tune::freeze(model, &recipe.tune, is_new).context("in `[tune]`")
    }

    fn data(&self) -> Vec<DataRecord> {
        self.data.clone()
    }

    fn identity(&self) -> String {
        let data: Vec<&str> = self.data.iter().map(|data| data.manifest_hash.as_str()).collect();
        let tokenizer = self.frame.as_ref().map_or("", |frame| frame.tokenizer().hash());
        let features = format!("{:?}", self.features);
        danlu_files::hash_bytes(format!("{tokenizer} {} {features}", data.join(" ")).as_bytes())
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        self.frame.as_ref().map(Frame::tokenizer)
    }

    fn curve(&self) -> Curve {
        match self.head.task {
            Task::Number => Curve { key: "loss", scale: 1.0 },
            _ => Curve { key: "accuracy", scale: 1.0 },
        }
    }

    fn usage(&self, id: &ModelId) -> String {
        format!("danlu classify {id} \"some text\"")
    }

    fn keep(&self, export: &Export, model: &Classifier, summary: &Summary) -> Result<ModelId> {
        let mut model = model.valid().to_device(&Device::flex());
        if self.way() == Way::Lora
            && let Some(Backbone::Decoder(decoder)) = &mut model.backbone
        {
            *decoder = decoder.merged()?.decoder;
        }
        let expected = self.probe(&model)?;
        let write = |dir: &Path| {
            let padding = self.frame.as_ref().and_then(Frame::padding);
            folder::save_classifier(&model, self.config.as_ref(), padding, dir)?;
            if let (Some(frame), Some(config)) = (&self.frame, &self.config) {
                frame.framed()?.export(dir, config.context().min(self.plan.recipe.model.context.unwrap_or(usize::MAX)))?;
            }
            self.features.as_ref().map_or(Ok(()), |features| features.save(&dir.join(FEATURES)))
        };
        let check = |copy: &Path| {
            let (read, _) = folder::load_classifier(copy, &Device::flex()).context("it does not load")?;
            agree(&expected, &self.probe(&read)?)
        };
        export.folder(self, summary, write, check)
    }
}
