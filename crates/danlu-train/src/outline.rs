use danlu_models::{
    BackboneConfig, BertConfig, DecoderConfig, DenseConfig, GanConfig, HeadConfig, LenetConfig, MaeConfig, MarianConfig,
    VitConfig, VitEmbedderConfig,
};

/// What plans, predictions and views need to know about a model, whatever its architecture.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    /// As in `config.json`.
    pub model_type: String,
    pub layers: usize,
    /// Channels of the residual stream.
    pub hidden: usize,
    /// Entries of the output; the classes of a classifier.
    pub vocabulary: usize,
    pub parameters: u64,
    /// Parameters in embeddings and the output head, which Muon leaves to AdamW.
    pub embeddings: u64,
    /// Parameters that move; the others need neither gradient nor optimizer state.
    pub trained: u64,
    /// Numbers a layer keeps for its backward pass, for each token: the inputs of its products and of its nonlinear operations.
    pub floats_per_layer: u64,
}

impl Outline {
    /// Of a classifier with this many parameters, of which some are trained.
    pub fn of_classifier(backbone: Option<&BackboneConfig>, head: &HeadConfig, parameters: u64, trained: u64) -> Self {
        let of = match backbone {
            Some(BackboneConfig::Decoder(config)) => Self::from(config),
            Some(BackboneConfig::Bert(config)) => Self::from(config),
            None => Self::of_features(head.outputs(), parameters),
        };
        Outline { vocabulary: head.outputs(), parameters, trained, embeddings: of.embeddings.min(trained), ..of }
    }
}

impl Outline {
    /// Of features alone: as narrow as their labels are few.
    pub fn of_features(outputs: usize, parameters: u64) -> Self {
        Outline {
            model_type: "features".into(),
            layers: 1,
            hidden: outputs,
            vocabulary: outputs,
            parameters,
            embeddings: 0,
            trained: parameters,
            floats_per_layer: 0,
        }
    }
}

impl From<&LenetConfig> for Outline {
    /// A picture is one token; its layers are the stages and what comes after them.
    fn from(c: &LenetConfig) -> Self {
        let layers = c.channels.len() + c.hidden_sizes.len() + 1;
        Outline {
            model_type: c.model_type.clone(),
            layers,
            hidden: c.hidden_sizes.last().copied().unwrap_or(1),
            vocabulary: c.labels.len(),
            parameters: c.parameters(),
            embeddings: 0,
            trained: c.parameters(),
            floats_per_layer: c.activations().div_ceil(layers as u64),
        }
    }
}

impl From<&GanConfig> for Outline {
    /// A picture, and one that is drawn beside it, are one token; both networks count.
    fn from(c: &GanConfig) -> Self {
        let layers = 2 * (c.widths.len() + 1);
        Outline {
            model_type: c.model_type.clone(),
            layers,
            hidden: c.widths.iter().copied().max().unwrap_or(1),
            vocabulary: 1,
            parameters: c.parameters(),
            embeddings: 0,
            trained: c.parameters(),
            floats_per_layer: c.activations().div_ceil(layers as u64),
        }
    }
}

impl Outline {
    /// Of a Vision Transformer that sees `kept` patches of each picture, which is one token to the plan.
    pub fn of_vit(c: &VitConfig, kept: usize) -> Self {
        Outline {
            model_type: "vit".into(),
            layers: c.num_hidden_layers,
            hidden: c.hidden_size,
            vocabulary: c.labels.len().max(1),
            parameters: c.parameters(),
            embeddings: 0,
            trained: c.parameters(),
            floats_per_layer: c.layer_activations(kept + 1),
        }
    }
}

impl Outline {
    /// Of an embedder that sees `kept` patches of each picture and learns to tell `identities` apart.
    pub fn of_embedder(c: &VitEmbedderConfig, kept: usize, identities: usize) -> Self {
        let parameters = c.parameters() + (identities * c.embedding_size) as u64;
        Outline { vocabulary: identities, parameters, trained: parameters, ..Outline::of_vit(&c.vit, kept) }
    }
}

impl From<&MaeConfig> for Outline {
    /// A picture is one token; the decoder's layers count with the encoder's.
    fn from(c: &MaeConfig) -> Self {
        let layers = c.vit.num_hidden_layers + c.decoder_num_hidden_layers;
        Outline {
            model_type: "vit_mae".into(),
            layers,
            vocabulary: 1,
            parameters: c.parameters(),
            trained: c.parameters(),
            floats_per_layer: c.activations().div_ceil(layers as u64),
            ..Outline::of_vit(&c.vit, c.kept())
        }
    }
}

impl From<&DenseConfig> for Outline {
    /// A picture is one token; the head's numbers count with the layers'.
    fn from(c: &DenseConfig) -> Self {
        Outline {
            model_type: c.task.model_type().into(),
            vocabulary: c.outputs(),
            parameters: c.parameters(),
            trained: c.parameters(),
            floats_per_layer: c.activations().div_ceil(c.vit.num_hidden_layers as u64),
            ..Outline::of_vit(&c.vit, c.vit.patches())
        }
    }
}

impl From<&BertConfig> for Outline {
    fn from(c: &BertConfig) -> Self {
        Outline {
            model_type: "bert".into(),
            layers: c.num_hidden_layers,
            hidden: c.hidden_size,
            vocabulary: c.vocab_size,
            parameters: c.parameters(),
            embeddings: ((c.vocab_size + c.max_position_embeddings + c.type_vocab_size) * c.hidden_size) as u64,
            trained: c.parameters(),
            // The norms' inputs and outputs, queries, keys and values, what attention gives, and both sides of GELU.
            floats_per_layer: (5 * c.hidden_size
                + 3 * c.hidden_size
                + c.hidden_size
                + c.num_attention_heads
                + 2 * c.intermediate_size) as u64,
        }
    }
}

impl From<&MarianConfig> for Outline {
    fn from(c: &MarianConfig) -> Self {
        // As of BERT, but one side of ReLU; the decoder's layers have a third norm, and queries, keys and values of the source besides.
        let encoder = 9 * c.d_model + c.attention_heads + c.ffn_dim;
        let decoder = 15 * c.d_model + 2 * c.attention_heads + c.ffn_dim;
        let layers = c.encoder_layers + c.decoder_layers;
        Outline {
            model_type: "marian".into(),
            layers,
            hidden: c.d_model,
            vocabulary: c.vocab_size,
            parameters: c.parameters(),
            embeddings: (c.vocab_size * c.d_model) as u64,
            trained: c.parameters(),
            // About half of the tokens pass the encoder, and the other half the decoder.
            floats_per_layer: ((c.encoder_layers * encoder + c.decoder_layers * decoder) / (2 * layers)) as u64,
        }
    }
}

impl From<&DecoderConfig> for Outline {
    fn from(config: &DecoderConfig) -> Self {
        // The inputs of both norms, queries, keys and values, what attention gives, and what the activation function reads; what norms
        // and activation functions give is made again.
        let floats = match config {
            DecoderConfig::Llama(c) | DecoderConfig::Qwen3(c) => {
                let queries = c.num_attention_heads * c.head_dim;
                let qkv = queries + 2 * c.num_key_value_heads * c.head_dim;
                2 * c.hidden_size + qkv + queries + c.num_attention_heads + 2 * c.intermediate_size
            }
            DecoderConfig::Gpt2(c) => 6 * c.n_embd + c.n_head + c.n_inner,
        };
        let embedding = (config.vocab_size() * config.hidden_size()) as u64;
        Outline {
            model_type: config.model_type().into(),
            layers: config.layers(),
            hidden: config.hidden_size(),
            vocabulary: config.vocab_size(),
            parameters: config.parameters(),
            embeddings: embedding * if config.tied() { 1 } else { 2 },
            trained: config.parameters(),
            floats_per_layer: floats as u64,
        }
    }
}
