//! Optimizers over a whole model: which rule moves which parameter, and their state under the parameters' names.

use anyhow::{Context, Result, ensure};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::container::TensorContainer;
use burn::tensor::{Device, Tensor, TensorData};
use danlu_models::names_and_shapes;
use danlu_ops::optim::{AdamW, Muon, adamw_step, muon_step};

use crate::checkpoint::NamedTensor;
use crate::gradients::Gradients;
use crate::objectives::classify::is_new;
use crate::recipe::{OptimizerKind, OptimizerSpec};

/// Newton–Schulz iterations of Muon.
const ITERATIONS: usize = 5;

/// What a parameter is, which decides how it is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A matrix inside a layer.
    Hidden,
    Embedding,
    Head,
    /// A norm's scale or a bias.
    Vector,
}

impl Role {
    fn of(name: &str, shape: &[usize]) -> Role {
        let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
        match shape {
            [_, _] if ends(&["embed_tokens.weight", "wte.weight", "wpe.weight", "_embeddings.weight", "prompt_embeddings"]) => {
                Role::Embedding
            }
            [_, _] if ends(&["lm_head.weight"]) || is_new(name) => Role::Head,
            [_, _] => Role::Hidden,
            _ => Role::Vector,
        }
    }
}

/// AdamW or Muon with AdamW, with its state. State tensors are known by the parameter's place in the model (the order of
/// [`names_and_shapes`]) and by which of the parameter's states they are.
pub struct Optimizer {
    spec: OptimizerSpec,
    roles: Vec<(String, Role)>,
    /// What each parameter's rate is multiplied by.
    factors: Vec<f64>,
    state: TensorContainer<(usize, usize)>,
}

const ADAMW_STATES: [&str; 2] = ["exp_avg", "exp_avg_sq"];
const MUON_STATES: [&str; 1] = ["momentum_buffer"];

impl Optimizer {
    /// For a model of this shape; all state starts at zero. The rates of a resolved recipe are all given; one that is not counts as zero.
    pub fn new(spec: &OptimizerSpec, model: &impl Module) -> Self {
        let roles: Vec<(String, Role)> = names_and_shapes(model)
            .into_iter()
            .map(|(name, shape)| (Role::of(&name, &shape), name))
            .map(|(role, name)| (name, role))
            .collect();
        Optimizer { spec: spec.clone(), factors: vec![1.0; roles.len()], roles, state: TensorContainer::new() }
    }

    /// With each parameter's rate multiplied by its factor, in the order of [`names_and_shapes`].
    #[must_use]
    pub fn with_rate_factors(self, factors: Vec<f64>) -> Self {
        Optimizer { factors, ..self }
    }

    /// Moves every parameter that has a gradient. `share` is the schedule's part of the peak rates, `scale` multiplies the gradients
    /// (clipping), `step` counts from 1. Gradients are used up.
    pub fn step<M: Module>(&mut self, model: M, gradients: &mut Gradients, step: u64, share: f64, scale: f64) -> M {
        model.map(&mut Stepper { optimizer: self, gradients, index: 0, step, share, scale })
    }

    /// The learning rates that `share` of the peak gives, by group, for logs.
    pub fn rates(&self, share: f64) -> Vec<(&'static str, f64)> {
        let all = [("rate", self.spec.rate), ("muon_rate", self.spec.muon_rate), ("embedding_rate", self.spec.embedding_rate)];
        all.into_iter().filter_map(|(name, peak)| Some((name, peak? * share))).collect()
    }

    fn uses_muon(&self, role: Role) -> bool {
        self.spec.kind == OptimizerKind::Muon && role == Role::Hidden
    }

    fn states(&self, role: Role) -> &'static [&'static str] {
        if self.uses_muon(role) { &MUON_STATES } else { &ADAMW_STATES }
    }

    fn adamw(&self, role: Role, share: f64) -> AdamW {
        let spec = &self.spec;
        let peak = if role == Role::Embedding { spec.embedding_rate } else { spec.rate };
        let decays = matches!(role, Role::Hidden | Role::Head);
        AdamW {
            rate: peak.unwrap_or(0.0) * share,
            beta1: spec.beta1,
            beta2: spec.beta2,
            epsilon: spec.epsilon,
            weight_decay: if decays { spec.weight_decay } else { 0.0 },
        }
    }

    fn muon(&self, share: f64) -> Muon {
        let spec = &self.spec;
        Muon {
            rate: spec.muon_rate.unwrap_or(0.0) * share,
            momentum: spec.momentum,
            weight_decay: spec.weight_decay,
            iterations: ITERATIONS,
        }
    }

    /// The state as tensors named after their parameter: `model.norm.weight.exp_avg`. Parameters that never moved have none.
    ///
    /// # Errors
    /// When values cannot be read from the device.
    pub fn to_named(&self, model: &impl Module) -> Result<Vec<NamedTensor>> {
        let mut reader = Reader { optimizer: self, index: 0, tensors: Ok(vec![]) };
        model.visit(&mut reader);
        reader.tensors
    }

    /// Takes back what [`Optimizer::to_named`] gave.
    ///
    /// # Errors
    /// When a tensor belongs to no parameter of the model, or has another shape.
    pub fn load_named(&mut self, model: &impl Module, tensors: Vec<NamedTensor>, device: &Device) -> Result<()> {
        let mut writer = Writer { optimizer: self, index: 0, device, tensors, result: Ok(()) };
        model.visit(&mut writer);
        writer.result?;
        match writer.tensors.first() {
            None => Ok(()),
            Some(left) => anyhow::bail!("{} belongs to no parameter of this model", left.name),
        }
    }
}

struct Stepper<'a> {
    optimizer: &'a mut Optimizer,
    gradients: &'a mut Gradients,
    index: usize,
    step: u64,
    share: f64,
    scale: f64,
}

impl ModuleMapper for Stepper<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let index = self.index;
        self.index += 1;
        let Some(gradient) = self.gradients.take::<D>(index) else { return param };
        let optimizer = &mut *self.optimizer;
        let role = optimizer.roles[index].1;
        let share = self.share * optimizer.factors[index];
        let (id, tensor, mapper) = param.consume();
        let (autodiff, tracked) = (tensor.is_autodiff(), tensor.is_require_grad());
        let weight = tensor.inner();
        let (shape, device) = (weight.dims(), weight.device());
        let state = &mut optimizer.state;
        let mut taken =
            |which: usize| state.remove::<Tensor<D>>(&(index, which)).unwrap_or_else(|| Tensor::zeros(shape, &device));
        let weight = if optimizer.spec.kind == OptimizerKind::Muon && role == Role::Hidden {
            let momentum = taken(0);
            let options = optimizer.muon(share);
            // The step is for matrices only, which the role says this is; reshaping to the same shape changes just the type.
            let [rows, columns] = [shape[0], shape[D - 1]];
            let two = |t: Tensor<D>| t.reshape([rows, columns]);
            let (weight, momentum) = muon_step(two(weight), two(gradient), two(momentum), self.scale, &options);
            optimizer.state.register((index, 0), momentum.reshape(shape));
            weight.reshape(shape)
        } else {
            let moments = [taken(0), taken(1)];
            let options = optimizer.adamw(role, share);
            let (weight, [first, second]) = adamw_step(weight, gradient, moments, self.step, self.scale, &options);
            optimizer.state.register((index, 0), first);
            optimizer.state.register((index, 1), second);
            weight
        };
        let weight = if autodiff { Tensor::from_inner(weight).set_require_grad(tracked) } else { weight };
        Param::from_mapped_value(id, weight, mapper)
    }
}

struct Reader<'a> {
    optimizer: &'a Optimizer,
    index: usize,
    tensors: Result<Vec<NamedTensor>>,
}

impl ModuleVisitor for Reader<'_> {
    fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<D>>) {
        let (name, role) = &self.optimizer.roles[self.index];
        for (which, suffix) in self.optimizer.states(*role).iter().enumerate() {
            let Some(tensor) = self.optimizer.state.get::<Tensor<D>>(&(self.index, which)) else { continue };
            let Ok(tensors) = &mut self.tensors else { return };
            let name = format!("{name}.{suffix}");
            let shape = tensor.dims().to_vec();
            match tensor.into_data().try_into_vec::<f32>() {
                Ok(data) => tensors.push(NamedTensor { name, shape, data }),
                Err(error) => self.tensors = Err(anyhow::anyhow!("{name} cannot be read from the device: {error:?}")),
            }
        }
        self.index += 1;
    }
}

struct Writer<'a> {
    optimizer: &'a mut Optimizer,
    index: usize,
    device: &'a Device,
    tensors: Vec<NamedTensor>,
    result: Result<()>,
}

impl Writer<'_> {
    fn take<const D: usize>(&mut self, shape: &[usize]) -> Result<()> {
        let (name, role) = self.optimizer.roles[self.index].clone();
        for (which, suffix) in self.optimizer.states(role).iter().enumerate() {
            let wanted = format!("{name}.{suffix}");
            let Some(place) = self.tensors.iter().position(|t| t.name == wanted) else { continue };
            let tensor = self.tensors.swap_remove(place);
            ensure!(tensor.shape == shape, "{wanted} has shape {:?}, the parameter {shape:?}", tensor.shape);
            let data = TensorData::new(tensor.data, tensor.shape);
            self.optimizer.state.register((self.index, which), Tensor::<D>::from_data(data, self.device));
        }
        Ok(())
    }
}

impl ModuleVisitor for Writer<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.result.is_ok() {
            self.result = self.take::<D>(&param.lazy_shape().to_vec()).context("the optimizer's state does not fit the model");
        }
        self.index += 1;
    }
}
