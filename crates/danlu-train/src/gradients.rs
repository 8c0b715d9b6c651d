//! The gradients of a model, summed over the pieces of an update.

use anyhow::{Result, bail};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::tensor::container::TensorContainer;
use danlu_models::names_and_shapes;
use danlu_ops::optim::square_sum;
use danlu_ops::{Carried, Scalar};

/// One gradient per parameter, known by the parameter's place in the model (the order of [`names_and_shapes`]).
pub struct Gradients {
    tensors: TensorContainer<usize>,
}

/// The square of each gradient's length, with the parameter's name.
pub type Squares = Vec<(String, f64)>;

/// [`Squares`] that a device may still be computing.
pub type ComingSquares = Vec<(String, Scalar)>;

impl Gradients {
    pub fn new() -> Self {
        Gradients { tensors: TensorContainer::new() }
    }

    /// Adds those of a loss. Its backward pass begins with what is there already, where the device lets it: a second gradient of every
    /// parameter, as large as the model, is then never made.
    ///
    /// # Errors
    /// Names the first parameter that is trained and received no gradient: it does not take part in the loss.
    pub fn add(&mut self, model: &impl Module, loss: Tensor<1>) -> Result<()> {
        let mut carrier = Carrier { sum: &mut *self, carried: Carried::new(loss), index: 0 };
        model.visit(&mut carrier);
        let found = carrier.carried.backward();
        let mut adder = Adder { sum: self, found, index: 0, missing: None };
        model.visit(&mut adder);
        if let Some(index) = adder.missing {
            let name = &names_and_shapes(model)[index].0;
            bail!("{name} received no gradient: it is trained but takes no part in the loss. Freeze it or connect it");
        }
        Ok(())
    }

    /// The square of the length of every gradient.
    pub fn squares(&self, model: &impl Module) -> ComingSquares {
        let mut squares = SquareSums { sum: self, index: 0, values: vec![] };
        model.visit(&mut squares);
        let names = names_and_shapes(model);
        squares.values.into_iter().map(|(index, value)| (names[index].0.clone(), value)).collect()
    }

    pub(crate) fn take<const D: usize>(&mut self, index: usize) -> Option<Tensor<D>> {
        self.tensors.remove(&index)
    }
}

impl Default for Gradients {
    fn default() -> Self {
        Gradients::new()
    }
}

struct Carrier<'a> {
    sum: &'a mut Gradients,
    carried: Carried,
    index: usize,
}

impl ModuleVisitor for Carrier<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (index, tensor) = (self.index, param.val());
        self.index += 1;
        let Some(gradient) = self.sum.take::<D>(index) else { return };
        if let Some(gradient) = self.carried.take(&tensor, gradient) {
            self.sum.tensors.register(index, gradient);
        }
    }
}

struct Adder<'a> {
    sum: &'a mut Gradients,
    found: burn::tensor::Gradients,
    index: usize,
    missing: Option<usize>,
}

impl ModuleVisitor for Adder<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (index, tensor) = (self.index, param.val());
        self.index += 1;
        if !tensor.is_require_grad() {
            return;
        }
        match tensor.grad_remove(&mut self.found) {
            Some(gradient) => {
                let sum = match self.sum.take::<D>(index) {
                    Some(sum) => sum + gradient,
                    None => gradient,
                };
                self.sum.tensors.register(index, sum);
            }
            None => self.missing = self.missing.or(Some(index)),
        }
    }
}

struct SquareSums<'a> {
    sum: &'a Gradients,
    index: usize,
    values: Vec<(usize, Scalar)>,
}

impl ModuleVisitor for SquareSums<'_> {
    fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<D>>) {
        if let Some(gradient) = self.sum.tensors.get::<Tensor<D>>(&self.index) {
            self.values.push((self.index, square_sum(&gradient)));
        }
        self.index += 1;
    }
}
