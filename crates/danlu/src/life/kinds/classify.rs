mod plan;
mod read;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::tensor::Device;
use danlu_data::Progress;
use danlu_data::labelled::{self, Example, Features, Frame};
use danlu_data::tokenizer::Tokenizer;
use danlu_models::{Backbone, BackboneConfig, Classifier, HeadConfig, SparseRows, Task, Texts, folder};
use danlu_registry::ModelId;
use danlu_train::objectives::classify::{Classify, ClassifyData, ClassifyRow, Rates, is_new};
use danlu_train::recipe::Way;
use danlu_train::{Plan, Recipe, Summary, check_base, tune};

use super::{Curve, DataRecord, Kind, sft};
use crate::life::export::{Export, agree, finite};
pub(super) use plan::by_way;
use plan::{backbone, check_auxiliary, planned, pooling, task};
use read::{examples, feature_spec, labels, row, tokenizer};

/// The features of a model, beside its weights.
pub const FEATURES: &str = "features.json";
/// Rows are cut at this many tokens, where the recipe does not say otherwise: most of what is labelled is short.
const LONGEST: usize = 256;
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
        check_auxiliary(&recipe, config.as_ref())?;
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
        progress.note(&format!(
            "{} texts to train on, {} held out; {}{}",
            rows.len(),
            held_out.len(),
            described(&head),
            if cut > 0 { format!("; {cut} are longer than {longest} tokens and cut there") } else { String::new() }
        ));
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

fn described(head: &HeadConfig) -> String {
    let what = match head.task {
        Task::Number => "a number each".to_string(),
        _ if head.labels.len() <= 8 => format!("labels {}", head.labels.join(", ")),
        _ => format!("{} labels", head.labels.len()),
    };
    if head.features > 0 { format!("{what}; {} features", head.features) } else { what }
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
        Classify::new(&self.plan, data, recipe.freezes_below_head(), Rates::of(recipe))
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
            Task::Number => Curve { key: "loss", scale: Some(1.0) },
            _ => Curve { key: "accuracy", scale: Some(1.0) },
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
