use danlu_models::DecoderConfig;

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

impl From<&DecoderConfig> for Outline {
    fn from(config: &DecoderConfig) -> Self {
        let floats = match config {
            DecoderConfig::Llama(c) | DecoderConfig::Qwen3(c) => {
                let queries = c.num_attention_heads * c.head_dim;
                let qkv = queries + 2 * c.num_key_value_heads * c.head_dim;
                5 * c.hidden_size + qkv + queries + c.num_attention_heads + 3 * c.intermediate_size
            }
            DecoderConfig::Gpt2(c) => 5 * c.n_embd + 4 * c.n_embd + c.n_head + 2 * c.n_inner,
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
