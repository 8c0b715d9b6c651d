//! `[objective]`: what the model learns to do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the loss is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectiveSpec {
    /// What the model learns to do.
    pub kind: ObjectiveKind,
}

/// A training objective.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectiveKind {
    /// Predict the next token of every document.
    #[default]
    CausalLm,
    /// Tell the word that stands among others from words drawn at random; `[word2vec]` says how (Mikolov 2013).
    Word2vec,
    /// Say which words stood where some were taken away, from both sides (Devlin 2018).
    MaskedLm,
    /// Predict what the assistant says in conversations, from a model that is there already (Ouyang 2022).
    Sft,
    /// Say which of several labels each text has.
    Classify,
    /// Say a number for each text.
    Regression,
    /// Say a tag for each word of a text.
    TokenClassify,
    /// Say which of several classes each picture has (LeCun 1998).
    ImageClassify,
    /// Give each picture an embedding in which pictures of one identity are alike, also of identities never seen; `[embed]` says how (Deng 2019).
    ImageEmbed,
    /// Draw pictures that another network cannot tell from real ones; `[gan]` says how (Goodfellow 2014).
    Gan,
    /// Say what the patches of a picture are that are hidden, from the few that are seen; `[mae]` says how (He 2021).
    MaskedImage,
    /// Say which things are in a picture and draw a box round each, from labelled scenes; `[scene]` says which (Tian 2019).
    Detect,
    /// Say of each pixel what is seen there, from labelled scenes (Long 2015).
    Segment,
    /// Say where the points of the one thing in a picture are, from labelled scenes (Xu 2022).
    Pose,
    /// Prefer the answers that people prefer, from a model that is there already; `preference.loss` says how (Rafailov 2023).
    Preference,
    /// Score answers as people would, from pairs of a better and a worse one and from a model that is there already (Ouyang 2022).
    Reward,
    /// Say what a larger model would, which reads with the same tokenizer; `[distill]` says how (Hinton 2015).
    Distill,
    /// Read a text in one language and write it in another; `[translate]` says which (Vaswani 2017).
    Translate,
    /// Answer questions so that the reward is higher than of other answers to the same question (Shao 2024).
    Grpo,
    /// The same with the mean of the other answers as the baseline, and whole answers as actions (Ahmadian 2024).
    Rloo,
    /// The same with a value head that says, token by token, what is to be expected (Schulman 2017; Ouyang 2022).
    Ppo,
}
