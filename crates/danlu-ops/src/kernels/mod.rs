//! The processor's kernels: matrix products, attention, and what the element-wise operations are made of.
//!
//! Kernels are chosen at run time ([`Isa`]) and share one way of using threads ([`threads`]). All are deterministic: what is
//! added to what, and in which order, depends on shapes only.

mod attention;
mod few;
mod gemm;
mod gemv;
mod isa;
mod mat;
pub(crate) mod memory;
pub(crate) mod negatives;
mod pack;
pub(crate) mod scratch;
pub mod simd;
mod tile;

pub use attention::{Across, Pair, Seen, cross_attention_backward, cross_attention_forward};
pub use attention::{Attention, attention_backward, attention_cached, attention_forward};
pub use attention::{KvFormat, PAGE, live_page_bytes, live_pages};
pub(crate) use attention::{Page, Rows, attention_paged, store_paged};
pub use danlu_quant::threads;
pub use few::gemm_few;
pub use gemm::{gemm, gemm_here};
pub use gemv::gemv;
pub use isa::Isa;
pub use mat::{Mat, MatMut};
pub(crate) use simd::simd_fn;
