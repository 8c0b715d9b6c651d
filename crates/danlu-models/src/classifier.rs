//! A head that says something about a text or about each of its tokens, on any backbone, under the names of `transformers`.

use anyhow::{Result, ensure};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use danlu_ops::{Ids, Segments};

use crate::backbone::{Backbone, BackboneConfig};
use crate::config::{HeadConfig, Pooling, Task};
use crate::layers::{Linear, placeholder};
use crate::{init, names};

/// Texts one after the other, each a segment that sees no other.
#[derive(Clone, Debug)]
pub struct Texts {
    /// `[tokens]`.
    pub ids: Ids,
    /// Which text of a pair each token belongs to, `[tokens]`; read by BERT alone.
    pub kinds: Ids,
    pub segments: Segments,
}

impl Texts {
    /// Of each text its tokens and their kinds.
    ///
    /// # Panics
    /// When there is no text, or one without tokens: what makes batches leaves those out.
    pub fn new<'a>(texts: impl IntoIterator<Item = (&'a [u32], &'a [u32])>) -> Self {
        let (mut ids, mut kinds, mut starts) = (vec![], vec![], vec![]);
        for (text, of) in texts {
            assert!(!text.is_empty() && text.len() == of.len(), "a text has tokens, and each a kind");
            starts.push(ids.len() as u32);
            ids.extend_from_slice(text);
            kinds.extend_from_slice(of);
        }
        let segments = Segments::new(1, ids.len(), starts);
        Self { ids: ids.into(), kinds: kinds.into(), segments }
    }
}

/// Numbers that stand beside a text, few of many: of each row which, and their values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SparseRows {
    pub indices: Vec<u32>,
    pub values: Vec<f32>,
    /// Where each row ends in the two above.
    pub ends: Vec<usize>,
}

impl SparseRows {
    pub fn push(&mut self, row: &[(u32, f32)]) {
        self.indices.extend(row.iter().map(|(index, _)| *index));
        self.values.extend(row.iter().map(|(_, value)| *value));
        self.ends.push(self.indices.len());
    }
}

/// A backbone with a head. Exactly one of `score`, `classifier` and `head` is there, or none when there is no backbone.
#[derive(Module, Debug)]
pub struct Classifier {
    /// None: the features alone decide.
    pub backbone: Option<Backbone>,
    /// The head as Llama and Qwen3 have it, and GPT-2 for whole texts, `[labels, hidden]`.
    pub score: Option<Linear>,
    /// The head as BERT has it, and GPT-2 for tokens.
    pub classifier: Option<Linear>,
    /// A head that `transformers` has no class for: over the mean of a text's tokens, or beside features.
    pub head: Option<Linear>,
    pub features: Option<FeatureHead>,
    #[module(skip)]
    config: HeadConfig,
}

/// What features of texts or of pictures add to the logits.
#[derive(Module, Debug)]
pub struct FeatureHead {
    /// `[features, labels]`, so that a feature's numbers lie together.
    pub weight: Param<Tensor<2>>,
    /// `[labels]`.
    pub bias: Param<Tensor<1>>,
}

impl Classifier {
    /// A head with initial weights on a backbone, from which the parts that say the next word are taken away: normal with the backbone's
    /// deviation, those of features zero.
    ///
    /// # Errors
    /// When the head's numbers do not fit the backbone.
    pub fn new(backbone: Option<(Backbone, &BackboneConfig)>, head: &HeadConfig, seed: u64, device: &Device) -> Result<Self> {
        let config = backbone.as_ref().map(|(_, config)| *config);
        let fresh = Self::empty(config, head, device)?;
        let range = config.map_or(0.02, BackboneConfig::initializer_range);
        let fresh = names::fill(Self { backbone: None, ..fresh }, |name, shape| {
            let zero = name.starts_with("features.");
            Ok(if zero { vec![0.0; shape.iter().product()] } else { init::values(seed, name, shape, range, 1) })
        })?;
        let backbone = backbone.map(|(backbone, config)| backbone.under_head(config, head, seed, device)).transpose()?;
        Ok(Self { backbone, ..fresh })
    }

    /// A classifier whose parameters have shapes and no values.
    pub(crate) fn empty(backbone: Option<&BackboneConfig>, head: &HeadConfig, device: &Device) -> Result<Self> {
        head.validate(backbone)?;
        let (outputs, hidden) = (head.outputs(), backbone.map_or(0, BackboneConfig::hidden_size));
        let own = backbone.is_some() && head.architecture(backbone).is_none();
        let linear = |bias| Linear::new(outputs, hidden, bias, device);
        let known = backbone.filter(|_| !own);
        let score = known.filter(|config| config.scores(head.task)).map(|_| linear(head.task == Task::Tags));
        let classifier = known.filter(|config| !config.scores(head.task)).map(|_| linear(true));
        Ok(Self {
            backbone: backbone.map(|config| Backbone::empty(config, head.pools(config), device)).transpose()?,
            score,
            classifier,
            head: own.then(|| linear(head.features == 0)),
            features: (head.features > 0).then(|| FeatureHead::empty(head.features, outputs, device)),
            config: head.clone(),
        })
    }

    /// The names and shapes of a classifier's parameters, of which none is made.
    ///
    /// # Errors
    /// As [`Classifier::new`].
    pub fn shapes(backbone: Option<&BackboneConfig>, head: &HeadConfig) -> Result<Vec<(String, Vec<usize>)>> {
        Ok(names::names_and_shapes(&Self::empty(backbone, head, &Device::flex())?))
    }

    pub fn config(&self) -> &HeadConfig {
        &self.config
    }

    /// What the layers make of each text, or of each token for [`Task::Tags`]: `[texts or tokens, hidden]`. None without a backbone. While the
    /// layers are frozen it is always the same, and [`Classifier::head`] is all that needs to be computed again.
    ///
    /// # Panics
    /// When a token is outside the vocabulary, or a text is longer than the backbone's context.
    pub fn states(&self, texts: &Texts, recompute: bool) -> Option<Tensor<2>> {
        let hidden = self.backbone.as_ref()?.hidden(texts, recompute);
        Some(self.summed_up(hidden, &texts.segments))
    }

    /// [`Classifier::states`] of a decoder, and how well it still predicts the texts themselves, `[1]`: the mean over texts of the mean negative
    /// log-likelihood, in nats, of a text's tokens after its first, with the embedding as the output projection (the auxiliary objective of
    /// [Radford et al. 2018](https://cdn.openai.com/research-covers/language-unsupervised/language_understanding_paper.pdf), 3.2, as
    /// their program weighs it). None for other backbones.
    ///
    /// # Panics
    /// As [`Classifier::states`].
    pub fn states_and_language_loss(&self, texts: &Texts, recompute: bool) -> Option<(Tensor<2>, Tensor<1>)> {
        let backbone = self.backbone.as_ref()?;
        let Backbone::Decoder(decoder) = backbone else { return None };
        let hidden = backbone.hidden(texts, recompute);
        let (tokens, count) = (texts.ids.len(), texts.segments.iter().len());
        let (mut targets, mut weights) = (vec![danlu_ops::IGNORE; tokens], vec![0.0f32; tokens]);
        for text in texts.segments.iter().filter(|text| text.len() > 1) {
            let share = 1.0 / ((text.len() - 1) * count) as f32;
            for token in text.start..text.end - 1 {
                (targets[token], weights[token]) = (texts.ids[token + 1], share);
            }
        }
        let weights = Tensor::<1>::from_data(TensorData::new(weights, [tokens]), &hidden.device());
        let log_probs = danlu_ops::linear_log_probs(hidden.clone(), decoder.head_weight(), &targets.into());
        Some((self.summed_up(hidden, &texts.segments), -(log_probs * weights).sum()))
    }

    /// Of each token's state what the head reads.
    fn summed_up(&self, hidden: Tensor<2>, segments: &Segments) -> Tensor<2> {
        match (self.config.task, self.config.pooling) {
            (Task::Tags, _) => hidden,
            (_, Pooling::First) => {
                let first: Ids = segments.iter().map(|text| text.start as u32).collect();
                danlu_ops::embedding(hidden, &first)
            }
            (_, Pooling::Last) => {
                let last: Ids = segments.iter().map(|text| text.end as u32 - 1).collect();
                danlu_ops::embedding(hidden, &last)
            }
            (_, Pooling::Mean) => mean(hidden, segments),
        }
    }

    /// What the head says, `[rows, labels]`: of the states of [`Classifier::states`], and of the features where there are any.
    ///
    /// # Panics
    /// When a part that the classifier was made with is not given.
    pub fn head(&self, states: Option<Tensor<2>>, features: Option<&SparseRows>) -> Tensor<2> {
        let head = self.score.as_ref().or(self.classifier.as_ref()).or(self.head.as_ref());
        let from_states = self.backbone.as_ref().zip(head).map(|(backbone, head)| {
            let states = states.expect("a classifier with a backbone reads its states");
            head.forward(if self.config.task == Task::Tags { states } else { backbone.pooled(states) })
        });
        let from_features = self.features.as_ref().map(|part| part.forward(features.expect("a classifier reads its features")));
        match (from_states, from_features) {
            (Some(a), Some(b)) => a + b,
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => unreachable!("a classifier without a backbone has features"),
        }
    }

    /// [`Classifier::states`] and [`Classifier::head`] in one.
    ///
    /// # Panics
    /// As those.
    pub fn logits(&self, texts: &Texts, features: Option<&SparseRows>, recompute: bool) -> Tensor<2> {
        self.head(self.states(texts, recompute), features)
    }
}

impl FeatureHead {
    pub(crate) fn empty(features: usize, outputs: usize, device: &Device) -> Self {
        Self { weight: placeholder([features, outputs], device), bias: placeholder([outputs], device) }
    }

    /// What all features of each row, `[rows, features]`, add to the logits, `[rows, labels]`.
    pub(crate) fn of_rows(&self, rows: Tensor<2>) -> Tensor<2> {
        rows.matmul(self.weight.val()) + self.bias.val().unsqueeze::<2>()
    }

    fn forward(&self, rows: &SparseRows) -> Tensor<2> {
        let (count, device) = (rows.ends.len(), self.weight.val().device());
        let bias = self.bias.val().unsqueeze::<2>();
        let outputs = bias.dims()[1];
        if rows.indices.is_empty() {
            // Nothing is known about any of these texts. The product keeps the weights in the graph.
            return bias.expand([count, outputs]) + self.weight.val().narrow(0, 0, 1) * 0.0;
        }
        let found = danlu_ops::embedding(self.weight.val(), &rows.indices.as_slice().into());
        // Row by feature: the value where the feature is the row's. One product then adds up each row.
        let mut values = vec![0.0; count * rows.indices.len()];
        let mut begin = 0;
        for (row, &end) in rows.ends.iter().enumerate() {
            values[row * rows.indices.len()..][begin..end].copy_from_slice(&rows.values[begin..end]);
            begin = end;
        }
        let values = Tensor::<2>::from_data(TensorData::new(values, [count, rows.indices.len()]), &device);
        values.matmul(found) + bias
    }
}

/// The mean of each segment's rows.
fn mean(hidden: Tensor<2>, segments: &Segments) -> Tensor<2> {
    let (tokens, count) = (segments.tokens(), segments.iter().len());
    let mut shares = vec![0.0; count * tokens];
    for (row, text) in segments.iter().enumerate() {
        let share = 1.0 / text.len() as f32;
        shares[row * tokens..][text].fill(share);
    }
    let shares = Tensor::<2>::from_data(TensorData::new(shares, [count, tokens]), &hidden.device());
    shares.matmul(hidden)
}

impl HeadConfig {
    /// Whether the backbone sums up a text with a pooler of its own.
    pub(crate) fn pools(&self, backbone: &BackboneConfig) -> bool {
        matches!(backbone, BackboneConfig::Bert(_)) && self.task != Task::Tags && self.pooling == Pooling::First
    }

    fn validate(&self, backbone: Option<&BackboneConfig>) -> Result<()> {
        ensure!(self.outputs() <= 1 << 16, "{} labels are more than a head may have", self.outputs());
        ensure!(
            self.task == Task::Number || self.labels.len() >= 2,
            "a head needs at least two labels to tell apart; there are {}",
            self.labels.len()
        );
        ensure!(self.features <= 1 << 24, "{} features are more than a head may have", self.features);
        ensure!(backbone.is_some() || self.features > 0, "without a backbone there must be features");
        ensure!(backbone.is_some() || self.task != Task::Tags, "labels of tokens need a backbone");
        ensure!(
            self.features == 0 || self.task != Task::Tags,
            "features are of whole texts, and labels of tokens cannot use them"
        );
        let decoder = matches!(backbone, Some(BackboneConfig::Decoder(_)));
        ensure!(
            !decoder || self.pooling != Pooling::First,
            "the first token of a decoder has seen nothing; pool \"last\" or \"mean\""
        );
        Ok(())
    }
}
