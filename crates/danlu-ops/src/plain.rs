//! What the plain-tensor forms share.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// An index tensor on a device.
pub(crate) fn indices(ids: impl Iterator<Item = i32>, device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i32> = ids.collect();
    let count = ids.len();
    Tensor::from_data(TensorData::new(ids, [count]), device)
}
