use burn::backend::DispatchTensor;
use burn::backend::flex::FlexTensor;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};

use crate::bridge::{Operation, on_cpu, primitive, run, tensor};
use crate::buffer::Buffer;

/// Runs `forward(layer, x)` keeping only `x` for the backward pass, which runs it again (activation recomputation, Chen et
/// al. 2016, <https://arxiv.org/abs/1604.06174>): a layer then costs the memory of its input. Gradients are the same bits.
///
/// `forward` must depend on nothing that changes between the passes, and on no tensor that is trained outside the layer.
/// Devices other than the CPU run it as it is and keep its activations, and so does a layer of more than 32 parameters.
pub fn recompute<M, F>(layer: &M, x: Tensor<2>, forward: F) -> Tensor<2>
where
    M: Module + 'static,
    F: Fn(&M, Tensor<2>) -> Tensor<2> + Send + 'static,
{
    let mut parameters = Parameters { tensors: Vec::new(), cpu: on_cpu(&x), tracked: x.is_tracked() };
    layer.visit(&mut parameters);
    if !parameters.cpu || !parameters.tracked {
        return forward(layer, x);
    }
    let operation = Recompute { layer: layer.valid(), forward };
    let x = x.into_dispatch();
    macro_rules! of_as_many_inputs {
        ($($count:literal)*) => {
            match parameters.tensors.len() {
                $($count => {
                    let mut inputs = std::iter::once(x).chain(parameters.tensors);
                    run(operation, std::array::from_fn::<_, { $count + 1 }, _>(|_| inputs.next().expect("as many were counted")))
                })*
                _ => (operation.forward)(layer, Tensor::from_dispatch(x)),
            }
        };
    }
    of_as_many_inputs!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32)
}

/// A layer's parameters, in the order of a visit.
struct Parameters {
    tensors: Vec<DispatchTensor>,
    cpu: bool,
    tracked: bool,
}

impl ModuleVisitor for Parameters {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        self.cpu &= on_cpu(&value);
        self.tracked |= value.is_tracked();
        self.tensors.push(value.into_dispatch());
    }
}

/// The gradients of a layer's parameters, in the order of a visit.
struct Collect<'a> {
    gradients: &'a mut Gradients,
    found: Vec<Option<FlexTensor>>,
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push(param.val().grad_remove(self.gradients).map(primitive));
    }
}

/// Inputs are `x` and the layer's parameters. The layer itself is held without autodiff.
struct Recompute<M, F> {
    layer: M,
    forward: F,
}

impl<M, F, const N: usize> Operation<N> for Recompute<M, F>
where
    M: Module + 'static,
    F: Fn(&M, Tensor<2>) -> Tensor<2> + Send + 'static,
{
    type Saved = FlexTensor;

    fn forward(&self, inputs: [FlexTensor; N], _: [bool; N]) -> (FlexTensor, Option<FlexTensor>) {
        let [x, ..] = &inputs[..] else { unreachable!("the first input is x") };
        (primitive((self.forward)(&self.layer, tensor(x.clone()))), Some(x.clone()))
    }

    fn backward(&self, x: FlexTensor, dy: FlexTensor, needed: [bool; N]) -> [Option<FlexTensor>; N] {
        let layer = self.layer.clone().train();
        let x = tensor::<2>(x).autodiff().set_require_grad(needed[0]);
        let y = (self.forward)(&layer, x.clone());
        let mut gradients = run::<1, 1>(Inject { dy }, [y.into_dispatch()]).backward();
        let dx = x.grad_remove(&mut gradients).map(primitive);
        let mut collect = Collect { gradients: &mut gradients, found: vec![dx] };
        layer.visit(&mut collect);
        let mut found = collect.found.into_iter();
        std::array::from_fn(|i| found.next().flatten().filter(|_| needed[i]))
    }
}

/// Ends the inner graph: its backward pass begins with a given gradient.
struct Inject {
    dy: FlexTensor,
}

impl Operation<1> for Inject {
    type Saved = ();

    fn forward(&self, _: [FlexTensor; 1], _: [bool; 1]) -> (FlexTensor, Option<()>) {
        (Buffer::copy_of(&[0.0]).into_tensor([1]), Some(()))
    }

    fn backward(&self, (): (), _: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        [Some(self.dy.clone())]
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Param;
    use burn::tensor::Device;

    use super::*;
    use crate::tests::{tensor, to_vec};

    #[derive(Module, Debug)]
    struct Layer {
        norm: Param<Tensor<1>>,
        up: Param<Tensor<2>>,
        down: Param<Tensor<2>>,
    }

    fn forward(layer: &Layer, x: Tensor<2>) -> Tensor<2> {
        let h = crate::rms_norm(x.clone(), layer.norm.val(), 1e-5);
        x + crate::linear(crate::swiglu(crate::linear(h, layer.up.val(), None)), layer.down.val(), None)
    }

    /// The loss and all gradients, that of `x` first.
    fn gradients(again: bool, frozen: bool, device: &Device) -> (Vec<f32>, Vec<Option<Vec<f32>>>) {
        let parameter = |shape, seed| Param::from_tensor(tensor(shape, seed, device));
        let layers: Vec<Layer> = (0..3)
            .map(|i| Layer {
                norm: Param::from_tensor(Tensor::ones([6], device)),
                up: parameter([20, 6], 3 * i + 1).set_require_grad(!frozen || i != 1),
                down: parameter([6, 10], 3 * i + 2),
            })
            .collect();
        let x = tensor([9, 6], 77, device).require_grad();
        let mut h = x.clone();
        for layer in &layers {
            h = if again { recompute(layer, h, forward) } else { forward(layer, h) };
        }
        let loss = h.square().sum();
        let mut gradients = loss.backward();
        let mut found = vec![x.grad_remove(&mut gradients).map(to_vec)];
        for layer in &layers {
            found.push(layer.norm.val().grad_remove(&mut gradients).map(to_vec));
            found.push(layer.up.val().grad_remove(&mut gradients).map(to_vec));
            found.push(layer.down.val().grad_remove(&mut gradients).map(to_vec));
        }
        (to_vec(loss), found)
    }

    #[test]
    fn recomputed_gradients_are_the_same_bits() {
        for device in [Device::flex().autodiff(), Device::flex().autodiff().gradient_checkpointing()] {
            for frozen in [false, true] {
                let want = gradients(false, frozen, &device);
                assert_eq!(gradients(true, frozen, &device), want);
                assert_eq!(want.1.iter().flatten().count(), if frozen { 9 } else { 10 });
            }
        }
    }
}
