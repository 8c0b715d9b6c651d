use burn::tensor::Tensor;

use crate::Scalar;
use crate::bridge::{on_cpu, primitive, values};
use crate::kernels::{Isa, simd, simd_fn};
use crate::profile::{Part, time};
use crate::rows::for_each_piece;

/// Elements in a piece of work.
const PIECE: usize = 1 << 15;

/// Sum of the squares of a tensor, which devices other than the CPU still compute when this returns. On the CPU each piece of 32768 elements is summed in single precision and the pieces in double, in a
/// fixed order, so that the result does not depend on threads.
pub fn square_sum<const D: usize>(x: &Tensor<D>) -> Scalar {
    let x = x.clone().inner();
    if !on_cpu(&x) {
        return plain(x);
    }
    let x = primitive(x);
    let x = values(&x);
    let mut sums = vec![0.0; x.len().div_ceil(PIECE)];
    time(Part::Optimizer, || {
        for_each_piece([&mut sums], [1], |i, [sum]| {
            let end = x.len().min((i + 1) * PIECE);
            sum[0] = squares(Isa::current(), &x[i * PIECE..end]);
        });
    });
    Scalar::Known(sums.into_iter().map(f64::from).sum())
}

simd_fn! {
    fn squares(x: &[f32]) -> f32 {
        simd::dot::<FMA>(x, x)
    }
}

pub(crate) fn plain<const D: usize>(x: Tensor<D>) -> Scalar {
    Scalar::of(x.square().sum())
}

/// The Euclidean norm of everything together, from the value of [`square_sum`] of each part, added in the order given.
pub fn global_norm(square_sums: impl IntoIterator<Item = f64>) -> f64 {
    square_sums.into_iter().sum::<f64>().sqrt()
}
