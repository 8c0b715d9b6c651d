//! Optimizers over a whole model: which rule moves which parameter, and their state under the parameters' names.

use anyhow::{Context, Result, ensure};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::container::TensorContainer;
use burn::tensor::{Device, Tensor, TensorData};
use danlu_models::names_and_shapes;
use danlu_ops::optim::{AdamW, INT8_BLOCK, Int8Moment, Muon, adamw_int8_step, adamw_step, muon_step};

use crate::checkpoint::{NamedTensor, Pending, Values};
use crate::gradients::Gradients;
use crate::objectives::classify::is_new;
use crate::recipe::{MomentsKind, OptimizerKind, OptimizerSpec};

/// Newton–Schulz iterations of Muon.
const ITERATIONS: usize = 5;
/// Parameters with fewer values keep 32-bit moments: they are cheap, and all else depends on norms and biases (Dettmers et al. 2021, 2.1).
const INT8_LEAST: usize = 4096;

/// What a parameter is, which decides how it is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A matrix inside a layer.
    Hidden,
    Embedding,
    Head,
    /// The windows of a convolution.
    Filters,
    /// A norm's scale or a bias.
    Vector,
}

impl Role {
    fn of(name: &str, shape: &[usize]) -> Role {
        let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
        match shape {
            [_, _]
                if ends(&[
                    "embed_tokens.weight",
                    "shared.weight",
                    "wte.weight",
                    "wpe.weight",
                    "_embeddings.weight",
                    "prompt_embeddings",
                ]) =>
            {
                Role::Embedding
            }
            [_, _] if ends(&["lm_head.weight"]) || is_new(name) => Role::Head,
            [_, _] => Role::Hidden,
            [_, _, _, _] => Role::Filters,
            _ => Role::Vector,
        }
    }
}

/// AdamW, Muon with AdamW, or plain gradient descent, with its state. State tensors are known by the parameter's place in the model (the order of
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
/// After the name of a state in eight bits: its scales.
const SCALES: &str = "scales";

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
        if self.state.is_empty() && self.spec.kind != OptimizerKind::Sgd {
            // The state is made here and stays: were it made beside the buffers of the forward and backward pass, which are free now but kept,
            // this would be the moment of a run with the most memory.
            danlu_ops::release_buffers();
        }
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
        match self.spec.kind {
            OptimizerKind::Sgd => &[],
            _ if self.uses_muon(role) => &MUON_STATES,
            _ => &ADAMW_STATES,
        }
    }

    /// Whether a parameter of this shape has its state in eight bits.
    fn is_int8(&self, role: Role, shape: &[usize]) -> bool {
        let len: usize = shape.iter().product();
        let moments = self.states(role).len() == ADAMW_STATES.len();
        self.spec.moments == MomentsKind::Int8 && moments && len >= INT8_LEAST
    }

    fn adamw(&self, role: Role, share: f64) -> AdamW {
        let spec = &self.spec;
        let peak = if role == Role::Embedding { spec.embedding_rate } else { spec.rate };
        let decays = matches!(role, Role::Hidden | Role::Head | Role::Filters);
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

    /// The state as tensors named after their parameter: `model.norm.weight.exp_avg`, with `….scales` beside the codes of a state in eight
    /// bits. Parameters that never moved have none.
    pub fn pending(&self, model: &impl Module) -> Vec<Pending<'static>> {
        let mut reader = Reader { optimizer: self, index: 0, tensors: vec![] };
        model.visit(&mut reader);
        reader.tensors
    }

    /// Takes back what [`Optimizer::pending`] gave.
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
        let (int8, muon) = (optimizer.is_int8(role, &shape), optimizer.uses_muon(role));
        let state = &mut optimizer.state;
        let mut taken =
            |which: usize| state.remove::<Tensor<D>>(&(index, which)).unwrap_or_else(|| Tensor::zeros(shape, &device));
        let weight = if optimizer.spec.kind == OptimizerKind::Sgd {
            let AdamW { rate, weight_decay, .. } = optimizer.adamw(role, share);
            weight * (1.0 - rate * weight_decay) - gradient * (rate * self.scale)
        } else if int8 {
            let fresh = || Int8Moment::zeros(shape.iter().product(), &device);
            let kept = [0, 1].map(|which| state.remove::<Int8Moment>(&(index, which)));
            let moments = if let [Some(first), Some(second)] = kept { [first, second] } else { fresh() };
            let options = optimizer.adamw(role, share);
            let (weight, [first, second]) = adamw_int8_step(weight, gradient, moments, self.step, self.scale, &options);
            optimizer.state.register((index, 0), first);
            optimizer.state.register((index, 1), second);
            weight
        } else if muon {
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
    tensors: Vec<Pending<'static>>,
}

impl ModuleVisitor for Reader<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (optimizer, shape) = (self.optimizer, param.lazy_shape().to_vec());
        let (parameter, role) = &optimizer.roles[self.index];
        for (which, suffix) in optimizer.states(*role).iter().enumerate() {
            let (name, place) = (format!("{parameter}.{suffix}"), (self.index, which));
            if optimizer.is_int8(*role, &shape) {
                let Some(Int8Moment { codes, scales }) = optimizer.state.get::<Int8Moment>(&place) else { continue };
                let beside = floats(format!("{name}.{SCALES}"), scales.dims().to_vec(), scales);
                let read = Box::new(move || Ok(Values::U8(codes.clone().try_into_data()?.try_into_vec()?)));
                self.tensors.extend([Pending { name, shape: shape.clone(), bytes: true, read }, beside]);
            } else if let Some(tensor) = optimizer.state.get::<Tensor<D>>(&place) {
                self.tensors.push(floats(name, shape.clone(), tensor));
            }
        }
        self.index += 1;
    }
}

fn floats<const D: usize>(name: String, shape: Vec<usize>, tensor: Tensor<D>) -> Pending<'static> {
    let read = Box::new(move || Ok(Values::F32(tensor.clone().try_into_data()?.try_into_vec()?)));
    Pending { name, shape, bytes: false, read }
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
        let int8 = self.optimizer.is_int8(role, shape);
        for (which, suffix) in self.optimizer.states(role).iter().enumerate() {
            let wanted = format!("{name}.{suffix}");
            let Some(tensor) = self.find(&wanted) else { continue };
            ensure!(tensor.shape == shape, "{wanted} has shape {:?}, the parameter {shape:?}", tensor.shape);
            let place = (self.index, which);
            if int8 {
                let codes = tensor.into_bytes()?;
                let blocks = codes.len().div_ceil(INT8_BLOCK);
                let scales = self.find(&format!("{wanted}.{SCALES}")).with_context(|| format!("{wanted} has no scales"))?;
                ensure!(scales.shape == [blocks], "the scales of {wanted} have shape {:?}, not [{blocks}]", scales.shape);
                self.optimizer.state.register(place, Int8Moment::new(codes, scales.into_floats()?, self.device));
            } else {
                let data = TensorData::new(tensor.into_floats()?, shape.to_vec());
                self.optimizer.state.register(place, Tensor::<D>::from_data(data, self.device));
            }
        }
        Ok(())
    }

    fn find(&mut self, wanted: &str) -> Option<NamedTensor> {
        let place = self.tensors.iter().position(|t| t.name == wanted)?;
        Some(self.tensors.swap_remove(place))
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

#[cfg(test)]
mod tests {
    use danlu_models::{Batch, Decoder, DecoderConfig, LlamaConfig};

    use super::*;
    use crate::checkpoint::{read_tensors, write_tensors};

    fn decoder(device: &Device) -> Decoder {
        Decoder::new(&DecoderConfig::Llama(LlamaConfig::new(100, 64, 2, 16, 16)), 1, device).unwrap()
    }

    fn named(optimizer: &Optimizer, model: &Decoder) -> Vec<NamedTensor> {
        optimizer.pending(model).iter().map(|tensor| tensor.now().unwrap()).collect()
    }

    fn stepped(mut model: Decoder, optimizer: &mut Optimizer, steps: std::ops::Range<u64>) -> Decoder {
        for step in steps {
            let token = |i: u64| ((i * i + 7 * step) % 97) as u32;
            let batch = Batch::new((0..32).map(token).collect(), (1..33).map(token).collect(), 2, 16, vec![]);
            let mut gradients = Gradients::new();
            gradients.add(&model, model.loss(&batch)).unwrap();
            model = optimizer.step(model, &mut gradients, step, 1.0, 1.0);
        }
        model
    }

    /// A run that goes on from a file ends with the bytes of one that never stopped; both kinds of state are in it.
    #[test]
    fn moments_in_eight_bits_are_kept_exactly() {
        let device = Device::flex().autodiff();
        for kind in [OptimizerKind::Adamw, OptimizerKind::Muon] {
            let rate = Some(1e-2);
            let moments = MomentsKind::Int8;
            let spec = OptimizerSpec { kind, rate, embedding_rate: rate, muon_rate: rate, moments, ..OptimizerSpec::default() };
            let fresh = || Optimizer::new(&spec, &decoder(&device));
            let (mut straight, mut stopped) = (fresh(), fresh());
            let model = stepped(decoder(&device), &mut straight, 1..7);
            let half = stepped(decoder(&device), &mut stopped, 1..4);

            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("optimizer.safetensors");
            let tensors = stopped.pending(&half);
            let bytes = tensors.iter().filter(|tensor| tensor.bytes).count();
            let scales = tensors.iter().filter(|t| t.name.ends_with(".exp_avg.scales")).count();
            assert!(bytes > 0 && bytes == 2 * scales && bytes + scales < tensors.len(), "{bytes} of {}", tensors.len());
            write_tensors(&path, &tensors).unwrap();
            let mut resumed = fresh();
            let read = read_tensors(&std::fs::read(&path).unwrap()).unwrap();
            resumed.load_named(&half, read, &Device::flex()).unwrap();
            let end = stepped(half, &mut resumed, 4..7);
            assert_eq!(named(&resumed, &end), named(&straight, &model));
            let weights = |model: &Decoder| danlu_models::to_named(&model.valid()).unwrap();
            for ((name, end), (_, straight)) in weights(&end).into_iter().zip(weights(&model)) {
                assert_eq!(end.try_into_vec::<f32>().unwrap(), straight.try_into_vec::<f32>().unwrap(), "{name}");
            }
        }
    }

    #[test]
    fn plain_descent_moves_against_the_gradient_and_keeps_nothing() {
        let device = Device::flex().autodiff();
        let (rate, scale) = (0.5, 0.25);
        let spec = OptimizerSpec {
            kind: OptimizerKind::Sgd,
            rate: Some(rate),
            embedding_rate: Some(rate),
            weight_decay: 0.0,
            ..OptimizerSpec::default()
        };
        let model = decoder(&device);
        let batch = Batch::new((0..32).collect(), (1..33).collect(), 2, 16, vec![]);
        let values = |model: &Decoder| -> Vec<f32> {
            let named = danlu_models::to_named(&model.valid()).unwrap();
            named.into_iter().flat_map(|(_, values)| values.try_into_vec::<f32>().unwrap()).collect()
        };
        let before = values(&model);
        let mut gradients = Gradients::new();
        gradients.add(&model, model.loss(&batch)).unwrap();
        let square = gradients.squares(&model);
        let square: f64 = danlu_ops::read_scalars(square.into_iter().map(|(_, square)| square).collect()).iter().sum();
        let mut optimizer = Optimizer::new(&spec, &model);
        let moved = optimizer.step(model, &mut gradients, 1, 1.0, scale);
        let after = values(&moved);
        let found: f64 = before.iter().zip(&after).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let expected = square * (rate * scale).powi(2);
        assert!((found - expected).abs() < 1e-3 * expected, "{found} {expected}");
        assert!(optimizer.pending(&moved).is_empty());
    }

    #[test]
    fn state_of_the_other_kind_is_refused_with_its_name() {
        let device = Device::flex().autodiff();
        let of = |moments| {
            let kind = OptimizerKind::Adamw;
            Optimizer::new(&OptimizerSpec { kind, rate: Some(1e-2), moments, ..OptimizerSpec::default() }, &decoder(&device))
        };
        for (written, read) in [(MomentsKind::F32, MomentsKind::Int8), (MomentsKind::Int8, MomentsKind::F32)] {
            let mut optimizer = of(written);
            let model = stepped(decoder(&device), &mut optimizer, 1..2);
            let tensors = named(&optimizer, &model);
            let error = of(read).load_named(&model, tensors, &Device::flex()).unwrap_err();
            assert!(format!("{error:#}").contains("embed_tokens.weight.exp_avg holds"), "{error:#}");
        }
    }
}
