use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use crate::bridge::{Operation, on_cpu, owned, run, values, values_mut};
use crate::buffer::Buffer;
use crate::precision::activations;
use crate::profile::{Part, time};
use crate::rows::{add, for_each_piece, rows_per_piece};
use crate::{Ids, kernels::Isa, plain::indices};

/// Rows of a table: `weight` `[vocabulary, channels]`, `ids` `[tokens]` → `[tokens, channels]`.
///
/// # Panics
/// When an id is not a row of the table.
pub fn embedding(weight: Tensor<2>, ids: &Ids) -> Tensor<2> {
    let rows = weight.dims()[0];
    if let Some(id) = ids.iter().find(|&&id| id as usize >= rows) {
        panic!("token id {id} is outside the embedding's {rows} rows");
    }
    if on_cpu(&weight) {
        let (shape, parameter) = (weight.dims(), weight.is_require_grad());
        run(Embedding { ids: ids.clone(), shape, parameter }, [weight.into_dispatch()])
    } else {
        activations(plain(weight, ids))
    }
}

pub(crate) fn plain(weight: Tensor<2>, ids: &Ids) -> Tensor<2> {
    let indices = indices(ids.iter().map(|&id| id as i32), &weight.device());
    weight.select(0, indices)
}

struct Embedding {
    ids: Ids,
    shape: [usize; 2],
    /// Whether the table is a parameter, to whose gradient the rows are added in place: where it is the output projection too, that
    /// gradient is there already, and a second one of the whole vocabulary would be the largest tensor of the step.
    parameter: bool,
}

impl Operation<1> for Embedding {
    type Saved = ();

    fn forward(&self, [weight]: [FlexTensor; 1], _: [bool; 1]) -> (FlexTensor, Option<()>) {
        let (tokens, width) = (self.ids.len(), self.shape[1]);
        let y = time(Part::Embedding, || rows_of(values(&weight), &self.ids, width));
        (y.into_tensor([tokens, width]), Some(()))
    }

    fn backward(&self, (): (), dy: FlexTensor, needed: [bool; 1]) -> [Option<FlexTensor>; 1] {
        self.add_backward([None], (), dy, needed)
    }

    fn adds(&self) -> [bool; 1] {
        [self.parameter]
    }

    fn add_backward(&self, [found]: [Option<FlexTensor>; 1], (): (), dy: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let [vocabulary, width] = self.shape;
        let fresh = found.is_none();
        let mut gradient = found.map_or_else(|| Buffer::new(vocabulary * width).into_tensor(self.shape), owned);
        time(Part::Embedding, || {
            add_to_rows(values_mut(&mut gradient), fresh, values(&dy), &self.ids, width);
        });
        [Some(gradient)]
    }
}

/// The rows `ids` of a table whose rows are `width` long.
pub(crate) fn rows_of(table: &[f32], ids: &[u32], width: usize) -> Buffer {
    let mut y = Buffer::new(ids.len() * width);
    let rows = rows_per_piece(ids.len(), width);
    for_each_piece([&mut y], [rows * width], |piece, [y]| {
        for (y, &id) in y.chunks_exact_mut(width).zip(&ids[piece * rows..]) {
            y.copy_from_slice(&table[id as usize * width..][..width]);
        }
    });
    y
}

/// Adds each row of `from` to the row of `table` that `ids` names, in order; to zeros where the table is `fresh`.
pub(crate) fn add_to_rows(table: &mut [f32], fresh: bool, from: &[f32], ids: &[u32], width: usize) {
    let rows = rows_per_piece(table.len() / width, width);
    // Each piece owns some rows of the table and looks through all ids in order, so each row's sum has one order.
    for_each_piece([table], [rows * width], |piece, [table]| {
        if fresh {
            table.fill(0.0);
        }
        let mine = piece * rows..piece * rows + table.len() / width;
        for (from, &id) in from.chunks_exact(width).zip(ids) {
            if mine.contains(&(id as usize)) {
                add(Isa::current(), &mut table[(id as usize - mine.start) * width..][..width], from);
            }
        }
    });
}
