use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::json::Keys;
use super::{VitConfig, bounded};

/// The shape of a masked autoencoder, under the field names of `transformers` and as its `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct MaeConfig {
    /// The encoder, which has no classes.
    pub vit: VitConfig,
    pub decoder_hidden_size: usize,
    pub decoder_num_hidden_layers: usize,
    pub decoder_num_attention_heads: usize,
    pub decoder_intermediate_size: usize,
    /// The share of patches that are hidden.
    pub mask_ratio: f64,
    /// Whether each patch's values are brought to mean 0 and deviation 1 before they are told.
    pub norm_pix_loss: bool,
}

impl MaeConfig {
    /// The paper's way on an encoder: three quarters hidden, normalized pixels, a decoder with a feed-forward layer of four times its width.
    pub fn new(vit: VitConfig, hidden: usize, layers: usize) -> Self {
        let of_decoder = VitConfig::new([1, 1, 1], 1, hidden, layers);
        Self {
            vit: VitConfig { labels: vec![], ..vit },
            decoder_hidden_size: hidden,
            decoder_num_hidden_layers: layers,
            decoder_num_attention_heads: of_decoder.num_attention_heads,
            decoder_intermediate_size: of_decoder.intermediate_size,
            mask_ratio: 0.75,
            norm_pix_loss: true,
        }
    }

    /// Patches that the encoder sees.
    pub fn kept(&self) -> usize {
        (self.vit.patches() as f64 * (1.0 - self.mask_ratio)) as usize
    }

    /// Checks that the numbers make a network.
    ///
    /// # Errors
    /// Names the key and what it may be.
    pub fn validate(&self) -> Result<()> {
        self.vit.validate()?;
        bounded("decoder_hidden_size", self.decoder_hidden_size, 1 << 16)?;
        bounded("decoder_num_hidden_layers", self.decoder_num_hidden_layers, 1 << 12)?;
        bounded("decoder_num_attention_heads", self.decoder_num_attention_heads, 1 << 12)?;
        bounded("decoder_intermediate_size", self.decoder_intermediate_size, 1 << 20)?;
        ensure!(
            self.decoder_hidden_size.is_multiple_of(self.decoder_num_attention_heads),
            "`decoder_hidden_size` ({}) must be a multiple of `decoder_num_attention_heads` ({})",
            self.decoder_hidden_size,
            self.decoder_num_attention_heads
        );
        ensure!((0.0..1.0).contains(&self.mask_ratio), "`mask_ratio` is {}; it is a share below 1", self.mask_ratio);
        let (patches, kept) = (self.vit.patches(), self.kept());
        ensure!(
            (1..patches).contains(&kept),
            "`mask_ratio` {} of {patches} patches shows {kept}; at least one must be shown, and one hidden",
            self.mask_ratio
        );
        ensure!(
            !self.norm_pix_loss || self.vit.patch_len() > 1,
            "a patch of one value has no deviation: make `patch_size` larger, or `norm_pix_loss` false"
        );
        Ok(())
    }

    /// The decoder's layers, as an encoder's.
    pub(crate) fn decoder(&self) -> VitConfig {
        VitConfig {
            hidden_size: self.decoder_hidden_size,
            num_hidden_layers: self.decoder_num_hidden_layers,
            num_attention_heads: self.decoder_num_attention_heads,
            intermediate_size: self.decoder_intermediate_size,
            labels: vec![],
            ..self.vit.clone()
        }
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        let (decoder, patch) = (self.decoder(), self.vit.patch_len());
        let width = decoder.hidden_size;
        let around = width * (self.vit.hidden_size + 1) + width * (self.vit.patches() + 2) + 2 * width + patch * (width + 1);
        self.vit.parameters() + (around + decoder.num_hidden_layers * decoder.layer_parameters()) as u64
    }

    /// Floating-point operations to train on one picture.
    pub fn flops(&self) -> f64 {
        let (decoder, kept, patches) = (self.decoder(), self.kept(), self.vit.patches());
        let hidden = patches - kept;
        let told = 6.0 * (hidden * decoder.hidden_size * self.vit.patch_len()) as f64;
        let between = 6.0 * ((kept + 1) * self.vit.hidden_size * decoder.hidden_size) as f64;
        let encoder = self.vit.patch_flops(kept) + self.vit.layers_flops(kept + 1, kept + 1);
        encoder + between + decoder.layers_flops(patches + 1, hidden) + told
    }

    /// Numbers that all layers keep for the backward pass of one picture.
    pub fn activations(&self) -> u64 {
        let (decoder, vit) = (self.decoder(), &self.vit);
        vit.num_hidden_layers as u64 * vit.layer_activations(self.kept() + 1)
            + decoder.num_hidden_layers as u64 * decoder.layer_activations(vit.patches() + 1)
    }
}

impl TryFrom<Value> for MaeConfig {
    type Error = anyhow::Error;

    fn try_from(value: Value) -> Result<Self> {
        let keys = Keys(value.as_object().context("a model's configuration must be a JSON object")?);
        let kind = keys.text("model_type")?.unwrap_or("missing");
        ensure!(kind == "vit_mae", "`model_type` is {kind:?}; this is read as vit_mae");
        // The defaults are those of transformers.
        let config = Self {
            vit: VitConfig::of_shape(&keys)?,
            decoder_hidden_size: keys.count("decoder_hidden_size")?.unwrap_or(512),
            decoder_num_hidden_layers: keys.count("decoder_num_hidden_layers")?.unwrap_or(8),
            decoder_num_attention_heads: keys.count("decoder_num_attention_heads")?.unwrap_or(16),
            decoder_intermediate_size: keys.count("decoder_intermediate_size")?.unwrap_or(2048),
            mask_ratio: keys.number("mask_ratio")?.unwrap_or(0.75),
            norm_pix_loss: keys.flag("norm_pix_loss")?.unwrap_or(false),
        };
        config.validate()?;
        Ok(config)
    }
}

impl From<MaeConfig> for Value {
    fn from(config: MaeConfig) -> Self {
        let mut value = config.vit.shape();
        value["architectures"] = json!(["ViTMAEForPreTraining"]);
        value["model_type"] = json!("vit_mae");
        value["decoder_hidden_size"] = json!(config.decoder_hidden_size);
        value["decoder_num_hidden_layers"] = json!(config.decoder_num_hidden_layers);
        value["decoder_num_attention_heads"] = json!(config.decoder_num_attention_heads);
        value["decoder_intermediate_size"] = json!(config.decoder_intermediate_size);
        value["mask_ratio"] = json!(config.mask_ratio);
        value["norm_pix_loss"] = json!(config.norm_pix_loss);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_written_and_what_makes_no_network_is_refused() {
        let config = MaeConfig::new(VitConfig::new([1, 28, 28], 4, 64, 3), 32, 2);
        config.validate().unwrap();
        assert_eq!((config.kept(), config.decoder_num_attention_heads, config.decoder_intermediate_size), (12, 2, 128));
        let value = Value::from(config.clone());
        assert_eq!(MaeConfig::try_from(value.clone()).unwrap(), config);
        let check = |key: &str, wrong: Value, says: &str| {
            let mut value = value.clone();
            value[key] = wrong;
            let message = MaeConfig::try_from(value).unwrap_err().to_string();
            assert!(message.contains(says), "{key}: {message}");
        };
        check("model_type", json!("vit"), "\"vit\"");
        check("mask_ratio", json!(1.0), "`mask_ratio`");
        check("mask_ratio", json!(0.99), "at least one must be shown");
        check("mask_ratio", json!(0.0), "and one hidden");
        check("decoder_num_attention_heads", json!(5), "`decoder_num_attention_heads`");
        check("decoder_num_hidden_layers", json!(0), "`decoder_num_hidden_layers`");
    }
}
