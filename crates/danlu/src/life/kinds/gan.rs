//! Two networks that learn against each other.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use danlu_data::Progress;
use danlu_data::images::{ImageSet, Scale};
use danlu_models::{Gan, GanConfig, GanForm, PictureClassifier, PictureConfig, folder, noise};
use danlu_registry::ModelId;
use danlu_train::objectives::adversarial::{Adversarial, Judge, settled};
use danlu_train::recipe::{ModelKind, OptimizerKind};
use danlu_train::{Examples, Outline, Plan, Recipe, Summary, auto, check_base};

use super::pictures::read;
use super::{Curve, DataRecord, Kind};
use crate::life::export::{Export, agree, finite};
use crate::life::prepare;

/// Real pictures of an update, where the recipe does not say.
const BATCH: usize = 64;
/// Fewer say nothing of what pictures are like.
const LEAST: usize = 8;
/// Learning rate of both networks, where the recipe does not say (Radford 2015, 3).
const RATE: f64 = 2e-4;
/// Drawn pictures on which the exported model is compared.
const PROBE: usize = 16;

/// A network that draws pictures, and the one that it learned against.
pub struct Game {
    data: Vec<DataRecord>,
    set: Arc<ImageSet>,
    config: GanConfig,
    plan: Plan,
}

impl Game {
    /// # Errors
    /// When pictures cannot be read, or the recipe does not fit them, the model it starts from, or the classifier that judges.
    pub fn new(home: &Path, recipe: &Recipe, progress: &mut dyn Progress) -> Result<Self> {
        let mut recipe = recipe.clone();
        let form = match recipe.model.kind {
            ModelKind::Gan => GanForm::Mlp,
            ModelKind::Dcgan => GanForm::Dcgan,
            _ => anyhow::bail!("`objective.kind` is \"gan\": give `model.kind = \"gan\"` or \"dcgan\""),
        };
        ensure!(!recipe.freezes(), "`[adapter]` and `tune.part` are for models of text; both networks of a gan move");
        let (set, data) = read(home, &recipe, progress)?;
        let picture = [set.train.channels, set.train.height, set.train.width];
        let config = match recipe.model.from.as_deref() {
            Some(from) => {
                let config = folder::load_gan(Path::new(from), &Device::flex()).context("`model.from` cannot be used")?.1;
                ensure!(
                    config.form == form && [config.num_channels, config.image_size[0], config.image_size[1]] == picture,
                    "the model `model.from` is of the form {:?} and draws {}×{:?}; the recipe asks for {form:?}, and these are {picture:?}",
                    config.form,
                    config.num_channels,
                    config.image_size
                );
                config
            }
            None => GanConfig::new(form, picture, recipe.gan.latent, &recipe.gan.widths, recipe.gan.spectral_norm),
        };
        config.validate()?;
        let spec = &mut recipe.gan;
        (spec.latent, spec.spectral_norm) = (config.latent_size, config.spectral_norm);
        spec.widths.clone_from(&config.widths);
        if !spec.judge.is_empty() {
            let found = prepare::model_folder(home, &spec.judge).with_context(|| {
                format!(
                    "`gan.judge` names {0:?}, which is not there. Train it first (`danlu train recipes/1998-lenet5.toml`), or go without \
                     these scores by --set gan.judge=",
                    spec.judge
                )
            })?;
            spec.judge = found.display().to_string();
            // What cannot be used is better known before the first step.
            judge(&spec.judge, &set)?;
        }
        let plan = planned(&recipe, &config, set.train.len())?;
        Ok(Self { data, set: Arc::new(set), config, plan })
    }

    /// What both networks make of a little noise: the pictures, and their scores.
    fn probe(&self, model: &Gan) -> Result<Vec<f32>> {
        let latent = self.config.latent_size;
        let values = TensorData::new(noise(self.plan.recipe.seed, 0, PROBE, latent), [PROBE, latent]);
        let drawn = model.generator.forward(Tensor::from_data(values, &Device::flex()));
        let scores = finite(model.discriminator.scorer().scores(drawn.clone()))?;
        Ok([finite(drawn)?, scores].concat())
    }
}

fn judge(from: &str, set: &ImageSet) -> Result<Judge> {
    let load = || -> Result<Judge> {
        match folder::load_picture_classifier(Path::new(from), &danlu_ops::device())? {
            (PictureClassifier::Lenet(lenet), PictureConfig::Lenet(config)) => {
                Judge::new(lenet, Scale { mean: config.image_mean, deviation: config.image_std }, set)
            }
            (_, config) => anyhow::bail!("it holds a {}; pictures are compared by the features of a lenet", config.model_type()),
        }
    };
    load().context("`gan.judge` cannot be used")
}

fn planned(recipe: &Recipe, config: &GanConfig, count: usize) -> Result<Plan> {
    let mut recipe = recipe.clone();
    recipe.optimizer.kind = OptimizerKind::Adamw;
    let rate = *recipe.optimizer.rate.get_or_insert(RATE);
    recipe.optimizer.embedding_rate.get_or_insert(rate);
    recipe.eval.tasks = vec![];
    // A picture is one token here. Norms are of a whole batch, so that it goes through in one piece.
    let batch = recipe.batch.examples.unwrap_or(BATCH);
    ensure!(batch >= LEAST, "`batch.examples` is {batch}; norms are of a batch, which must be of {LEAST} pictures at least");
    recipe.batch.micro_tokens = Some(batch);
    let examples = Examples { count: count as u64, tokens: 1, usual_batch: BATCH };
    auto::resolve_examples(&recipe, Outline::from(config), &examples, config.flops(), danlu_ops::gemm_rate())
}

impl Kind for Game {
    type Objective = Adversarial;

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn objective(&self) -> Result<Adversarial> {
        let from = &self.plan.recipe.gan.judge;
        let judge = if from.is_empty() { None } else { Some(judge(from, &self.set)?) };
        Adversarial::new(&self.plan, self.set.clone(), judge)
    }

    fn fresh(&self, device: &Device) -> Result<Gan> {
        let recipe = &self.plan.recipe;
        match recipe.model.from.as_deref() {
            None => Gan::new(&self.config, recipe.seed, device),
            Some(from) => {
                check_base(recipe)?;
                Ok(folder::load_gan(Path::new(from), device)?.0.unsettled())
            }
        }
    }

    fn data(&self) -> Vec<DataRecord> {
        self.data.clone()
    }

    /// The sum of both sides says little; what the generator loses says who is ahead.
    fn curve(&self) -> Curve {
        Curve { key: "generator_loss", scale: None }
    }

    fn usage(&self, id: &ModelId) -> String {
        format!("danlu generate {id} --out pictures.png")
    }

    fn keep(&self, export: &Export, model: &Gan, summary: &Summary) -> Result<ModelId> {
        let model = model.valid().to_device(&Device::flex());
        let model = Gan { generator: settled(&model.generator, self.plan.recipe.seed), ..model };
        let expected = self.probe(&model)?;
        let write = |dir: &Path| folder::save_gan(&model, &self.config, dir);
        let check = |copy: &Path| {
            let (read, _) = folder::load_gan(copy, &Device::flex()).context("it does not load")?;
            agree(&expected, &self.probe(&read)?)
        };
        export.folder(self, summary, write, check)
    }
}
