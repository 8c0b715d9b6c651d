use burn::tensor::Tensor;

use crate::{Ids, plain::indices};

/// Rows of a table: `weight` `[vocabulary, channels]`, `ids` `[tokens]` → `[tokens, channels]`.
///
/// # Panics
/// When an id is not a row of the table.
pub fn embedding(weight: Tensor<2>, ids: &Ids) -> Tensor<2> {
    let rows = weight.dims()[0];
    if let Some(id) = ids.iter().find(|&&id| id as usize >= rows) {
        panic!("token id {id} is outside the embedding's {rows} rows");
    }
    plain(weight, ids)
}

pub(crate) fn plain(weight: Tensor<2>, ids: &Ids) -> Tensor<2> {
    let indices = indices(ids.iter().map(|&id| id as i32), &weight.device());
    weight.select(0, indices)
}
