//! How an operation of ours enters Burn: one generic `Backward` serves them all.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::{BalancedCheckpointing, CheckpointStrategy, NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, BackendTensor, DispatchAutodiffContext, DispatchKindConversion, DispatchTensor, DispatchTensorKind, Flex,
    GradientCheckpointingStrategy,
};
use burn::tensor::{DType, Int, Tensor};

use crate::buffer::Buffer;

/// An operation with its gradient, on contiguous `f32` tensors of the CPU.
pub(crate) trait Operation<const N: usize>: Send + 'static {
    /// What the backward pass needs.
    type Saved: Send + 'static;

    /// `needed[i]` says whether input `i` wants a gradient. When none does, nothing is saved and `None` may be returned.
    fn forward(&self, inputs: [FlexTensor; N], needed: [bool; N]) -> (FlexTensor, Option<Self::Saved>);

    /// Gradients of the inputs that want one. `dy` may be written when it is [`owned`].
    fn backward(&self, saved: Self::Saved, dy: FlexTensor, needed: [bool; N]) -> [Option<FlexTensor>; N];

    /// Of which inputs the backward pass wants the gradients that they have from elsewhere already, to add its own to them in place. Burn
    /// would add two tensors as large as the inputs. Only inputs that are parameters: those outlive the graph, which therefore may hold them.
    fn adds(&self) -> [bool; N] {
        [false; N]
    }

    /// [`Operation::backward`] of an operation that [`Operation::adds`]: what is in `found` is part of what it returns.
    fn add_backward(
        &self,
        found: [Option<FlexTensor>; N],
        saved: Self::Saved,
        dy: FlexTensor,
        needed: [bool; N],
    ) -> [Option<FlexTensor>; N] {
        debug_assert!(found.iter().all(Option::is_none), "an operation that adds says how");
        self.backward(saved, dy, needed)
    }
}

/// Whether a tensor is one the CPU forms take.
pub(crate) fn on_cpu<const D: usize>(tensor: &Tensor<D>) -> bool {
    #[cfg(test)]
    if crate::tests::only_plain_forms() {
        return false;
    }
    tensor.dtype() == DType::F32 && is_flex(&tensor.clone().into_dispatch())
}

#[allow(unreachable_patterns, reason = "other kinds exist only in builds with accelerators")]
fn is_flex(tensor: &DispatchTensor) -> bool {
    match &tensor.kind {
        DispatchTensorKind::Flex(_) => true,
        DispatchTensorKind::Autodiff(kind) => matches!(**kind, DispatchTensorKind::Flex(_)),
        _ => false,
    }
}

/// Runs an operation on tensors that are all [`on_cpu`], with autodiff as the inputs have it.
pub(crate) fn run<const N: usize, const D: usize>(operation: impl Operation<N>, inputs: [DispatchTensor; N]) -> Tensor<D> {
    let context = inputs.iter().map(|x| x.autodiff).fold(DispatchAutodiffContext::Disabled, DispatchAutodiffContext::merge);
    Tensor::from_dispatch(match context {
        DispatchAutodiffContext::Disabled => {
            let (y, _) = operation.forward(inputs.map(|x| contiguous(plain(x))), [false; N]);
            <DispatchTensor as DispatchKindConversion<Flex>>::from_backend(BackendTensor::Float(y))
        }
        DispatchAutodiffContext::Enabled(GradientCheckpointingStrategy::Disabled) => {
            let y = tracked::<NoCheckpointing, _, N>(operation, inputs.map(lift));
            <DispatchTensor as DispatchKindConversion<Autodiff<Flex>>>::from_backend(BackendTensor::Float(y))
        }
        DispatchAutodiffContext::Enabled(GradientCheckpointingStrategy::Balanced) => {
            let y = tracked::<BalancedCheckpointing, _, N>(operation, inputs.map(lift));
            <DispatchTensor as DispatchKindConversion<Autodiff<Flex, BalancedCheckpointing>>>::from_backend(BackendTensor::Float(
                y,
            ))
        }
    })
}

pub(crate) type Node = FloatTensor<Autodiff<Flex>>;

fn tracked<C: CheckpointStrategy, O: Operation<N>, const N: usize>(operation: O, inputs: [Node; N]) -> Node {
    let needed = inputs.each_ref().map(|x| x.is_tracked());
    let guards = inputs.each_ref().map(|x| x.node());
    let adds = operation.adds();
    let parameters = std::array::from_fn(|i| adds[i].then(|| inputs[i].clone()));
    let inputs = inputs.map(|x| contiguous(x.into_primitive()));
    match Step::<O, N>(PhantomData).prepare::<C>(guards).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let (y, saved) = operation.forward(inputs, needed);
            let saved = saved.expect("an operation saves its state when a gradient is needed");
            prepared.finish(Slot::new(Recorded { operation, saved, parameters }), y)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(operation.forward(inputs, needed).0),
    }
}

/// What the graph holds of an operation.
struct Recorded<O: Operation<N>, const N: usize> {
    operation: O,
    saved: O::Saved,
    /// The inputs to whose gradients the operation adds, by which those are found.
    parameters: [Option<Node>; N],
}

/// Burn asks that a state be `Clone` and `Debug` though it only moves it; a shared slot is both for any type.
pub(crate) struct Slot<T>(Arc<Mutex<Option<T>>>);

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot")
    }
}

impl<T> Slot<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new(Mutex::new(Some(value))))
    }

    pub(crate) fn take(&self) -> T {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().expect("Burn runs each backward step once")
    }
}

struct Step<O, const N: usize>(PhantomData<fn() -> O>);

impl<O, const N: usize> fmt::Debug for Step<O, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<O>())
    }
}

impl<O: Operation<N>, const N: usize> Backward<Flex, N> for Step<O, N> {
    type State = Slot<Recorded<O, N>>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let needed = ops.parents.each_ref().map(|parent| parent.is_some());
        let dy = contiguous(grads.consume::<Flex>(&ops.node));
        let Recorded { operation, saved, parameters } = ops.state.take();
        let found = parameters.map(|parameter| grads.remove::<Flex>(&parameter?));
        let gradients = operation.add_backward(found, saved, dy, needed);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

#[allow(unreachable_patterns, reason = "other kinds exist only in builds with accelerators")]
fn plain(tensor: DispatchTensor) -> FlexTensor {
    match tensor.kind {
        DispatchTensorKind::Flex(x) => x.float(),
        _ => unreachable!("the CPU form was chosen for a tensor of another device"),
    }
}

#[allow(unreachable_patterns, reason = "other kinds exist only in builds with accelerators")]
pub(crate) fn lift(tensor: DispatchTensor) -> Node {
    match tensor.kind {
        DispatchTensorKind::Flex(x) => Node::new(x.float()),
        DispatchTensorKind::Autodiff(kind) => match *kind {
            DispatchTensorKind::Flex(x) => x.autodiff(),
            _ => unreachable!("the CPU form was chosen for a tensor of another device"),
        },
        _ => unreachable!("the CPU form was chosen for a tensor of another device"),
    }
}

fn contiguous(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() { x } else { x.to_contiguous() }
}

/// The values of a contiguous tensor.
pub(crate) fn values(x: &FlexTensor) -> &[f32] {
    x.as_slice().expect("operations get contiguous f32 tensors")
}

/// The tensor itself when nothing else holds its memory, else a copy, so that [`values_mut`] writes in place.
pub(crate) fn owned(x: FlexTensor) -> FlexTensor {
    let whole = x.layout().start_offset() == 0 && x.layout().num_elements() * size_of::<f32>() == x.bytes().len();
    if x.is_unique() && whole && x.is_contiguous() {
        return x;
    }
    let x = contiguous(x);
    let layout = burn::backend::flex::Layout::contiguous(x.layout().shape().clone());
    let copy = Buffer::copy_of(values(&x));
    let len = copy.len();
    copy.into_tensor([len]).with_layout(layout)
}

/// The values of an [`owned`] tensor, to write.
pub(crate) fn values_mut(x: &mut FlexTensor) -> &mut [f32] {
    x.storage_mut()
}

/// The primitive of a tensor that is [`on_cpu`] and has no autodiff.
pub(crate) fn primitive<const D: usize>(x: Tensor<D>) -> FlexTensor {
    contiguous(plain(x.into_dispatch()))
}

/// The tensor of a primitive.
pub(crate) fn tensor<const D: usize>(x: FlexTensor) -> Tensor<D> {
    Tensor::from_primitive::<Flex>(x)
}

/// Whether bytes are on the CPU, where [`byte_primitive`] takes them.
pub(crate) fn bytes_on_cpu(bytes: &Tensor<1, Int>) -> bool {
    bytes.dtype() == DType::U8 && is_flex(&bytes.clone().into_dispatch())
}

/// The primitive of a tensor of bytes that are [`bytes_on_cpu`], whole and contiguous.
#[allow(unreachable_patterns, reason = "other kinds exist only in builds with accelerators")]
pub(crate) fn byte_primitive(bytes: Tensor<1, Int>) -> FlexTensor {
    let bytes = match bytes.into_dispatch().kind {
        DispatchTensorKind::Flex(x) => x.int(),
        _ => unreachable!("the CPU form was chosen for a tensor of another device"),
    };
    let whole = bytes.layout().start_offset() == 0 && bytes.layout().num_elements() == bytes.bytes().len();
    if whole && bytes.is_contiguous() { bytes } else { FlexTensor::from_data(bytes.into_data()) }
}

/// The values of a [`byte_primitive`], to write: a copy of their own when something else holds them.
pub(crate) fn byte_values_mut(bytes: &mut FlexTensor) -> &mut [u8] {
    bytes.storage_mut()
}

/// The tensor of a primitive of bytes.
pub(crate) fn bytes(x: FlexTensor) -> Tensor<1, Int> {
    Tensor::from_primitive::<Flex>(x)
}
