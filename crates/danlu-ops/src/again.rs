//! How a plain form enters Burn's graph: only its inputs are kept, and the backward pass runs it again.
//!
//! Burn would keep every intermediate of a plain form until the backward pass, matrices of attention and logits of the whole vocabulary
//! among them. Running the form once more costs less than writing and reading those.

use std::fmt;
use std::marker::PhantomData;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::{BalancedCheckpointing, CheckpointStrategy, NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, BackendTensor, DispatchAutodiffContext, DispatchKindConversion, DispatchTensor, DispatchTensorKind, Flex,
    GradientCheckpointingStrategy,
};
use burn::tensor::Tensor;

use crate::bridge::Slot;

/// Runs a plain form so that its backward pass runs it again. The form sees its inputs in the order given, and takes from elsewhere only
/// what is not trained.
pub(crate) fn again<const N: usize, const D: usize>(
    inputs: [DispatchTensor; N],
    form: impl Fn([DispatchTensor; N]) -> Tensor<D> + Send + 'static,
) -> Tensor<D> {
    let context = inputs.iter().map(|x| x.autodiff).fold(DispatchAutodiffContext::Disabled, DispatchAutodiffContext::merge);
    let DispatchAutodiffContext::Enabled(strategy) = context else { return form(inputs) };
    match backend_of(&inputs[0].kind) {
        DispatchTensorKind::Flex(_) => under::<Flex, _, N, D>(strategy, inputs, form),
        #[cfg(accelerated)]
        DispatchTensorKind::Cube(_) => under::<burn::backend::Cube, _, N, D>(strategy, inputs, form),
        #[allow(unreachable_patterns, reason = "other kinds exist only in builds with accelerators")]
        _ => form(inputs),
    }
}

fn backend_of(kind: &DispatchTensorKind) -> &DispatchTensorKind {
    match kind {
        DispatchTensorKind::Autodiff(kind) => kind,
        kind => kind,
    }
}

fn under<B: Backend, F, const N: usize, const D: usize>(
    strategy: GradientCheckpointingStrategy,
    inputs: [DispatchTensor; N],
    form: F,
) -> Tensor<D>
where
    F: Fn([DispatchTensor; N]) -> Tensor<D> + Send + 'static,
    DispatchTensor: DispatchKindConversion<B>
        + DispatchKindConversion<Autodiff<B, NoCheckpointing>>
        + DispatchKindConversion<Autodiff<B, BalancedCheckpointing>>,
{
    match strategy {
        GradientCheckpointingStrategy::Disabled => recorded::<B, NoCheckpointing, F, N, D>(inputs, form),
        GradientCheckpointingStrategy::Balanced => recorded::<B, BalancedCheckpointing, F, N, D>(inputs, form),
    }
}

fn recorded<B: Backend, C: CheckpointStrategy, F, const N: usize, const D: usize>(
    inputs: [DispatchTensor; N],
    form: F,
) -> Tensor<D>
where
    F: Fn([DispatchTensor; N]) -> Tensor<D> + Send + 'static,
    DispatchTensor:
        DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B, C>> + DispatchKindConversion<Autodiff<B, NoCheckpointing>>,
{
    let nodes = inputs.map(node::<B, C>);
    let guards = nodes.each_ref().map(|x| x.node());
    let inputs = nodes.map(|x| plain::<B>(x.into_primitive()));
    let run = |inputs: [DispatchTensor; N]| {
        let y = form(inputs);
        y.try_into_primitive::<B>().unwrap_or_else(|error| unreachable!("a form stays on its inputs' device: {error:?}"))
    };
    let step = <Again<F, N, D> as Backward<B, N>>::prepare::<C>(Again(PhantomData), guards);
    let y = match step.compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let y = run(inputs.clone());
            prepared.finish(Slot::new((form, inputs)), y)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(run(inputs)),
    };
    Tensor::from_dispatch(<DispatchTensor as DispatchKindConversion<Autodiff<B, C>>>::from_backend(BackendTensor::Float(y)))
}

/// An input's place in the graph; one without autodiff is a constant.
fn node<B: Backend, C: CheckpointStrategy>(tensor: DispatchTensor) -> FloatTensor<Autodiff<B>>
where
    DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B, C>>,
{
    if tensor.autodiff == DispatchAutodiffContext::Disabled {
        return match <DispatchTensor as DispatchKindConversion<B>>::try_into_backend(tensor) {
            Ok(tensor) => FloatTensor::<Autodiff<B>>::new(tensor.float()),
            Err(error) => panic!("the inputs of an operation are on different devices: {error}"),
        };
    }
    match <DispatchTensor as DispatchKindConversion<Autodiff<B, C>>>::try_into_backend(tensor) {
        Ok(tensor) => tensor.float(),
        Err(error) => panic!("the inputs of an operation are on different devices: {error}"),
    }
}

fn plain<B: Backend>(tensor: B::FloatTensorPrimitive) -> DispatchTensor
where
    DispatchTensor: DispatchKindConversion<B>,
{
    <DispatchTensor as DispatchKindConversion<B>>::from_backend(BackendTensor::Float(tensor))
}

struct Again<F, const N: usize, const D: usize>(PhantomData<fn() -> F>);

impl<F, const N: usize, const D: usize> fmt::Debug for Again<F, N, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<F>())
    }
}

impl<B: Backend, F, const N: usize, const D: usize> Backward<B, N> for Again<F, N, D>
where
    F: Fn([DispatchTensor; N]) -> Tensor<D> + Send + 'static,
    DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B, NoCheckpointing>>,
{
    type State = Slot<(F, [DispatchTensor; N])>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (form, inputs) = ops.state.take();
        let mut needed = ops.parents.iter().map(|parent| parent.is_some());
        // One dimension stands for any: these are handles, and only the form looks at their shapes.
        let leaves = inputs.map(|x| Tensor::<1>::from_dispatch(x).autodiff().set_require_grad(needed.next().unwrap_or(false)));
        let y = form(leaves.clone().map(Tensor::into_dispatch));
        let mut found = begin::<B, D>(y, dy).backward();
        for (parent, leaf) in ops.parents.into_iter().zip(leaves) {
            let gradient = parent.and_then(|parent| Some((parent, leaf.grad_remove(&mut found)?)));
            if let Some((parent, gradient)) = gradient {
                let gradient = gradient.try_into_primitive::<B>().expect("a gradient is on its tensor's device");
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// The end of the inner graph: its backward pass begins with a given gradient.
fn begin<B: Backend, const D: usize>(y: Tensor<D>, dy: B::FloatTensorPrimitive) -> Tensor<1>
where
    DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B, NoCheckpointing>>,
{
    let zero = Tensor::<1>::zeros([1], &y.device().inner());
    let zero = zero.try_into_primitive::<B>().unwrap_or_else(|error| unreachable!("zeros are made on the device: {error:?}"));
    let y = node::<B, NoCheckpointing>(y.into_dispatch());
    let step = <Begin as Backward<B, 1>>::prepare::<NoCheckpointing>(Begin, [y.node()]);
    let end = match step.compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(Slot::new(dy), zero),
        OpsKind::UnTracked(prepared) => prepared.finish(zero),
    };
    let end = BackendTensor::Float(end);
    Tensor::from_dispatch(<DispatchTensor as DispatchKindConversion<Autodiff<B, NoCheckpointing>>>::from_backend(end))
}

#[derive(Debug)]
struct Begin;

impl<B: Backend> Backward<B, 1> for Begin {
    type State = Slot<B::FloatTensorPrimitive>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        if let [Some(parent)] = ops.parents {
            grads.register::<B>(parent.id, ops.state.take());
        }
    }
}
