//! `[distill]`: how a small model learns from a larger one.

use danlu_ops::{Distillation, Divergence};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a student learns from a teacher that reads with the same tokenizer, for the objective `distill`. The student is the model of
/// `model.from`, one of the shape that `[model]` gives, or the teacher with fewer layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DistillSpec {
    /// The model that is learned from: a registered model or a folder.
    pub teacher: Option<String>,
    /// What is read.
    pub on: DistillOn,
    /// Begin with this many of the teacher's layers, evenly taken, and all of its embeddings and norms (Sanh 2019).
    #[schemars(range(min = 1, max = 512))]
    pub layers: Option<usize>,
    /// How far from the teacher counts.
    pub divergence: DivergenceKind,
    /// The teacher's share in the mixture of jensen-shannon.
    #[schemars(range(min = 0.01, max = 0.99))]
    pub beta: f64,
    /// Both models' logits are divided by it; above 1 what is unlikely counts more.
    #[schemars(range(min = 0.1, max = 100.0))]
    pub temperature: f64,
    /// The share of the loss that is the data's own next tokens; the rest is the teacher's. 1: the teacher writes answers and does no more.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub hard: f64,
    /// In `answers`: the most tokens of an answer; what has not ended by then is left out.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub answer_tokens: usize,
    /// In `answers`: how the teacher's words are drawn: 0 takes the likeliest, 1 its own distribution.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub answer_temperature: f64,
}

/// What student and teacher read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DistillOn {
    /// Documents, of which every token is learned.
    #[default]
    Text,
    /// Conversations, of which the assistant's tokens are learned.
    Conversations,
    /// The teacher's own answers to the prompts of conversations (Kim 2016).
    Answers,
}

/// A distance between what the teacher says, p, and what the student says, q.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DivergenceKind {
    /// KL(p, q): the student covers all that the teacher might say (Hinton 2015).
    #[default]
    Forward,
    /// KL(q, p): the student says only what the teacher would (Gu 2023).
    Reverse,
    /// The generalized Jensen-Shannon divergence between the two (Agarwal 2023).
    JensenShannon,
}

impl Default for DistillSpec {
    fn default() -> Self {
        DistillSpec {
            teacher: None,
            on: DistillOn::default(),
            layers: None,
            divergence: DivergenceKind::default(),
            beta: 0.5,
            temperature: 1.0,
            hard: 0.5,
            answer_tokens: 128,
            answer_temperature: 0.0,
        }
    }
}

impl DistillSpec {
    /// What the loss is made of.
    pub fn loss(&self) -> Distillation {
        let divergence = match self.divergence {
            DivergenceKind::Forward => Divergence::Forward,
            DivergenceKind::Reverse => Divergence::Reverse,
            DivergenceKind::JensenShannon => Divergence::JensenShannon { beta: self.beta as f32 },
        };
        Distillation { divergence, temperature: self.temperature as f32, hard: self.hard as f32 }
    }
}
