//! Numbers that a device still computes: read together, so that it is waited for once.

use burn::tensor::{DType, Tensor};

use crate::bridge::on_cpu;

/// A number that is known, or on a device.
#[derive(Clone, Debug)]
pub enum Scalar {
    Known(f64),
    /// The one value of a tensor.
    There(Box<Tensor<1>>),
}

impl Scalar {
    /// The value of a tensor that has one: known at once on the CPU.
    pub fn of(x: Tensor<1>) -> Self {
        let x = x.inner();
        if on_cpu(&x) { Scalar::Known(f64::from(x.into_scalar::<f32>())) } else { Scalar::There(Box::new(x.cast(DType::F32))) }
    }
}

/// The values of numbers, with one transfer for all that are on a device.
pub fn read_scalars(scalars: Vec<Scalar>) -> Vec<f64> {
    let there: Vec<Tensor<1>> =
        scalars.iter().filter_map(|s| if let Scalar::There(x) = s { Some(Tensor::clone(x)) } else { None }).collect();
    let read: Vec<f32> = match there.is_empty() {
        true => vec![],
        false => Tensor::cat(there, 0).into_data().try_into_vec().expect("scalars are of 32-bit floats"),
    };
    let mut read = read.into_iter();
    let value = |scalar| match scalar {
        Scalar::Known(value) => value,
        Scalar::There(_) => f64::from(read.next().expect("each scalar was read")),
    };
    scalars.into_iter().map(value).collect()
}
