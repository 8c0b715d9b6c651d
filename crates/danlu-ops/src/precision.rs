//! What numbers activations are made of on devices other than the CPU.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use burn::tensor::{DType, Tensor};

/// The numbers of activations. Weights, gradients, moments, norms, softmax and losses are in 32 bits with either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats. Tensor cores may read them with 10 bits of fraction (TF32).
    F32,
    /// bfloat16 products and activations, with sums in 32 bits (Kalamkar et al. 2019, <https://arxiv.org/abs/1905.12322>).
    Bf16,
}

static BF16: AtomicBool = AtomicBool::new(false);

/// Sets the numbers of activations for this program. The CPU form always takes 32-bit floats.
pub fn set_precision(precision: Precision) {
    BF16.store(precision == Precision::Bf16, Relaxed);
}

/// The numbers of activations on devices other than the CPU.
pub fn precision() -> Precision {
    if BF16.load(Relaxed) { Precision::Bf16 } else { Precision::F32 }
}

/// Where activations begin: everything after follows the type of its activations.
pub(crate) fn activations<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match precision() {
        Precision::F32 => x,
        Precision::Bf16 => x.cast(DType::BF16),
    }
}

/// For sums and exponentials.
pub(crate) fn wide<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.cast(DType::F32)
}
