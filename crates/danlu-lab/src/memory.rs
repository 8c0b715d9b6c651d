use danlu_models::DecoderConfig;
use danlu_train::Plan;
use danlu_train::recipe::OptimizerKind;
use serde::Serialize;

/// Bytes of one number: training on the CPU is in f32.
const F32: u64 = 4;
/// Tokens whose logits exist at once in the loss.
const LOSS_CHUNK: u64 = 256;
/// The program itself, the tokenizer, and packed copies of the weights' panels in use.
const PROGRAM: u64 = 60 << 20;

/// Peak bytes of a training run, by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    pub weights: u64,
    pub gradients: u64,
    pub optimizer: u64,
    pub activations: u64,
    pub loss: u64,
    pub data: u64,
    pub program: u64,
}

impl Memory {
    pub fn total(&self) -> u64 {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Each part under its name.
    pub fn parts(&self) -> [(&'static str, u64); 7] {
        [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
            ("loss chunk", self.loss),
            ("data", self.data),
            ("program", self.program),
        ]
    }
}

/// What a run of `plan` needs at its peak. The token shards are mapped and can be dropped by the system at any time; only a batch of them
/// counts.
pub fn memory(plan: &Plan) -> Memory {
    let (config, parameters) = (&plan.config, plan.parameters);
    let micro_tokens = (plan.micro_rows * plan.row_len) as u64;
    let (vocabulary, hidden) = (config.vocab_size() as u64, config.hidden_size() as u64);
    let embeddings = vocabulary * hidden * if config.tied() { 1 } else { 2 };
    let states = match plan.recipe.optimizer.kind {
        OptimizerKind::Adamw => 2 * parameters,
        // Muon keeps one momentum for each hidden matrix; the rest is AdamW's.
        OptimizerKind::Muon => parameters + embeddings.min(parameters),
    };
    // With recomputation each layer keeps its input, and one layer at a time all of its activations.
    let (layers, each) = (config.layers() as u64, floats_per_layer(config));
    let kept = if plan.recipe.batch.recompute { layers * hidden + each } else { layers * each };
    // A step in several pieces keeps the sum so far beside the piece's own gradient.
    let gradients = if plan.rows > plan.micro_rows { 2 * parameters } else { parameters };
    Memory {
        weights: F32 * parameters,
        gradients: F32 * gradients,
        optimizer: F32 * states,
        activations: F32 * micro_tokens * (kept + 3 * hidden),
        // Logits and their gradient.
        loss: F32 * 2 * LOSS_CHUNK.min(micro_tokens) * vocabulary,
        data: 3 * F32 * plan.step_tokens(),
        program: PROGRAM,
    }
}

/// Numbers a block keeps for its backward pass, for each token: the inputs of its products and of its nonlinear operations.
fn floats_per_layer(config: &DecoderConfig) -> u64 {
    let floats = match config {
        DecoderConfig::Llama(c) | DecoderConfig::Qwen3(c) => {
            let queries = c.num_attention_heads * c.head_dim;
            let qkv = queries + 2 * c.num_key_value_heads * c.head_dim;
            5 * c.hidden_size + qkv + queries + c.num_attention_heads + 3 * c.intermediate_size
        }
        DecoderConfig::Gpt2(c) => 5 * c.n_embd + 4 * c.n_embd + c.n_head + 2 * c.n_inner,
    };
    floats as u64
}
