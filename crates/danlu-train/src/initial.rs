//! The model that a run starts from: whose weights, which of them are trained, and what is put beside them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::tensor::Device;
use danlu_models::{Decoder, DecoderConfig, adapter, folder};

use crate::outline::Outline;
use crate::recipe::{AdapterKind, Base, Recipe};
use crate::tune;

/// The decoder before the first step: initial weights drawn from the recipe's seed, or those of `model.from` with what `[adapter]` puts
/// beside them and without what `[tune]` leaves out of training. A start that is itself an adapter counts as merged into its base.
///
/// # Errors
/// When the folder cannot be read, its weights are not those the run began with, or the sections do not fit the model.
pub fn initial_model(recipe: &Recipe, config: &DecoderConfig, device: &Device) -> Result<Decoder> {
    let Some(from) = recipe.model.from.as_deref().map(Path::new) else { return Decoder::new(config, recipe.seed, device) };
    check_base(recipe)?;
    let nf4 = recipe.adapter.kind != AdapterKind::None && recipe.adapter.base == Base::Nf4;
    let on_adapter = adapter::base_of(from)?.is_some();
    let (mut base, _) = if nf4 { folder::load_nf4(from, device)? } else { folder::load(from, device)? };
    if on_adapter {
        base = base.merged().context("`model.from` is an adapter")?.decoder;
        base = if device.is_autodiff() { base.train().set_require_grad(true) } else { base };
    }
    match recipe.adapter.spec() {
        Some(spec) => base.with_adapter(&spec, recipe.seed).context("in `[adapter]`"),
        None => tune::freeze(base, &recipe.tune, |_| false).context("in `[tune]`"),
    }
}

/// Writes the hash of a frozen start into the recipe, where none is given, so that the run goes on with these weights alone.
///
/// # Errors
/// When the weights cannot be read, or an adapter is to go on one.
pub fn pin_base(recipe: &mut Recipe) -> Result<()> {
    let Some(from) = recipe.model.from.as_deref().map(Path::new).filter(|_| recipe.freezes()) else { return Ok(()) };
    ensure!(
        recipe.adapter.kind == AdapterKind::None || adapter::named_base(from)?.is_none(),
        "`model.from` is an adapter itself, and `[adapter]` goes on whole models: `danlu models merge` makes one of it"
    );
    if recipe.model.hash.is_none() {
        recipe.model.hash = Some(folder::weights_hash(from)?);
    }
    Ok(())
}

/// Whether the weights of a start are still those that the recipe names ([`pin_base`]).
///
/// # Errors
/// When they are others, or cannot be read.
pub fn check_base(recipe: &Recipe) -> Result<()> {
    if let (Some(from), Some(expected)) = (&recipe.model.from, &recipe.model.hash) {
        let found = folder::weights_hash(Path::new(from))?;
        ensure!(
            *expected == found,
            "the weights in {from} are not those this run is about: their BLAKE3 was {expected:.12} and is {found:.12}. What stays frozen \
             must be what it was; put the old weights back, or begin a new run"
        );
    }
    Ok(())
}

/// An outline and its FLOPs per token, of a model that `[adapter]` freezes and puts something beside; as they are without one, and where the
/// outline says already that only a part is trained.
///
/// # Errors
/// When the section names what the model does not have.
pub fn with_adapter(recipe: &Recipe, mut model: Outline, flops: f64) -> Result<(Outline, f64)> {
    let whole = model.trained == model.parameters;
    let Some(from) = recipe.model.from.as_deref().filter(|_| whole && recipe.adapter.kind != AdapterKind::None) else {
        return Ok((model, flops));
    };
    let config = folder::load_config(Path::new(from))?;
    let (adapted, less) = outline(recipe, &config)?;
    let whole = config.flops_per_token(recipe.model.context.unwrap_or(config.context()));
    (model.trained, model.parameters) = (adapted.trained, model.parameters + adapted.trained);
    Ok((model, flops - (whole - less)))
}

/// What there is to know about the model of a recipe, of which a part may be frozen, and its FLOPs per token forward and backward.
///
/// # Errors
/// When a section names what the model does not have.
pub fn outline(recipe: &Recipe, config: &DecoderConfig) -> Result<(Outline, f64)> {
    let context = recipe.model.context.unwrap_or(config.context());
    let (mut outline, flops) = (Outline::from(config), config.flops_per_token(context));
    let parameters = Decoder::shapes(config)?;
    let size = |shape: &[usize]| shape.iter().product::<usize>() as u64;
    let chosen = match recipe.adapter.spec() {
        Some(spec) => {
            let added = adapter::parameters(config, &spec).context("in `[adapter]`")?;
            (outline.trained, outline.parameters) = (added, outline.parameters + added);
            vec![false; parameters.len()]
        }
        None => {
            let chosen = tune::chosen(&parameters, &recipe.tune, |_| false).context("in `[tune]`")?;
            outline.trained =
                parameters.iter().zip(&chosen).filter(|(_, chosen)| **chosen).map(|((_, shape), _)| size(shape)).sum();
            chosen
        }
    };
    // Two FLOPs each that a frozen matrix in a product needs no gradient; looking up an embedding is no product, unless it is the head too.
    let looked_up = |name: &str| ["embed_tokens.weight", "wte.weight"].iter().any(|end| name.ends_with(end)) && !config.tied();
    let in_product = |name: &str| !looked_up(name) && !name.ends_with("wpe.weight");
    let frozen =
        parameters.iter().zip(&chosen).filter(|((name, shape), chosen)| !**chosen && shape.len() == 2 && in_product(name));
    let saved: u64 = frozen.map(|((_, shape), _)| 2 * size(shape)).sum();
    Ok((outline, flops - saved as f64))
}
