use serde::{Deserialize, Serialize};

use crate::backbone::BackboneConfig;

/// What a head says of a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadConfig {
    pub task: Task,
    /// Their names, in the order of the outputs; none for a number.
    pub labels: Vec<String>,
    pub pooling: Pooling,
    /// Numbers that stand beside the text; zero for none.
    pub features: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// One of several classes.
    Classes,
    /// A number.
    Number,
    /// A label for each token.
    Tags,
}

/// What stands for a text as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The first token, through the pooler: BERT's own.
    First,
    /// The last token, which alone has seen everything in a decoder.
    Last,
    /// The mean of all tokens.
    Mean,
}

impl HeadConfig {
    /// Numbers that the head gives.
    pub fn outputs(&self) -> usize {
        if self.task == Task::Number { 1 } else { self.labels.len() }
    }

    /// The class of `transformers` that computes the same; none for what it has no class for.
    pub fn architecture(&self, backbone: Option<&BackboneConfig>) -> Option<String> {
        let backbone = backbone?;
        let usual = match backbone {
            BackboneConfig::Bert(_) => Pooling::First,
            BackboneConfig::Decoder(_) => Pooling::Last,
        };
        let kind = match self.task {
            Task::Tags => "ForTokenClassification",
            _ if self.pooling == usual && self.features == 0 => "ForSequenceClassification",
            _ => return None,
        };
        Some(format!("{}{kind}", backbone.class()))
    }
}
