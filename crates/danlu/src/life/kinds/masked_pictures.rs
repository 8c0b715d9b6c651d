//! Masked autoencoders: encoders of pictures that learn without labels.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::tensor::Device;
use danlu_data::Progress;
use danlu_data::images::{ImageSet, Scale, drawn_patches};
use danlu_models::{Mae, MaeConfig, folder};
use danlu_registry::ModelId;
use danlu_train::recipe::ModelKind;
use danlu_train::{MaskedImage, Outline, Plan, Recipe, Summary, check_base};

use super::pictures::{picture_of, probe, read, resolved, vit, write_vit};
use super::{Curve, DataRecord, Kind};
use crate::life::export::{Export, agree};

/// Channels of a decoder, at least, where the recipe does not say.
const NARROW: usize = 32;

/// An encoder that learns to see what is hidden.
pub struct MaskedPictures {
    data: Vec<DataRecord>,
    set: Arc<ImageSet>,
    scale: Scale,
    config: MaeConfig,
    plan: Plan,
}

impl MaskedPictures {
    /// # Errors
    /// When pictures cannot be read, or the recipe does not fit them or the model it starts from.
    pub fn new(home: &Path, recipe: &Recipe, progress: &mut dyn Progress) -> Result<Self> {
        let mut recipe = recipe.clone();
        ensure!(
            recipe.model.kind == ModelKind::Vit,
            "`objective.kind` is \"masked-image\", which vit learns: give `model.kind = \"vit\"`"
        );
        ensure!(!recipe.freezes(), "`[adapter]` and `tune.part` are for a task; an autoencoder of pictures moves as a whole");
        ensure!(recipe.vit.keep == 1.0, "`vit.keep` is for classifiers; how many patches are seen here is said by `mae.mask`");
        let (set, data) = read(home, &recipe, progress)?;
        let config = match recipe.model.from.as_deref() {
            Some(from) => folder::load_mae(Path::new(from), &Device::flex()).context("`model.from` cannot be used")?.1,
            None => {
                let encoder = vit(&recipe, picture_of(&set), Scale::of(&set.train));
                let hidden = recipe.mae.hidden.unwrap_or((encoder.hidden_size / 2).next_multiple_of(NARROW));
                let config = MaeConfig::new(encoder, hidden, recipe.mae.layers);
                MaeConfig { mask_ratio: recipe.mae.mask, norm_pix_loss: recipe.mae.normalize, ..config }
            }
        };
        config.validate()?;
        let (reads, train) = (config.vit.picture(), &set.train);
        ensure!(
            (reads.channels, reads.height, reads.width) == (train.channels, train.height, train.width),
            "the model `model.from` reads pictures of {}×{}×{}; these are {}×{}×{}",
            reads.channels,
            reads.height,
            reads.width,
            train.channels,
            train.height,
            train.width
        );
        write_vit(&mut recipe, &config.vit);
        let mae = &mut recipe.mae;
        (mae.mask, mae.normalize) = (config.mask_ratio, config.norm_pix_loss);
        (mae.layers, mae.hidden) = (config.decoder_num_hidden_layers, Some(config.decoder_hidden_size));
        let plan = resolved(recipe, Outline::from(&config), set.train.len(), config.flops())?;
        let scale = Scale { mean: config.vit.image_mean.clone(), deviation: config.vit.image_std.clone() };
        Ok(Self { data, set: Arc::new(set), scale, config, plan })
    }

    /// The losses of a few held-out pictures.
    fn probe(&self, model: &Mae) -> Vec<f32> {
        let pictures = probe(&self.set, &self.scale);
        let (patches, kept) = (self.config.vit.patches(), self.config.kept());
        let kept = (0..pictures.dims()[0] as u64).flat_map(|place| drawn_patches(patches, kept, place, 0)).collect();
        model.losses(pictures, &kept)
    }
}

impl Kind for MaskedPictures {
    type Objective = MaskedImage;

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn objective(&self) -> Result<MaskedImage> {
        MaskedImage::new(&self.plan, self.set.clone(), self.scale.clone(), self.config.kept())
    }

    fn fresh(&self, device: &Device) -> Result<Mae> {
        let recipe = &self.plan.recipe;
        match recipe.model.from.as_deref() {
            None => Mae::new(&self.config, recipe.seed, device),
            Some(from) => {
                check_base(recipe)?;
                Ok(folder::load_mae(Path::new(from), device)?.0)
            }
        }
    }

    fn data(&self) -> Vec<DataRecord> {
        self.data.clone()
    }

    fn curve(&self) -> Curve {
        Curve { key: "loss", scale: Some(1.0) }
    }

    fn usage(&self, id: &ModelId) -> String {
        format!("danlu train recipes/2020-vit.toml --set model.from={id}")
    }

    fn keep(&self, export: &Export, model: &Mae, summary: &Summary) -> Result<ModelId> {
        let model = model.valid().to_device(&Device::flex());
        let expected = self.probe(&model);
        ensure!(expected.iter().all(|x| x.is_finite()), "the trained model says what are not numbers");
        let write = |dir: &Path| folder::save_mae(&model, &self.config, dir);
        let check = |copy: &Path| {
            let (read, _) = folder::load_mae(copy, &Device::flex()).context("it does not load")?;
            agree(&expected, &self.probe(&read))
        };
        export.folder(self, summary, write, check)
    }
}
