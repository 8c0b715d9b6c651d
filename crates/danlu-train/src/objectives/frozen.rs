//! What frozen layers make of examples.

use std::sync::OnceLock;

use burn::tensor::{Device, Tensor, TensorData};

/// The states of examples by their places, each computed when it is first asked for, one example by itself: so that it is the same bits
/// whichever examples it is trained with, and after a run was interrupted.
pub(super) struct Frozen(Vec<OnceLock<Option<States>>>);

/// Row after row, and how many rows.
type States = (Vec<f32>, usize);

impl Frozen {
    pub(super) fn new(places: usize) -> Self {
        Self((0..places).map(|_| OnceLock::new()).collect())
    }

    /// The states of the examples at `places`, one below the other: those remembered, or what `make(place)` gives, `[rows, hidden]`. None
    /// where that gives none of one of them.
    pub(super) fn states(
        &self,
        places: &[usize],
        device: &Device,
        make: impl Fn(usize) -> Option<Tensor<2>>,
    ) -> Option<Tensor<2>> {
        let one = |&place: &usize| {
            let made = || {
                let states = make(place)?.inner();
                let rows = states.dims()[0];
                Some((states.into_data().iter::<f32>().collect(), rows))
            };
            let (values, rows) = self.0[place].get_or_init(made).as_ref()?;
            Some(Tensor::<2>::from_data(TensorData::new(values.clone(), [*rows, values.len() / rows]), device))
        };
        Some(Tensor::cat(places.iter().map(one).collect::<Option<Vec<_>>>()?, 0))
    }
}
