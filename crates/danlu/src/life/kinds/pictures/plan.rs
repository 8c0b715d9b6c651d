//! From what a recipe for classes of pictures says to the network that is trained, and how.

use anyhow::{Context, Result, bail, ensure};
use danlu_data::images::PictureFeatureSpec;
use danlu_models::{PictureConfig, PictureLabeller, PictureLabellerConfig, adapter};
use danlu_train::objectives::classify::is_new;
use danlu_train::recipe::{AdapterKind, Base, ImageSpec, ModelKind, OptimizerKind, VitSpec, Way};
use danlu_train::{Outline, Plan, Recipe, auto, tune};

use super::{RATE, resolved};
use crate::life::kinds::classify;

/// What a way means, written into the sections it is made of, where the recipe does not say otherwise. Without a model to start from, the
/// first way is to begin with initial weights.
pub fn by_way(recipe: &mut Recipe) -> Result<()> {
    if recipe.model.from.is_some() || recipe.classify.way != Way::FineTune {
        classify::by_way(recipe)?;
    }
    ensure!(
        recipe.classify.auxiliary == 0.0,
        "`classify.auxiliary` goes on to predict texts, which pictures do not have; leave it out"
    );
    if recipe.adapter.kind != AdapterKind::None {
        ensure!(
            recipe.model.kind == ModelKind::Vit,
            "`classify.way` \"lora\" updates projections, of which a lenet, made of convolutions, has too few: it is for vit"
        );
        ensure!(
            recipe.adapter.base == Base::F32,
            "`adapter.base = \"nf4\"` holds decoders in four bits; leave it out for pictures"
        );
    }
    if recipe.classify.way == Way::Linear {
        // No network cuts the pictures into patches.
        recipe.vit = VitSpec::default();
    }
    if recipe.freezes_below_head() {
        // Each picture goes through the frozen layers once, and so as it is.
        let still = ImageSpec { shift: 0, flip: false, operations: 0, magnitude: 0.0, erase: 0.0, ..recipe.image.clone() };
        (recipe.image, recipe.vit.keep) = (still, 1.0);
    }
    Ok(())
}

pub fn feature_spec(recipe: &Recipe) -> PictureFeatureSpec {
    let spec = &recipe.features;
    PictureFeatureSpec { gradients: spec.gradients, brightness: spec.brightness, cell: spec.cell }
}

pub fn planned(recipe: &Recipe, config: &PictureLabellerConfig, count: usize) -> Result<Plan> {
    let mut recipe = recipe.clone();
    let way = recipe.classify.way;
    let of_features = 6.0 * (config.features * config.labels.len()) as f64;
    let (outline, flops) = match &config.network {
        None => (Outline::of_features(config.labels.len(), config.parameters()), 0.0),
        Some(PictureConfig::Lenet(config)) => {
            recipe.optimizer.kind = OptimizerKind::Adamw;
            (Outline::from(config), config.flops())
        }
        Some(PictureConfig::Vit(config)) => {
            let kept = recipe.vit.kept(config.patches());
            (Outline::of_vit(config, kept), config.flops(kept))
        }
    };
    if way == Way::Linear {
        recipe.optimizer.kind = OptimizerKind::Adamw;
        recipe.optimizer.rate.get_or_insert(recipe.features.rate.max(1e-9));
    }
    if recipe.adapter.kind != AdapterKind::None {
        recipe.optimizer.kind = OptimizerKind::Adamw;
        recipe.optimizer.rate.get_or_insert(recipe.adapter.rate(auto::keeping_rate(outline.hidden)));
        recipe.classify.head_rate.get_or_insert(RATE);
    }
    let share = match way {
        // Frozen layers read each picture once, forward alone.
        _ if recipe.freezes_below_head() => 1.0 / 3.0 / recipe.budget.epochs.unwrap_or(1.0).max(1.0),
        Way::Lora => 2.0 / 3.0,
        _ => 1.0,
    };
    let beside = match (recipe.adapter.spec(), &config.network) {
        (None, _) => None,
        (Some(spec), Some(PictureConfig::Vit(config))) => {
            Some(adapter::parameters_of_vit(config, &spec).context("in `[adapter]`")?)
        }
        (Some(_), _) => bail!("`[adapter]` goes on a vit; leave it out"),
    };
    let shapes = PictureLabeller::shapes(config)?;
    let (parameters, trained) = tune::counts(&shapes, &recipe.tune, beside, is_new).context("in `[tune]`")?;
    resolved(recipe, Outline { parameters, trained, ..outline }, count, share * flops + of_features)
}
