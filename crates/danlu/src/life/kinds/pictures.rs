//! Classes of pictures.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use burn::module::Module;
use burn::tensor::Device;
use danlu_data::Progress;
use danlu_data::images::{self, ImageSet, Scale, SetAside, Wanted};
use danlu_data::source::Source;
use danlu_data::tokenizer::Tokenizer;
use danlu_models::{Lenet, LenetConfig, LenetForm, folder};
use danlu_registry::ModelId;
use danlu_train::objectives::image_classify::{ImageClassify, pictures_of};
use danlu_train::recipe::{LenetFormKind, ModelKind, OptimizerKind};
use danlu_train::{Examples, Outline, Plan, Recipe, Summary, auto, check_base};

use super::{Curve, DataRecord, Kind, sft};
use crate::life::export::{Export, agree, finite};

/// Pictures of an update, where the recipe does not say.
const BATCH: usize = 64;
/// Pictures that go through the network at once: more would only be more memory.
const TOGETHER: usize = 256;
/// Held-out pictures on which the exported model is compared.
const PROBE: usize = 16;
/// Peak learning rate of AdamW, where the recipe does not say: what small networks of convolutions stand.
const RATE: f64 = 2e-3;
/// Pictures that are set aside are listed here, below the cache.
const SET_ASIDE: &str = "set-aside";

/// A network that says which class a picture has.
pub struct Pictures {
    data: Vec<DataRecord>,
    set: Arc<ImageSet>,
    scale: Scale,
    config: LenetConfig,
    plan: Plan,
}

impl Pictures {
    /// # Errors
    /// When pictures cannot be read, or the recipe does not fit them or the model it starts from.
    pub fn new(home: &Path, recipe: &Recipe, progress: &mut dyn Progress) -> Result<Self> {
        let mut recipe = recipe.clone();
        ensure!(
            recipe.model.kind == ModelKind::Lenet,
            "`objective.kind` is \"image-classify\", which lenet learns: give `model.kind = \"lenet\"`"
        );
        ensure!(!recipe.freezes(), "`[adapter]` and `tune.part` are for models of text; a network of pictures moves as a whole");
        let set = read(home, &recipe, progress)?;
        let start = match recipe.model.from.as_deref() {
            None => None,
            Some(from) => Some(folder::load_lenet(Path::new(from), &Device::flex()).context("`model.from` cannot be used")?.1),
        };
        let train = &set.train;
        let picture = [train.channels, train.height, train.width];
        let scale = match &start {
            // What it has learned stands on how its pictures were scaled.
            Some(config) => Scale { mean: config.image_mean.clone(), deviation: config.image_std.clone() },
            None => Scale::of(train),
        };
        let config = match start {
            Some(config) => {
                ensure!(
                    [config.num_channels, config.image_size[0], config.image_size[1]] == picture && config.labels == set.classes,
                    "the model `model.from` reads pictures of {}×{:?} in the classes {}; these are {picture:?} in {}",
                    config.num_channels,
                    config.image_size,
                    config.labels.join(", "),
                    set.classes.join(", ")
                );
                config
            }
            None => {
                let spec = &recipe.lenet;
                let form = match spec.form {
                    LenetFormKind::Paper => LenetForm::Paper,
                    LenetFormKind::Modern => LenetForm::Modern,
                };
                let config = LenetConfig::new(form, picture, &spec.channels, &spec.hidden, set.classes.clone());
                LenetConfig { image_mean: scale.mean.clone(), image_std: scale.deviation.clone(), ..config }
            }
        };
        config.validate()?;
        recipe.lenet.form = match config.form {
            LenetForm::Paper => LenetFormKind::Paper,
            LenetForm::Modern => LenetFormKind::Modern,
        };
        (recipe.lenet.channels, recipe.lenet.hidden) = (config.channels.clone(), config.hidden_sizes.clone());
        note(home, &recipe.name, &set, progress)?;
        let plan = planned(&recipe, &config, set.train.len())?;
        let data = vec![DataRecord { name: recipe.data.sources.join("+"), manifest_hash: set.hash() }];
        Ok(Self { data, set: Arc::new(set), scale, config, plan })
    }

    /// The logits of a few held-out pictures.
    fn probe(&self, model: &Lenet) -> Result<Vec<f32>> {
        let places: Vec<usize> = (0..self.set.held_out.len().min(PROBE)).collect();
        finite(model.logits(pictures_of(&self.set.held_out, &places, &self.scale, &Device::flex())))
    }
}

/// The pictures that a recipe names.
///
/// # Errors
/// When there are none, or they cannot be read.
pub(super) fn read(home: &Path, recipe: &Recipe, progress: &mut dyn Progress) -> Result<ImageSet> {
    let [source] = &recipe.data.sources[..] else {
        bail!("`data.sources` names {} sources; pictures come from one", recipe.data.sources.len());
    };
    let files = match sft::conversations(home, source, progress)? {
        Source::Path(path) => vec![PathBuf::from(path)],
        Source::Files { files, .. } => files,
        Source::Crates => bail!("{source:?} holds no pictures"),
    };
    progress.start("read the pictures", None, "pictures");
    let spec = &recipe.image;
    let wanted = Wanted {
        size: if let [height, width] = spec.size[..] { Some((height, width)) } else { None },
        channels: spec.channels,
        classes: recipe.classify.labels.clone(),
        held_out: recipe.data.held_out,
        seed: sft::SPLIT,
    };
    images::read(&files, &wanted)
}

/// Says what pictures there are.
pub(super) fn note(home: &Path, name: &str, set: &ImageSet, progress: &mut dyn Progress) -> Result<()> {
    progress.note(&format!(
        "{} pictures to train on, {} held out ({}); {} of {}×{}, {} classes{}",
        set.train.len(),
        set.held_out.len(),
        if set.own_test { "the data's own test set" } else { "chosen by their hash" },
        if set.train.channels == 1 { "grey" } else { "coloured" },
        set.train.height,
        set.train.width,
        set.classes.len(),
        aside(home, name, &set.set_aside)?
    ));
    Ok(())
}

/// Lists what was set aside, and says how much that is and where the reasons are.
fn aside(home: &Path, name: &str, set_aside: &[SetAside]) -> Result<String> {
    let Some(first) = set_aside.first() else { return Ok(String::new()) };
    let path = home.join("cache").join(SET_ASIDE).join(format!("{name}.jsonl"));
    let lines: Vec<String> = set_aside.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    danlu_files::write_atomic_bytes(&path, (lines.join("\n") + "\n").as_bytes())?;
    Ok(format!("; {} set aside, the first because {}: {}", set_aside.len(), first.reason, path.display()))
}

fn planned(recipe: &Recipe, config: &LenetConfig, count: usize) -> Result<Plan> {
    let mut recipe = recipe.clone();
    recipe.optimizer.kind = OptimizerKind::Adamw;
    let rate = *recipe.optimizer.rate.get_or_insert(RATE);
    recipe.optimizer.embedding_rate.get_or_insert(rate);
    recipe.eval.tasks = vec![];
    // A picture is one token here, and the whole test set is what a number is about.
    let batch = recipe.batch.examples.unwrap_or(BATCH);
    recipe.batch.micro_tokens.get_or_insert(batch.clamp(8, TOGETHER));
    let examples = Examples { count: count as u64, tokens: 1, usual_batch: BATCH };
    auto::resolve_examples(&recipe, Outline::from(config), &examples, config.flops(), danlu_ops::gemm_rate())
}

impl Kind for Pictures {
    type Objective = ImageClassify;

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn objective(&self) -> Result<ImageClassify> {
        ImageClassify::new(&self.plan, self.set.clone(), self.scale.clone())
    }

    fn fresh(&self, device: &Device) -> Result<Lenet> {
        let recipe = &self.plan.recipe;
        match recipe.model.from.as_deref() {
            None => Lenet::new(&self.config, recipe.seed, device),
            Some(from) => {
                check_base(recipe)?;
                Ok(folder::load_lenet(Path::new(from), device)?.0)
            }
        }
    }

    fn data(&self) -> Vec<DataRecord> {
        self.data.clone()
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        None
    }

    fn curve(&self) -> Curve {
        Curve { key: "accuracy", scale: 1.0 }
    }

    fn usage(&self, id: &ModelId) -> String {
        format!("danlu classify {id} picture.png")
    }

    fn keep(&self, export: &Export, model: &Lenet, summary: &Summary) -> Result<ModelId> {
        let model = model.valid().to_device(&Device::flex());
        let expected = self.probe(&model)?;
        let write = |dir: &Path| folder::save_lenet(&model, &self.config, dir);
        let check = |copy: &Path| {
            let (read, _) = folder::load_lenet(copy, &Device::flex()).context("it does not load")?;
            agree(&expected, &self.probe(&read)?)
        };
        export.folder(self, summary, write, check)
    }
}
