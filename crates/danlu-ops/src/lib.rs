//! Fused tensor operations with their gradients, on Burn.
//!
//! Every operation is a function on two-dimensional activations `[tokens, channels]`, with weights `[out, in]`, and works
//! with autodiff on or off. It has two forms: the plain-tensor default, which runs on any device and is differentiated by
//! Burn, and the CPU form with its own backward, taken whenever the tensors are on Burn's Flex device. The CPU form is
//! deterministic: how work is divided depends on shapes only.

mod again;
mod attention;
mod attention_cached;
mod attention_paged;
mod batch_norm;
mod before;
mod blocks;
mod bridge;
mod buffer;
mod carry;
mod convolution;
mod cross_attention;
mod device;
mod distill;
mod embedding;
mod gelu;
mod gelu_exact;
mod group_norm;
mod heads;
pub mod kernels;
mod layer_norm;
mod linear;
mod log_probs;
mod loss;
mod nf4;
pub mod optim;
mod plain;
mod planes;
mod pool;
mod precision;
pub mod profile;
mod project;
mod rate;
mod recompute;
mod rms_norm;
mod rope;
mod rows;
mod scalars;
mod segments;
mod swiglu;
mod transposed;
mod unit;
mod word2vec;

use std::sync::Arc;

pub use attention::{attention, attention_shared, bidirectional_attention};
pub use attention_cached::{LayerCache, attention_cached};
pub use attention_paged::{PagedCache, attention_paged};
pub use batch_norm::{batch_norm, channel_statistics, fixed_norm};
pub use before::Before;
pub use blocks::{block_values, embedding_in_blocks};
pub use buffer::{pool_bytes, release_buffers, releasing_buffers};
pub use carry::Carried;
pub use convolution::{Convolution, convolution};
pub use cross_attention::cross_attention;
pub use danlu_quant as quantized;
pub use device::{
    Accelerator, NAMES as DEVICE_NAMES, NoDevice, accelerators, built_for, choose_device, device, device_name, has_bf16,
};
pub use distill::{Distillation, Distilled, Divergence, linear_distill};
pub use embedding::embedding;
pub use gelu::gelu;
pub use gelu_exact::gelu_exact;
pub use group_norm::group_norm;
pub use heads::Heads;
pub use kernels::threads::{set_threads, threads};
pub use kernels::{KvFormat, live_page_bytes, live_pages};
pub use layer_norm::layer_norm;
pub use linear::{LowRank, Projection, Weight, linear, project, projections, projections_after};
pub use log_probs::{linear_log_probs, linear_log_probs_and_entropy, linear_log_probs_expecting};
pub use loss::{linear_cross_entropy, linear_cross_entropy_smoothed, token_nll};
pub use nf4::{NF4, Nf4};
pub use planes::Planes;
pub use pool::{Pooling, Window, pool};
pub use precision::{Precision, precision, set_precision};
pub use rate::{gemm_rate, gemm_rate_again};
pub use recompute::recompute;
pub use rms_norm::{head_rms_norm, rms_norm};
pub use rope::Rope;
pub use scalars::{Scalar, read_scalars};
pub use segments::Segments;
pub use swiglu::swiglu;
pub use transposed::transposed_convolution;
pub use unit::{leaky_relu, relu, tanh};
pub use word2vec::{Form, Moved, Windows, negative_sampling, negative_sampling_losses, negative_sampling_step};

/// Token ids, shared.
pub type Ids = Arc<[u32]>;

/// A target that carries no loss.
pub const IGNORE: u32 = u32::MAX;

#[cfg(test)]
mod tests;
