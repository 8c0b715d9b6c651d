//! A trained model becomes a registered one: written as transformers reads it, read back and compared, registered with its lineage.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use danlu_data::chat::Template;
use danlu_data::tokenizer::Tokenizer;
use danlu_models::{Batch, Decoder, DecoderConfig, adapter, folder};
use danlu_registry::{Data, Level, Lineage, Measure, ModelId, RecipeRecord, Registry};
use danlu_train::{Summary, recipe};
use serde_json::json;

use super::gate;
use super::kinds::Kind;
use super::prepare;

/// Outputs after reading back may differ from those in memory by no more than this; in 32-bit floats they are equal.
const TOLERANCE: f32 = 1e-4;
/// Tokens of held-out text that both are run on.
pub const PROBE: usize = 64;

/// Where a finished run's model goes.
pub struct Export<'a> {
    pub home: &'a Path,
    /// What the model is to be called.
    pub name: &'a str,
}

/// A trained decoder with what belongs to it.
pub struct Made<'a> {
    pub decoder: &'a Decoder,
    pub config: &'a DecoderConfig,
    pub tokenizer: &'a Tokenizer,
    pub template: Option<&'a Template>,
    /// Tokens to compare logits on; the first few are used.
    pub probe: &'a [u32],
}

impl Export<'_> {
    /// Registers the folder that `write` makes as the next version of the name, once `check` has read the registry's copy and found it right.
    ///
    /// # Errors
    /// When it cannot be written, or is not right; nothing is registered then.
    pub fn folder(
        &self,
        kind: &impl Kind,
        summary: &Summary,
        write: impl FnOnce(&Path) -> Result<()>,
        check: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<ModelId> {
        let stage = self.home.join("runs").join(&kind.plan().recipe.name).join("export");
        danlu_files::write_folder_atomic(&stage, write)?;
        let mut lineage = self.lineage(kind, summary)?;
        if let Some(judged) = gate::judge(self.home, &kind.plan().recipe, &stage, lineage.parent.as_ref())? {
            (lineage.sets, lineage.gate) = (judged.sets, Some(judged.gate));
        }
        let id = Registry::open(self.home)?.register(self.name, &stage, lineage, check)?;
        std::fs::remove_dir_all(&stage).with_context(|| format!("cannot remove {}", stage.display()))?;
        Ok(id)
    }

    /// Registers a decoder with its tokenizer, or the adapter it has; read back, it must give the same logits on the probe.
    ///
    /// # Errors
    /// As [`Export::folder`].
    pub fn decoder(&self, kind: &impl Kind, summary: &Summary, made: &Made) -> Result<ModelId> {
        let Made { config, tokenizer, template, .. } = made;
        // Compared on the CPU: the numbers there are exact, and say whether the file holds the model.
        let decoder = made.decoder.valid().to_device(&Device::flex());
        let batch = Batch::document(&made.probe[..made.probe.len().min(PROBE).min(config.context())]);
        let expected = finite(decoder.logits(&batch))?;
        let recipe = &kind.plan().recipe;
        let write = |dir: &Path| {
            match (recipe.adapter.spec(), &recipe.model.from) {
                (Some(spec), Some(base)) => adapter::save(&decoder, &spec, config, base, dir)?,
                _ => folder::save(&decoder, config, dir)?,
            }
            if !inherit(recipe.model.from.as_deref(), tokenizer, dir)? {
                tokenizer.export(dir, config.context())?;
            }
            template.map_or(Ok(()), |template| template.save(dir))
        };
        let check = |copy: &Path| {
            let (read, _) = folder::load(copy, &Device::flex()).context("it does not load")?;
            agree(&expected, &finite(read.logits(&batch))?)
        };
        self.folder(kind, summary, write, check)
    }

    fn lineage(&self, kind: &impl Kind, summary: &Summary) -> Result<Lineage> {
        let plan = kind.plan();
        let recipe = &plan.recipe;
        let level = match recipe.level {
            recipe::Level::L0 => Level::L0,
            recipe::Level::L1 => Level::L1,
            recipe::Level::L2 => Level::L2,
        };
        let mut metrics = BTreeMap::new();
        if let Some(measure) = &summary.measure {
            let interval = |x: f64| x.is_finite().then_some(x);
            let value = Measure { value: measure.value, low: interval(measure.low), high: interval(measure.high) };
            metrics.insert(measure.unit.name.into(), value);
        }
        let facts = [
            ("parameters", json!(plan.model.parameters)),
            ("trained_parameters", json!(plan.model.trained)),
            ("tokens_seen", json!(summary.tokens)),
            ("steps", json!(summary.step)),
            ("minutes", json!((summary.elapsed / 6.0).round() / 10.0)),
        ];
        let facts = facts.map(|(name, value)| (name.to_string(), value));
        // What was measured beside it: BLEU, an accuracy.
        let beside = summary.measure.iter().flat_map(|measure| &measure.others).filter(|(_, value)| value.is_finite());
        let beside = beside.map(|(name, value)| (name.to_string(), json!((value * 1e4).round() / 1e4)));
        let data = kind.data().into_iter();
        Ok(Lineage {
            level: Some(level),
            parent: prepare::parent(self.home, recipe),
            run: Some(recipe.name.clone()),
            recipe: Some(RecipeRecord { name: recipe.name.clone(), hash: recipe.hash()?, text: recipe.to_toml()? }),
            data: data.map(|d| Data { name: d.name, manifest_hash: d.manifest_hash, licence: None }).collect(),
            tokenizer_hash: kind.tokenizer().map(|tokenizer| tokenizer.hash().to_string()),
            metrics,
            facts: facts.into_iter().chain(beside).collect(),
            ..Lineage::default()
        })
    }
}

/// Copies the tokenizer and chat template of the folder that the model started from, when it still reads with that tokenizer: which tokens
/// begin, end and fill a text is said there, and a tokenizer alone does not know. Whether they were copied.
fn inherit(from: Option<&str>, tokenizer: &Tokenizer, dir: &Path) -> Result<bool> {
    const FILES: [&str; 8] = [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "tokenizer.model",
        "chat_template.jinja",
    ];
    let Some(from) = from.map(Path::new) else { return Ok(false) };
    if !Tokenizer::load(from).is_ok_and(|parent| parent.hash() == tokenizer.hash()) {
        return Ok(false);
    }
    for name in FILES {
        let file = from.join(name);
        if file.is_file() {
            std::fs::copy(&file, dir.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
        }
    }
    Ok(true)
}

/// The values of logits, to be compared by [`agree`].
///
/// # Errors
/// When one is no number.
pub fn finite(logits: Tensor<2>) -> Result<Vec<f32>> {
    let logits = logits.into_data().try_into_vec::<f32>();
    let logits = logits.map_err(|error| anyhow::anyhow!("logits are not 32-bit floats: {error:?}"))?;
    ensure!(logits.iter().all(|x| x.is_finite()), "the model gives logits that are not numbers");
    Ok(logits)
}

/// Holds what a model says, logits or scores, to what it said before it was written and read back.
///
/// # Errors
/// When it says something else.
pub fn agree(expected: &[f32], found: &[f32]) -> Result<()> {
    let worst = expected.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    ensure!(found.len() == expected.len() && worst <= TOLERANCE, "read back, its outputs differ from those before by {worst}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::agree;

    #[test]
    fn another_model_is_not_taken_for_the_same() {
        agree(&[1.0, -2.0], &[1.0, -2.0 + 1e-5]).unwrap();
        for found in [&[1.0, -2.1][..], &[1.0], &[1.0, -2.0, 0.0]] {
            let error = agree(&[1.0, -2.0], found).unwrap_err().to_string();
            assert!(error.contains("differ"), "{found:?}: {error}");
        }
    }
}
