use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use danlu_data::Progress;
use danlu_data::tokenizer::Tokenizer;
use danlu_models::{Batch, Decoder, DecoderConfig, folder};
use danlu_registry::ModelId;
use danlu_train::recipe::DistillOn;
use danlu_train::{Objective, Outline, Plan, Recipe, Summary, auto};

use super::sft::{careful, encoder};
use super::{Curve, DataRecord, Kind, Pretrain, Tune};
use crate::life::answers;
use crate::life::export::Export;

/// Another kind of recipe with a teacher beside it.
pub struct Distill<K> {
    inner: K,
    teacher: Teacher,
}

struct Teacher {
    folder: PathBuf,
    config: DecoderConfig,
}

impl Distill<Pretrain> {
    /// A student on documents.
    ///
    /// # Errors
    /// When the recipe names no teacher, or as [`Pretrain::new`].
    pub fn on_text(home: &Path, recipe: &Recipe, run: Option<&Path>, progress: &mut dyn Progress) -> Result<Self> {
        let (teacher, recipe) = Teacher::new(recipe)?;
        let inner = Pretrain::new(home, &recipe, run, progress)?;
        Ok(Self { inner: inner.for_student(|plan, config| teacher.student(plan, config)), teacher })
    }
}

impl Distill<Tune> {
    /// A student on conversations, or on the teacher's answers to their prompts.
    ///
    /// # Errors
    /// When the recipe names no teacher, or as [`Tune::new`].
    pub fn on_talks(home: &Path, recipe: &Recipe, progress: &mut dyn Progress) -> Result<Self> {
        let (teacher, mut recipe) = Teacher::new(recipe)?;
        if recipe.model.from.is_some() || recipe.distill.layers.is_some() {
            careful(&mut recipe);
        }
        let (spec, seed, folder) = (recipe.distill.clone(), recipe.seed, teacher.folder.clone());
        let inner = Tune::reading(
            home,
            &recipe,
            encoder(&folder)?,
            |talks, encoder, progress| match spec.on {
                DistillOn::Answers => answers::of(home, &folder, encoder, &talks, &spec, seed, progress),
                _ => Ok(talks),
            },
            progress,
        )?;
        Ok(Self { inner: inner.for_student(|plan, config| teacher.student(plan, config)), teacher })
    }
}

impl Teacher {
    /// The teacher, and the recipe with its tokenizer and, where the student starts with some of its layers, its shape.
    fn new(recipe: &Recipe) -> Result<(Self, Recipe)> {
        let spec = &recipe.distill;
        let named = spec.teacher.as_deref().context(
            "a student needs a teacher: give `distill.teacher` (a registered model or a folder); `danlu models pull smollm2` brings one",
        )?;
        let folder = PathBuf::from(named);
        let config = folder::load_config(&folder).with_context(|| format!("`distill.teacher` is {named:?}"))?;
        let mut recipe = recipe.clone();
        recipe.tokenizer.from = Some(named.to_string());
        if let Some(count) = spec.layers {
            ensure!(
                recipe.model.from.is_none(),
                "`model.from` and `distill.layers` both say what the student starts from; keep one of them"
            );
            ensure!(count <= config.layers(), "`distill.layers` is {count}, and the teacher has {}", config.layers());
            auto::write_shape(&mut recipe.model, &config.with_layers(count));
        }
        Ok((Self { folder, config }, recipe))
    }

    /// The plan and the configuration of the student, from those of a model that learns by itself.
    fn student(&self, plan: Plan, config: DecoderConfig) -> (Plan, DecoderConfig) {
        let recipe = &plan.recipe;
        let config = match (recipe.distill.layers, &recipe.model.from) {
            (Some(count), _) => self.config.with_layers(count),
            (None, Some(_)) => config,
            // A vocabulary may have more entries than its tokenizer, and both models' must be of one size.
            (None, None) => config.with_vocabulary(self.config.vocab_size()),
        };
        let (beside, more) = match recipe.distill.hard < 1.0 {
            true => (self.config.parameters(), self.config.flops_per_token(plan.row_len) / 3.0),
            false => (0, 0.0),
        };
        let flops_per_token = config.flops_per_token(plan.row_len) + more;
        // What was counted in work buys fewer steps with a teacher.
        let steps = match recipe.budget.minutes.or(recipe.budget.flops) {
            Some(_) => ((plan.steps as f64 * plan.flops_per_token / flops_per_token).round() as u64).max(1),
            None => plan.steps,
        };
        (Plan { model: Outline::from(&config), flops_per_token, beside, steps, ..plan }, config)
    }
}

impl<K: Kind> Kind for Distill<K>
where
    K::Objective: Objective<Model = Decoder, Batch = Batch>,
{
    type Objective = danlu_train::Distill<K::Objective>;

    fn plan(&self) -> &Plan {
        self.inner.plan()
    }

    fn objective(&self) -> Result<Self::Objective> {
        let teacher = match self.plan().beside {
            0 => None,
            _ => Some(folder::load(&self.teacher.folder, &Device::flex())?.0),
        };
        danlu_train::Distill::new(self.plan(), self.inner.objective()?, teacher)
    }

    fn fresh(&self, device: &Device) -> Result<Decoder> {
        match self.plan().recipe.distill.layers {
            Some(count) => {
                let (teacher, config) = folder::load(&self.teacher.folder, device)?;
                Ok(teacher.with_layers(&config, count)?.0)
            }
            None => self.inner.fresh(device),
        }
    }

    fn data(&self) -> Vec<DataRecord> {
        self.inner.data()
    }

    fn identity(&self) -> String {
        self.inner.identity()
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        self.inner.tokenizer()
    }

    /// What the data's own tokens cost: the loss has the teacher in it, and is in no unit of the measure's.
    fn curve(&self) -> Curve {
        Curve { key: "nll", ..self.inner.curve() }
    }

    fn keep(&self, export: &Export, model: &Decoder, summary: &Summary) -> Result<ModelId> {
        self.inner.keep(export, model, summary)
    }
}
