use burn::tensor::Tensor;

use crate::bridge::{on_cpu, primitive};
use crate::buffer::Buffer;
use crate::gelu::{gelu, gelu_of};
use crate::layer_norm::{layer_norm, layer_norm_of};
use crate::rms_norm::{rms_norm, rms_norm_of};
use crate::swiglu::{swiglu, swiglu_of};

/// What stands before projections and is computed again in their backward pass: it costs next to nothing beside their products, and what it
/// gives is as large as all that the rest of a layer keeps together.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "tensors are handles, and one of these lives for a call")]
pub enum Before {
    /// [`gelu`].
    Gelu,
    /// [`layer_norm`].
    LayerNorm { weight: Tensor<1>, bias: Tensor<1>, eps: f64 },
    /// [`rms_norm`].
    RmsNorm { weight: Tensor<1>, eps: f64 },
    /// [`swiglu`].
    Swiglu,
}

/// Makes the values that were not kept.
pub(crate) type Remake = Box<dyn Fn() -> Buffer + Send>;

impl Before {
    /// Its output of `x`, with what makes it again where that runs on the CPU; other devices keep it.
    pub(crate) fn run(self, x: Tensor<2>) -> (Tensor<2>, Option<Remake>) {
        let remake = self.remake(&x);
        let y = match self {
            Before::Gelu => gelu(x),
            Before::LayerNorm { weight, bias, eps } => layer_norm(x, weight, bias, eps),
            Before::RmsNorm { weight, eps } => rms_norm(x, weight, eps),
            Before::Swiglu => swiglu(x),
        };
        (y, remake)
    }

    /// Holds the same memory as the operation's own backward pass, and needs no more than that.
    fn remake(&self, x: &Tensor<2>) -> Option<Remake> {
        if !on_cpu(x) {
            return None;
        }
        let input = primitive(x.clone().inner());
        match self {
            Before::Gelu => Some(Box::new(move || gelu_of(&input))),
            Before::LayerNorm { weight, bias, eps } if on_cpu(weight) && on_cpu(bias) => {
                let [weight, bias] = [weight, bias].map(|x| primitive(x.clone().inner()));
                let eps = *eps as f32;
                Some(Box::new(move || layer_norm_of([&input, &weight, &bias], eps)))
            }
            Before::RmsNorm { weight, eps } if on_cpu(weight) => {
                let (weight, eps) = (primitive(weight.clone().inner()), *eps as f32);
                Some(Box::new(move || rms_norm_of([&input, &weight], eps)))
            }
            Before::Swiglu => {
                let width = x.dims()[1] / 2;
                Some(Box::new(move || swiglu_of(&input, width)))
            }
            Before::LayerNorm { .. } | Before::RmsNorm { .. } => None,
        }
    }
}
