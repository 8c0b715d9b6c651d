use anyhow::{Context, Result, ensure};
use danlu_ops::Planes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::json::Keys;
use super::{bounded, positive};

/// The shape of a Vision Transformer, under the field names of `transformers`, and as the `config.json` of its classifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct VitConfig {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub layer_norm_eps: f64,
    pub initializer_range: f64,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Planes of a picture: 1 for brightness, 3 for colour.
    pub num_channels: usize,
    /// Height and width of a picture.
    pub image_size: [usize; 2],
    /// The side of the squares that a picture is cut into.
    pub patch_size: usize,
    /// The classes, in the order of the outputs; `id2label` in the file, and none of a network without that head.
    pub labels: Vec<String>,
    /// What is taken from each channel, as a share of full brightness, and what it is then divided by; in `preprocessor_config.json`.
    pub image_mean: Vec<f64>,
    pub image_std: Vec<f64>,
}

impl VitConfig {
    /// A shape for pictures `[channels, height, width]`, with a feed-forward layer of four times the width and heads of 32, or 16 in narrow ones.
    pub fn new(picture: [usize; 3], patch_size: usize, hidden_size: usize, layers: usize) -> Self {
        let head_dim = if hidden_size <= 64 { 16 } else { 32 };
        Self {
            hidden_size,
            num_hidden_layers: layers,
            num_attention_heads: (hidden_size / head_dim).max(1),
            intermediate_size: 4 * hidden_size,
            layer_norm_eps: 1e-12,
            initializer_range: 0.02,
            qkv_bias: true,
            num_channels: picture[0],
            image_size: [picture[1], picture[2]],
            patch_size,
            labels: vec![],
            image_mean: vec![0.5; picture[0]],
            image_std: vec![0.5; picture[0]],
        }
    }

    /// What it reads.
    pub fn picture(&self) -> Planes {
        Planes { channels: self.num_channels, height: self.image_size[0], width: self.image_size[1] }
    }

    /// Rows and columns of patches.
    pub fn grid(&self) -> [usize; 2] {
        self.image_size.map(|side| side / self.patch_size)
    }

    /// Patches of a picture.
    pub fn patches(&self) -> usize {
        self.grid().iter().product()
    }

    /// Values of a patch.
    pub fn patch_len(&self) -> usize {
        self.num_channels * self.patch_size * self.patch_size
    }

    /// Checks that the numbers make a network.
    ///
    /// # Errors
    /// Names the key and what it may be.
    pub fn validate(&self) -> Result<()> {
        bounded("hidden_size", self.hidden_size, 1 << 16)?;
        bounded("intermediate_size", self.intermediate_size, 1 << 20)?;
        bounded("num_hidden_layers", self.num_hidden_layers, 1 << 12)?;
        bounded("num_attention_heads", self.num_attention_heads, 1 << 12)?;
        bounded("patch_size", self.patch_size, 1 << 10)?;
        self.image_size.iter().try_for_each(|side| bounded("image_size", *side, 4096))?;
        ensure!([1, 3].contains(&self.num_channels), "`num_channels` is {}; pictures have 1 or 3", self.num_channels);
        ensure!(
            self.hidden_size.is_multiple_of(self.num_attention_heads),
            "`hidden_size` ({}) must be a multiple of `num_attention_heads` ({})",
            self.hidden_size,
            self.num_attention_heads
        );
        ensure!(
            self.image_size.iter().all(|side| side.is_multiple_of(self.patch_size)),
            "pictures of {}×{} cannot be cut into patches of `patch_size` {}; both sides must be multiples of it",
            self.image_size[0],
            self.image_size[1],
            self.patch_size
        );
        bounded("image_size / patch_size squared", self.patches(), 1 << 16)?;
        positive("layer_norm_eps", self.layer_norm_eps)?;
        positive("initializer_range", self.initializer_range)?;
        let scaled = |x: &[f64]| x.len() == self.num_channels && x.iter().all(|x| x.is_finite());
        ensure!(
            scaled(&self.image_mean) && scaled(&self.image_std) && self.image_std.iter().all(|x| *x > 0.0),
            "`image_mean` and `image_std` must have a number for each of the {} channels, and deviations above zero",
            self.num_channels
        );
        Ok(())
    }

    /// [`VitConfig::validate`] of a classifier.
    ///
    /// # Errors
    /// As there, and when there are not two classes.
    pub fn validate_classifier(&self) -> Result<()> {
        self.validate()?;
        let classes = self.labels.len();
        ensure!((2..=1 << 16).contains(&classes), "there are {classes} classes; a classifier tells from 2 to 65536 apart");
        Ok(())
    }

    /// Number of parameters, those of the classes among them.
    pub fn parameters(&self) -> u64 {
        let hidden = self.hidden_size;
        let embeddings = hidden * (self.patch_len() + 1) + hidden * (self.patches() + 2);
        let layers = self.num_hidden_layers * self.layer_parameters();
        (embeddings + layers + 2 * hidden + self.labels.len() * (hidden + 1)) as u64
    }

    /// Of one layer: its products, their biases and two norms.
    pub(super) fn layer_parameters(&self) -> usize {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let qkv = if self.qkv_bias { 3 * hidden } else { 0 };
        self.layer_products() + qkv + hidden + inner + hidden + 4 * hidden
    }

    /// Products of a token with the weights of one layer.
    fn layer_products(&self) -> usize {
        4 * self.hidden_size * self.hidden_size + 2 * self.hidden_size * self.intermediate_size
    }

    /// Floating-point operations of a training step on all layers, for one picture of so many tokens, of which the last layer finishes
    /// `wanted`: six for each product with a weight, and twelve for each channel of two tokens that see each other.
    pub(super) fn layers_flops(&self, tokens: usize, wanted: usize) -> f64 {
        let (hidden, layers) = (self.hidden_size as f64, self.num_hidden_layers as f64);
        let unfinished = self.layer_products() - 3 * self.hidden_size * self.hidden_size;
        let products = layers * (tokens * self.layer_products()) as f64 - ((tokens - wanted) * unfinished) as f64;
        6.0 * products + 12.0 * layers * hidden * (tokens * tokens) as f64
    }

    /// Operations to make tokens of patches, which need no gradient themselves.
    pub(super) fn patch_flops(&self, patches: usize) -> f64 {
        4.0 * (patches * self.patch_len() * self.hidden_size) as f64
    }

    /// Operations to train a classifier on one picture of which `kept` patches are seen.
    pub fn flops(&self, kept: usize) -> f64 {
        let classes = 6.0 * (self.hidden_size * self.labels.len()) as f64;
        self.patch_flops(kept) + self.layers_flops(kept + 1, 1) + classes
    }

    /// Numbers that a layer keeps for the backward pass of one picture of so many tokens: the stream, queries, keys and values, what attention
    /// gives, the stream between, and both sides of GELU.
    pub fn layer_activations(&self, tokens: usize) -> u64 {
        (tokens * (6 * self.hidden_size + self.num_attention_heads + 2 * self.intermediate_size)) as u64
    }

    /// The keys that all networks of this kind have.
    pub(super) fn shape(&self) -> Value {
        let [height, width] = self.image_size;
        json!({
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "intermediate_size": self.intermediate_size,
            "hidden_act": "gelu",
            // danlu trains without dropout, and so should whoever goes on from its models.
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "initializer_range": self.initializer_range,
            "layer_norm_eps": self.layer_norm_eps,
            "image_size": if height == width { json!(height) } else { json!([height, width]) },
            "patch_size": self.patch_size,
            "num_channels": self.num_channels,
            "qkv_bias": self.qkv_bias,
            "torch_dtype": "float32",
        })
    }

    /// Reads [`VitConfig::shape`]; the defaults are those of `transformers`, which are the paper's base model.
    pub(super) fn of_shape(keys: &Keys) -> Result<Self> {
        keys.only("hidden_act", &["gelu"])?;
        let sides = |key: &str, default: usize| match keys.get(key) {
            Some(Value::Array(both)) => {
                let both: Option<Vec<usize>> = both.iter().map(|side| side.as_u64().and_then(|n| n.try_into().ok())).collect();
                both.and_then(|both| <[usize; 2]>::try_from(both).ok())
                    .with_context(|| format!("`{key}` must be one or two numbers"))
            }
            _ => Ok([keys.count(key)?.unwrap_or(default); 2]),
        };
        let patch = sides("patch_size", 16)?;
        ensure!(patch[0] == patch[1], "`patch_size` is {patch:?}; patches are squares here");
        let num_channels = keys.count("num_channels")?.unwrap_or(3);
        ensure!([1, 3].contains(&num_channels), "`num_channels` is {num_channels}; pictures have 1 or 3");
        Ok(Self {
            hidden_size: keys.count("hidden_size")?.unwrap_or(768),
            num_hidden_layers: keys.count("num_hidden_layers")?.unwrap_or(12),
            num_attention_heads: keys.count("num_attention_heads")?.unwrap_or(12),
            intermediate_size: keys.count("intermediate_size")?.unwrap_or(3072),
            layer_norm_eps: keys.number("layer_norm_eps")?.unwrap_or(1e-12),
            initializer_range: keys.number("initializer_range")?.unwrap_or(0.02),
            qkv_bias: keys.flag("qkv_bias")?.unwrap_or(true),
            num_channels,
            image_size: sides("image_size", 224)?,
            patch_size: patch[0],
            labels: vec![],
            image_mean: vec![0.5; num_channels],
            image_std: vec![0.5; num_channels],
        })
    }
}

impl TryFrom<Value> for VitConfig {
    type Error = anyhow::Error;

    fn try_from(value: Value) -> Result<Self> {
        let keys = Keys(value.as_object().context("a model's configuration must be a JSON object")?);
        let kind = keys.text("model_type")?.unwrap_or("missing");
        ensure!(kind == "vit", "`model_type` is {kind:?}; this is read as vit");
        ensure!(
            keys.get("quantization_config").is_none(),
            "`quantization_config`: quantized weights in this format are not read"
        );
        let config = Self::of_shape(&keys)?;
        config.validate()?;
        Ok(config)
    }
}

impl From<VitConfig> for Value {
    fn from(config: VitConfig) -> Self {
        let mut value = config.shape();
        value["architectures"] = json!(["ViTForImageClassification"]);
        value["model_type"] = json!("vit");
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_written_and_what_is_not_computed_is_refused() {
        for picture in [[1, 28, 28], [3, 24, 32]] {
            let config = VitConfig { qkv_bias: false, ..VitConfig::new(picture, 4, 48, 2) };
            config.validate().unwrap();
            assert_eq!(VitConfig::try_from(Value::from(config.clone())).unwrap(), config);
        }
        let value = Value::from(VitConfig::new([1, 28, 28], 4, 64, 2));
        let check = |key: &str, wrong: Value, says: &str| {
            let mut value = value.clone();
            value[key] = wrong;
            let message = VitConfig::try_from(value).unwrap_err().to_string();
            assert!(message.contains(says), "{key}: {message}");
        };
        check("model_type", json!("deit"), "deit");
        check("hidden_act", json!("gelu_new"), "`hidden_act`");
        check("num_attention_heads", json!(7), "multiple of `num_attention_heads`");
        check("patch_size", json!(5), "multiples of it");
        check("patch_size", json!([4, 2]), "squares");
        check("patch_size", json!(0), "`patch_size`");
        check("image_size", json!([1, 2, 3]), "`image_size`");
        check("image_size", json!(u64::MAX), "`image_size`");
        check("num_channels", json!(u64::MAX), "`num_channels`");
    }

    /// The paper's base model, of which it says 86 million (table 1), with ImageNet's classes.
    #[test]
    fn the_paper_s_model_has_its_parameters() {
        let labels = (0..1000).map(|i| i.to_string()).collect();
        let base = VitConfig { labels, num_attention_heads: 12, ..VitConfig::new([3, 224, 224], 16, 768, 12) };
        base.validate_classifier().unwrap();
        assert_eq!(base.parameters(), 86_567_656);
        // 17.6 G products and sums forward, less what the last layer need not finish.
        let forward = base.flops(196) / 3.0 / 2.0;
        assert!((16e9..18e9).contains(&forward), "{forward}");
    }
}
