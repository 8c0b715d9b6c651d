//! Gradients that parameters have already, brought into the backward pass of another loss.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::{BalancedCheckpointing, CheckpointStrategy, NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{
    Autodiff, BackendTensor, DispatchAutodiffContext, DispatchKindConversion, DispatchTensor, Flex, GradientCheckpointingStrategy,
};
use burn::tensor::Tensor;

use crate::bridge::{Node, Slot, lift, on_cpu, primitive};

/// The loss of a piece of an update, with the gradients that the pieces before it left. Its backward pass begins with them, so that
/// operations add to them in place ([`crate::projections`], [`crate::linear_log_probs`], [`crate::embedding`]) instead of leaving a
/// second gradient of every parameter, which is as large as the model, to be added afterwards.
pub struct Carried {
    loss: Tensor<1>,
    /// Each with the parameter whose gradient it is.
    gradients: Vec<(NodeId, FlexTensor)>,
}

impl Carried {
    pub fn new(loss: Tensor<1>) -> Self {
        Self { loss, gradients: vec![] }
    }

    /// Takes the gradient of `parameter`. Gives it back where that is not possible, on devices other than the CPU: the caller adds it to
    /// what the backward pass finds.
    pub fn take<const D: usize>(&mut self, parameter: &Tensor<D>, gradient: Tensor<D>) -> Option<Tensor<D>> {
        if !on_cpu(&self.loss) || !on_cpu(parameter) || !on_cpu(&gradient) {
            return Some(gradient);
        }
        self.gradients.push((lift(parameter.clone().into_dispatch()).id(), primitive(gradient)));
        None
    }

    /// The backward pass: gradients of the loss, added to those that were taken.
    pub fn backward(self) -> burn::tensor::Gradients {
        let Self { loss, gradients } = self;
        if gradients.is_empty() {
            return loss.backward();
        }
        let loss = loss.into_dispatch();
        let loss = match loss.autodiff {
            DispatchAutodiffContext::Disabled => loss,
            DispatchAutodiffContext::Enabled(GradientCheckpointingStrategy::Disabled) => {
                let loss = begun::<NoCheckpointing>(lift(loss), gradients);
                <DispatchTensor as DispatchKindConversion<Autodiff<Flex>>>::from_backend(BackendTensor::Float(loss))
            }
            DispatchAutodiffContext::Enabled(GradientCheckpointingStrategy::Balanced) => {
                let loss = begun::<BalancedCheckpointing>(lift(loss), gradients);
                <DispatchTensor as DispatchKindConversion<Autodiff<Flex, BalancedCheckpointing>>>::from_backend(
                    BackendTensor::Float(loss),
                )
            }
        };
        Tensor::<1>::from_dispatch(loss).backward()
    }
}

fn begun<C: CheckpointStrategy>(loss: Node, gradients: Vec<(NodeId, FlexTensor)>) -> Node {
    match Begin.prepare::<C>([loss.node()]).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(Slot::new(gradients), loss.into_primitive()),
        OpsKind::UnTracked(prepared) => prepared.finish(loss.into_primitive()),
    }
}

/// The identity, last of all, whose backward pass is therefore the first.
#[derive(Debug)]
struct Begin;

impl Backward<Flex, 1> for Begin {
    type State = Slot<Vec<(NodeId, FlexTensor)>>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node);
        for (parameter, gradient) in ops.state.take() {
            grads.register::<Flex>(parameter, gradient);
        }
        if let [Some(parent)] = ops.parents {
            grads.register::<Flex>(parent.id, dy);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::tests::{numbers, tensor, to_vec};
    use crate::{IGNORE, Ids, embedding, linear_log_probs, linear_log_probs_expecting, project, rms_norm};

    const TOKENS: usize = 40;

    /// A small model with a tied table: its parameters, and the loss of a piece.
    struct Model {
        table: Tensor<2>,
        norm: Tensor<1>,
        projections: [Tensor<2>; 3],
    }

    impl Model {
        fn new() -> Self {
            let device = Device::flex().autodiff();
            let matrix = |shape, seed| tensor(shape, seed, &device).require_grad();
            let norm = Tensor::<1>::from_floats(numbers(16, 1).as_slice(), &device).require_grad();
            Self { table: matrix([50, 16], 2), norm, projections: [matrix([16, 16], 3), matrix([8, 16], 4), matrix([8, 16], 5)] }
        }

        fn loss(&self, piece: usize, expecting: bool) -> Tensor<1> {
            let ids: Ids = (0..TOKENS).map(|i| ((i * 7 + piece * 13) % 50) as u32).collect();
            let targets: Ids = (0..TOKENS).map(|i| if i % 5 == 0 { IGNORE } else { ((i * 11 + piece) % 50) as u32 }).collect();
            let x = rms_norm(embedding(self.table.clone(), &ids), self.norm.clone(), 1e-5);
            let y = project(x.clone(), &self.projections, None);
            let x = x * y.narrow(1, 0, 16);
            let weights: Vec<f32> = (0..TOKENS).map(|i| (i as f32 - 20.0) / 16.0).collect();
            let log_probs = match expecting {
                true => linear_log_probs_expecting(x, self.table.clone(), &targets, weights.clone()),
                false => linear_log_probs(x, self.table.clone(), &targets),
            };
            let weights = Tensor::<1>::from_floats(weights.as_slice(), &log_probs.device());
            (log_probs * weights).sum() * 0.7
        }

        fn take(&self, found: &mut burn::tensor::Gradients) -> Vec<Tensor<2>> {
            let mut all = vec![self.table.grad_remove(found).unwrap(), self.norm.grad_remove(found).unwrap().unsqueeze()];
            all.extend(self.projections.iter().map(|weight| weight.grad_remove(found).unwrap()));
            all
        }

        fn carried(&self, loss: Tensor<1>, gradients: Vec<Tensor<2>>) -> Vec<Tensor<2>> {
            let mut carried = Carried::new(loss);
            let mut gradients = gradients.into_iter();
            if let (Some(table), Some(norm)) = (gradients.next(), gradients.next()) {
                assert!(carried.take(&self.table, table).is_none() && carried.take(&self.norm, norm.reshape([16])).is_none());
            }
            for (weight, gradient) in self.projections.iter().zip(gradients) {
                assert!(carried.take(weight, gradient).is_none());
            }
            self.take(&mut carried.backward())
        }
    }

    /// Three pieces one after the other give the sum of the three, whichever way the log-probabilities take.
    #[test]
    fn gradients_are_added_to_those_of_the_pieces_before() {
        let model = Model::new();
        let apart: Vec<Vec<Tensor<2>>> = (0..3).map(|piece| model.take(&mut model.loss(piece, false).backward())).collect();
        for expecting in [false, true] {
            let sum = (0..3).fold(vec![], |sum, piece| model.carried(model.loss(piece, expecting), sum));
            for (i, sum) in sum.into_iter().enumerate() {
                let want = apart.iter().map(|piece| piece[i].clone()).reduce(|a, b| a + b).unwrap();
                for (got, want) in to_vec(sum).into_iter().zip(to_vec(want)) {
                    assert!(
                        (got - want).abs() <= 1e-5 * want.abs().max(1.0),
                        "parameter {i}, {expecting}: {got} instead of {want}"
                    );
                }
            }
        }
    }

    /// The gradients of projections of one input lie in one matrix and stay there.
    #[test]
    fn a_gradient_that_is_added_to_stays_where_it_is() {
        let model = Model::new();
        let place = |gradients: &[Tensor<2>]| primitive(gradients[2].clone()).bytes().as_ptr();
        let first = model.carried(model.loss(0, false), vec![]);
        let before = place(&first);
        let second = model.carried(model.loss(1, false), first);
        assert_eq!(place(&second), before);
    }
}
