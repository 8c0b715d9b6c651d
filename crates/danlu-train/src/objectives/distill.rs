//! Learning from a larger model, which says more of every token than which one it is.

use anyhow::{Result, ensure};
use burn::tensor::Tensor;
use danlu_eval::Measure;
use danlu_models::{Batch, Decoder};
use danlu_ops::{Distillation, linear_distill};

use super::{Loss, Objective, Sample, Shown};
use crate::auto::Plan;

/// Another objective whose loss is mixed with how far the student's distribution is from its teacher's, token by token. Batches, measures and
/// samples are the other's, so that a student is measured as one that learns without a teacher.
pub struct Distill<O> {
    inner: O,
    /// None where only the answers are the teacher's.
    teacher: Option<Decoder>,
    spec: Distillation,
    recompute: bool,
}

impl<O: Objective<Model = Decoder, Batch = Batch>> Distill<O> {
    /// `teacher` has no autodiff; there is none when all of the loss is hard.
    ///
    /// # Errors
    /// When the teacher's vocabulary or context is not the student's.
    pub fn new(plan: &Plan, inner: O, teacher: Option<Decoder>) -> Result<Self> {
        if let Some(teacher) = &teacher {
            let (theirs, ours) = (teacher.vocabulary(), plan.model.vocabulary);
            ensure!(
                theirs == ours,
                "the teacher's vocabulary has {theirs} entries and the student's {ours}: both must read with the same tokenizer"
            );
            ensure!(
                teacher.context() >= plan.row_len,
                "rows have {} tokens and the teacher reads {} at most: lower `model.context`",
                plan.row_len,
                teacher.context()
            );
        }
        let recipe = &plan.recipe;
        Ok(Self { inner, teacher, spec: recipe.distill.loss(), recompute: recipe.batch.recompute })
    }
}

fn number(x: &Tensor<1>) -> f64 {
    f64::from(x.clone().inner().into_scalar::<f32>())
}

impl<O: Objective<Model = Decoder, Batch = Batch>> Objective for Distill<O> {
    type Model = Decoder;
    type Batch = Batch;

    fn batch(&self, position: u64) -> Result<Batch> {
        self.inner.batch(position)
    }

    fn targets(&self, batch: &Batch) -> usize {
        self.inner.targets(batch)
    }

    fn loss(&self, model: &Decoder, batch: &Batch) -> Loss {
        let Some(teacher) = &self.teacher else {
            let mut loss = self.inner.loss(model, batch);
            loss.report.push(("nll", number(&loss.value)));
            return loss;
        };
        let teacher = [teacher.hidden(batch), teacher.head_weight()];
        let hidden = if self.recompute { model.hidden_recomputed(batch) } else { model.hidden(batch) };
        let found = linear_distill(hidden, model.head_weight(), teacher, &batch.targets, &self.spec);
        let report = vec![("nll", number(&found.nll)), ("divergence", number(&found.soft))];
        Loss { value: found.loss, report }
    }

    fn masks(&self) -> bool {
        self.inner.masks()
    }

    fn show(&self, batch: &Batch) -> Result<Shown> {
        self.inner.show(batch)
    }

    fn held_out_tokens(&self) -> u64 {
        self.inner.held_out_tokens()
    }

    fn measure(&self, model: &Decoder, tokens: u64) -> Result<Measure> {
        self.inner.measure(model, tokens)
    }

    fn samples(&self, model: &Decoder, draw: u64) -> Result<Vec<Sample>> {
        self.inner.samples(model, draw)
    }
}
