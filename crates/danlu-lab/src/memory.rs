use danlu_ops::optim::INT8_BLOCK;
use danlu_train::Plan;
use danlu_train::recipe::{Base, MomentsKind, ObjectiveKind, OptimizerKind};
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
    if plan.recipe.objective.kind == ObjectiveKind::Word2vec {
        return of_words(plan);
    }
    let (model, parameters) = (&plan.model, plan.model.parameters);
    let micro_tokens = (plan.micro_rows * plan.row_len) as u64;
    let (vocabulary, hidden) = (model.vocabulary as u64, model.hidden as u64);
    // With recomputation each layer keeps its input, and one layer at a time all of its activations.
    let (layers, each) = (model.layers as u64, model.floats_per_layer);
    let kept = if plan.recipe.batch.recompute { layers * hidden + each } else { layers * each };
    // Of a step in several pieces each adds to the gradients of those before; only that of the head, found with the loss, stands beside them.
    let beside = if plan.rows > plan.micro_rows { model.embeddings.min(model.trained) } else { 0 };
    let gradients = model.trained + beside;
    // Four bits, and a scale for each 64 weights of the layers.
    let nf4 = plan.recipe.adapter.base == Base::Nf4;
    let quantized = if nf4 { parameters.saturating_sub(model.embeddings + model.trained) } else { 0 };
    Memory {
        weights: F32 * (parameters - quantized + plan.beside) + quantized * 9 / 16,
        gradients: F32 * gradients,
        optimizer: optimizer(plan, plan.recipe.optimizer.moments),
        activations: F32 * micro_tokens * (kept + 3 * hidden),
        // Logits and their gradient.
        loss: F32 * 2 * LOSS_CHUNK.min(micro_tokens) * vocabulary,
        data: 3 * F32 * plan.step_tokens(),
        program: PROGRAM,
    }
}

/// Word vectors move in place, row by row: there is no gradient of a whole table, only the moves of the slices that run side by side, and
/// for each of them where in its list a row stands.
fn of_words(plan: &Plan) -> Memory {
    const SLICES: u64 = 8;
    /// Of text, and of windows: those of the rows one by one, and joined.
    const BATCHES: u64 = 5;
    const WINDOWS: u64 = 2;
    let (model, spec) = (&plan.model, &plan.recipe.word2vec);
    // A window's words on both sides on average, the word itself, those drawn, and where each list ends.
    let window = (spec.window + spec.negative + 4) as u64;
    Memory {
        weights: F32 * model.parameters,
        gradients: 0,
        optimizer: 0,
        activations: SLICES * 2 * F32 * model.vocabulary as u64,
        loss: 0,
        // Checkpoints and measures copy the tables.
        data: F32 * (WINDOWS * window + BATCHES) * plan.step_tokens() + F32 * model.parameters,
        program: PROGRAM,
    }
}

/// Bytes of the optimizer's state if AdamW's moments are of this kind.
pub(crate) fn optimizer(plan: &Plan, moments: MomentsKind) -> u64 {
    let model = &plan.model;
    // Muon keeps one momentum for each hidden matrix; the rest is AdamW's.
    let (muon, adamw) = match plan.recipe.optimizer.kind {
        OptimizerKind::Sgd => (0, 0),
        OptimizerKind::Adamw => (0, model.trained),
        OptimizerKind::Muon => {
            let embeddings = model.embeddings.min(model.trained);
            (model.trained - embeddings, embeddings)
        }
    };
    let two = match moments {
        MomentsKind::F32 => 2 * F32 * adamw,
        // What stays in 32 bits, norms and biases, is too little to count.
        MomentsKind::Int8 => 2 * (adamw + F32 * adamw.div_ceil(INT8_BLOCK as u64)),
    };
    F32 * muon + two
}
