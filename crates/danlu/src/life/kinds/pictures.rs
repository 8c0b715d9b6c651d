//! Classes of pictures.

mod plan;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use danlu_data::Progress;
use danlu_data::images::{self, ImageSet, PictureFeatures, Scale, SetAside, Wanted};
use danlu_data::source::Source;
use danlu_models::{
    LenetConfig, LenetForm, PictureClassifier, PictureConfig, PictureLabeller, PictureLabellerConfig, VitClassifier, VitConfig,
    folder,
};
use danlu_ops::Planes;
use danlu_registry::ModelId;
use danlu_train::objectives::classify::is_new;
use danlu_train::objectives::image_classify::{ImageClassify, pictures_of};
use danlu_train::recipe::{AdapterKind, LenetFormKind, ModelKind, OptimizerKind, Way};
use danlu_train::{Examples, Outline, Plan, Recipe, Summary, auto, check_base, tune};

use super::{Curve, DataRecord, FEATURES, Kind, sft};
use crate::life::export::{Export, agree, finite};
use crate::life::pictures::scale_of;
use plan::{by_way, feature_spec, planned};

/// Pictures of an update, where the recipe does not say.
const BATCH: usize = 64;
/// Pictures that go through the network at once: more would only be more memory.
const TOGETHER: usize = 256;
/// Held-out pictures on which the exported model is compared.
const PROBE: usize = 16;
/// Peak learning rate of AdamW, where the recipe does not say: what small networks of convolutions stand, and in a Vision Transformer what Muon
/// does not move.
const RATE: f64 = 2e-3;
/// Width and layers of a Vision Transformer, where the recipe does not say.
const VIT: (usize, usize) = (64, 6);
/// Pictures that are set aside are listed here, below the cache.
const SET_ASIDE: &str = "set-aside";

/// A network that says which class a picture has.
pub struct Pictures {
    data: Vec<DataRecord>,
    set: Arc<ImageSet>,
    scale: Scale,
    config: PictureLabellerConfig,
    features: Option<PictureFeatures>,
    plan: Plan,
}

impl Pictures {
    /// # Errors
    /// When pictures cannot be read, or the recipe does not fit them or the model it starts from.
    pub fn new(home: &Path, recipe: &Recipe, progress: &mut dyn Progress) -> Result<Self> {
        let mut recipe = recipe.clone();
        ensure!(
            matches!(recipe.model.kind, ModelKind::Lenet | ModelKind::Vit),
            "`objective.kind` is \"image-classify\", which lenet and vit learn: give `model.kind = \"lenet\"` or \"vit\""
        );
        by_way(&mut recipe)?;
        ensure!(
            recipe.model.kind == ModelKind::Vit || recipe.vit == Default::default(),
            "`[vit]` is about patches, which lenet does not have; leave it out"
        );
        let (set, data) = read(home, &recipe, progress)?;
        let network = match recipe.classify.way {
            Way::Linear => None,
            _ => Some(network(&mut recipe, &set)?),
        };
        let scale = network.as_ref().map_or_else(|| Scale::of(&set.train), scale_of);
        let features = match recipe.classify.way.has_features() {
            true => Some(PictureFeatures::fit(&feature_spec(&recipe), &set.train, &scale).context("in `[features]`")?),
            false => None,
        };
        let count = features.as_ref().map_or(0, PictureFeatures::len);
        let config = match network {
            Some(network) => PictureLabellerConfig::of(network, count),
            None => PictureLabellerConfig {
                network: None,
                picture: planes_of(&set),
                labels: set.classes.clone(),
                image_mean: scale.mean.clone(),
                image_std: scale.deviation.clone(),
                features: count,
            },
        };
        config.validate()?;
        let plan = planned(&recipe, &config, set.train.len())?;
        Ok(Self { data, scale, set: Arc::new(set), config, features, plan })
    }

    /// The logits of a few held-out pictures.
    fn probe(&self, model: &PictureLabeller, features: Option<&PictureFeatures>) -> Result<Vec<f32>> {
        let pictures = probe(&self.set, &self.scale);
        let places: Vec<usize> = (0..pictures.dims()[0]).collect();
        let features = features.map(|features| {
            let values = features.of_all(&self.set.held_out, &places, &self.scale);
            Tensor::from_data(TensorData::new(values, [places.len(), features.len()]), &Device::flex())
        });
        finite(model.logits(pictures, features))
    }

    /// The network before the first step, where there is one.
    fn network(&self, config: &PictureConfig, device: &Device) -> Result<PictureClassifier> {
        let recipe = &self.plan.recipe;
        let Some(from) = recipe.model.from.as_deref().map(Path::new) else {
            return PictureClassifier::new(config, recipe.seed, device);
        };
        check_base(recipe)?;
        let PictureConfig::Vit(config) = config else { return Ok(folder::load_picture_classifier(from, device)?.0) };
        let (vit, before) = folder::load_vit(from, device)?;
        // A detector has the names of the classes too, and another head.
        let same = before.labels == config.labels && folder::picture_kind(from)? == Some("vit");
        let mut model = if same {
            folder::load_picture_classifier(from, device)?.0
        } else {
            PictureClassifier::Vit(VitClassifier::on(vit, config, recipe.seed, device)?)
        };
        if let (Some(spec), PictureClassifier::Vit(model)) = (recipe.adapter.spec(), &mut model) {
            model.vit = model.vit.with_adapter(&spec, recipe.seed).context("in `[adapter]`")?;
        }
        Ok(model)
    }
}

/// The network that the recipe asks for, whose shape becomes the recipe's own. From scratch, a model that is named gives no more than its shape.
fn network(recipe: &mut Recipe, set: &ImageSet) -> Result<PictureConfig> {
    if let Some(from) = recipe.model.from.clone() {
        let config = started(Path::new(&from), recipe.model.kind, set).context("`model.from` cannot be used")?;
        write_shape(recipe, &config);
        if recipe.classify.way != Way::Scratch {
            return Ok(config);
        }
        recipe.model.from = None;
    }
    let config = match recipe.model.kind {
        ModelKind::Lenet => PictureConfig::Lenet(lenet(recipe, set)),
        _ => PictureConfig::Vit(VitConfig { labels: set.classes.clone(), ..vit(recipe, picture_of(set), Scale::of(&set.train)) }),
    };
    write_shape(recipe, &config);
    Ok(config)
}

fn planes_of(set: &ImageSet) -> Planes {
    let [channels, height, width] = picture_of(set);
    Planes { channels, height, width }
}

/// A few held-out pictures.
pub(super) fn probe(set: &ImageSet, scale: &Scale) -> burn::tensor::Tensor<2> {
    let places: Vec<usize> = (0..set.held_out.len().min(PROBE)).collect();
    pictures_of(&set.held_out, &places, scale, &Device::flex())
}

/// Channels, height and width.
pub(super) fn picture_of(set: &ImageSet) -> [usize; 3] {
    [set.train.channels, set.train.height, set.train.width]
}

/// The LeNet that the recipe asks for, for these pictures.
fn lenet(recipe: &Recipe, set: &ImageSet) -> LenetConfig {
    let (spec, scale) = (&recipe.lenet, Scale::of(&set.train));
    let form = match spec.form {
        LenetFormKind::Paper => LenetForm::Paper,
        LenetFormKind::Modern => LenetForm::Modern,
    };
    let config = LenetConfig::new(form, picture_of(set), &spec.channels, &spec.hidden, set.classes.clone());
    LenetConfig { image_mean: scale.mean, image_std: scale.deviation, ..config }
}

/// The Vision Transformer that the recipe asks for, for pictures `[channels, height, width]`, without classes.
pub(super) fn vit(recipe: &Recipe, picture: [usize; 3], scale: Scale) -> VitConfig {
    let spec = &recipe.model;
    let config = VitConfig::new(picture, recipe.vit.patch, spec.hidden.unwrap_or(VIT.0), spec.layers.unwrap_or(VIT.1));
    VitConfig {
        num_attention_heads: spec.heads.unwrap_or(config.num_attention_heads),
        intermediate_size: spec.intermediate.unwrap_or(config.intermediate_size),
        image_mean: scale.mean,
        image_std: scale.deviation,
        ..config
    }
}

/// What a run that starts from a model trains: the model, or for other classes, and from an encoder that has none, a new head on it. What it
/// has learned stands on how its pictures were scaled.
fn started(from: &Path, kind: ModelKind, set: &ImageSet) -> Result<PictureConfig> {
    let config = match kind {
        ModelKind::Vit => {
            let (_, config) = folder::load_vit(from, &Device::flex())?;
            PictureConfig::Vit(VitConfig { labels: set.classes.clone(), ..config })
        }
        _ => folder::load_picture_classifier(from, &Device::flex())?.1,
    };
    ensure!(
        config.model_type() == kind_name(kind),
        "it holds a {}, and `model.kind` is {:?}",
        config.model_type(),
        kind_name(kind)
    );
    let (reads, are) = (config.picture(), picture_of(set));
    ensure!(
        [reads.channels, reads.height, reads.width] == are && config.labels() == set.classes,
        "it reads pictures of {}×{}×{} in the classes {}; these are {are:?} in {}",
        reads.channels,
        reads.height,
        reads.width,
        config.labels().join(", "),
        set.classes.join(", ")
    );
    Ok(config)
}

fn kind_name(kind: ModelKind) -> &'static str {
    if kind == ModelKind::Vit { "vit" } else { "lenet" }
}

/// Writes a chosen shape back into the recipe.
fn write_shape(recipe: &mut Recipe, config: &PictureConfig) {
    match config {
        PictureConfig::Lenet(config) => {
            recipe.lenet.form = match config.form {
                LenetForm::Paper => LenetFormKind::Paper,
                LenetForm::Modern => LenetFormKind::Modern,
            };
            (recipe.lenet.channels, recipe.lenet.hidden) = (config.channels.clone(), config.hidden_sizes.clone());
        }
        PictureConfig::Vit(config) => write_vit(recipe, config),
    }
}

pub(super) fn write_vit(recipe: &mut Recipe, config: &VitConfig) {
    recipe.vit.patch = config.patch_size;
    let spec = &mut recipe.model;
    (spec.layers, spec.hidden) = (Some(config.num_hidden_layers), Some(config.hidden_size));
    (spec.heads, spec.intermediate) = (Some(config.num_attention_heads), Some(config.intermediate_size));
}

/// The pictures of a recipe, what they are called in its record, and a note of what there is.
pub(super) fn read(home: &Path, recipe: &Recipe, progress: &mut dyn Progress) -> Result<(ImageSet, Vec<DataRecord>)> {
    ensure!(
        recipe.model.size.is_none(),
        "`model.size` is for models of text; networks of pictures get their shape by `[lenet]`, or `model.layers` and `model.hidden`"
    );
    let set = found(home, recipe, progress)?;
    let train = &set.train;
    progress.note(&format!(
        "{} pictures to train on, {} held out ({}); {} of {}×{}, {} classes{}",
        set.train.len(),
        set.held_out.len(),
        if set.own_test { "the data's own test set" } else { "chosen by their hash" },
        if train.channels == 1 { "grey" } else { "coloured" },
        train.height,
        train.width,
        set.classes.len(),
        aside(home, &recipe.name, &set.set_aside)?
    ));
    let data = vec![DataRecord { name: recipe.data.sources.join("+"), manifest_hash: set.hash() }];
    Ok((set, data))
}

fn found(home: &Path, recipe: &Recipe, progress: &mut dyn Progress) -> Result<ImageSet> {
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
        limit: spec.limit,
        seed: sft::SPLIT,
    };
    images::read(&files, &wanted)
}

/// Lists what was set aside, and says how much that is and where the reasons are.
pub(super) fn aside(home: &Path, name: &str, set_aside: &[SetAside]) -> Result<String> {
    let Some(first) = set_aside.first() else { return Ok(String::new()) };
    let path = home.join("cache").join(SET_ASIDE).join(format!("{name}.jsonl"));
    let lines: Vec<String> = set_aside.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    danlu_files::write_atomic_bytes(&path, (lines.join("\n") + "\n").as_bytes())?;
    Ok(format!("; {} set aside, the first because {}: {}", set_aside.len(), first.reason, path.display()))
}

/// Completes a recipe whose rows are pictures.
pub(super) fn resolved(mut recipe: Recipe, outline: Outline, count: usize, flops: f64) -> Result<Plan> {
    let rate = *recipe.optimizer.rate.get_or_insert(RATE);
    recipe.optimizer.embedding_rate.get_or_insert(rate);
    if recipe.optimizer.kind == OptimizerKind::Muon {
        recipe.optimizer.muon_rate.get_or_insert(auto::muon_rate(outline.hidden));
    }
    recipe.eval.tasks = vec![];
    // A picture is one token here, and the whole test set is what a number is about.
    let batch = recipe.batch.examples.unwrap_or(BATCH);
    recipe.batch.micro_tokens.get_or_insert(batch.clamp(8, TOGETHER));
    let examples = Examples { count: count as u64, tokens: 1, usual_batch: BATCH };
    auto::resolve_examples(&recipe, outline, &examples, flops, danlu_ops::gemm_rate())
}

impl Kind for Pictures {
    type Objective = ImageClassify;

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn objective(&self) -> Result<ImageClassify> {
        let objective = ImageClassify::new(&self.plan, self.set.clone(), self.scale.clone())?;
        let objective = objective.with_features(self.features.clone());
        if self.plan.recipe.freezes_below_head() { objective.with_frozen_layers() } else { Ok(objective) }
    }

    fn fresh(&self, device: &Device) -> Result<PictureLabeller> {
        let network = self.config.network.as_ref().map(|config| self.network(config, device)).transpose()?;
        let model = PictureLabeller::new(network, &self.config, device)?;
        tune::freeze(model, &self.plan.recipe.tune, is_new).context("in `[tune]`")
    }

    fn data(&self) -> Vec<DataRecord> {
        self.data.clone()
    }

    fn curve(&self) -> Curve {
        Curve { key: "accuracy", scale: Some(1.0) }
    }

    fn usage(&self, id: &ModelId) -> String {
        format!("danlu classify {id} picture.png")
    }

    fn keep(&self, export: &Export, model: &PictureLabeller, summary: &Summary) -> Result<ModelId> {
        let mut model = model.valid().to_device(&Device::flex());
        if self.plan.recipe.adapter.kind != AdapterKind::None
            && let Some(PictureClassifier::Vit(model)) = &mut model.backbone
        {
            model.vit = model.vit.merged()?;
        }
        let expected = self.probe(&model, self.features.as_ref())?;
        let write = |dir: &Path| {
            folder::save_picture_labeller(&model, &self.config, dir)?;
            self.features.as_ref().map_or(Ok(()), |features| features.save(&dir.join(FEATURES)))
        };
        let check = |copy: &Path| {
            let (read, _) = folder::load_picture_labeller(copy, &Device::flex()).context("it does not load")?;
            let features = self.features.as_ref().map(|_| PictureFeatures::load(&copy.join(FEATURES))).transpose()?;
            agree(&expected, &self.probe(&read, features.as_ref())?)
        };
        export.folder(self, summary, write, check)
    }
}
