//! A model's parameters by their names in `transformers`, which are the paths of the fields that hold them.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};

/// Every parameter's name and shape, in the order of the fields. Allocates no values.
pub fn names_and_shapes(module: &impl Module) -> Vec<(String, Vec<usize>)> {
    struct Shapes(Path, Vec<(String, Vec<usize>)>);
    impl ModuleVisitor for Shapes {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1.push((self.0.name(), param.lazy_shape().to_vec()));
        }
    }
    let mut visitor = Shapes(Path::default(), vec![]);
    module.visit(&mut visitor);
    visitor.1
}

/// Calls `f` with every parameter's name and values, one parameter in memory at a time, in the order of [`names_and_shapes`].
///
/// # Errors
/// The first that `f` returns; it is not called again then. Or the device's, when values cannot be read from it.
pub fn for_each(module: &impl Module, mut f: impl FnMut(&str, TensorData) -> Result<()>) -> Result<()> {
    unread(module, |_| true).into_iter().try_for_each(|one| f(&one.name, (one.read)()?))
}

/// Gives every parameter the values that `values(name, shape)` returns. Parameters keep their identity (`ParamId`) and device.
///
/// # Errors
/// The first that `values` returns, or when it returns another number of values than the shape has.
pub fn fill<M: Module>(module: M, mut values: impl FnMut(&str, &[usize]) -> Result<Vec<f32>>) -> Result<M> {
    fill_some(module, |name, shape| values(name, shape).map(Some))
}

/// [`fill`] for the parameters for which `values` returns any; the others stay as they are.
///
/// # Errors
/// As [`fill`].
pub fn fill_some<M: Module>(module: M, values: impl FnMut(&str, &[usize]) -> Result<Option<Vec<f32>>>) -> Result<M> {
    struct Fill<F>(Path, F, Result<()>);
    impl<F: FnMut(&str, &[usize]) -> Result<Option<Vec<f32>>>> ModuleMapper for Fill<F> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.2.is_err() {
                return param;
            }
            let (name, shape) = (self.0.name(), param.lazy_shape().to_vec());
            let read = (self.1)(&name, &shape).and_then(|values| {
                let Some(values) = values else { return Ok(None) };
                let expected = shape.iter().product::<usize>();
                ensure!(values.len() == expected, "{name} has {} values; its shape {shape:?} has {expected}", values.len());
                Ok(Some(Tensor::from_data(TensorData::new(values, shape), &param.lazy_device())))
            });
            match read {
                Ok(Some(tensor)) => {
                    let id = param.id;
                    param.transform_for_load(tensor, id)
                }
                Ok(None) => param,
                Err(error) => {
                    self.2 = Err(error);
                    param
                }
            }
        }
    }
    let mut mapper = Fill(Path::default(), values, Ok(()));
    let module = module.map(&mut mapper);
    mapper.2.map(|()| module)
}

/// A parameter that is read from its device when it is asked for.
pub struct Unread {
    pub name: String,
    pub shape: Vec<usize>,
    pub read: Box<dyn Fn() -> Result<TensorData>>,
}

/// The parameters that `wanted(name)` chooses, of which none is read yet, so that a checkpoint needs no copy of a model.
pub fn unread(module: &impl Module, wanted: impl FnMut(&str) -> bool) -> Vec<Unread> {
    struct Tensors<W>(Path, W, Vec<Unread>);
    impl<W: FnMut(&str) -> bool> ModuleVisitor for Tensors<W> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let name = self.0.name();
            if (self.1)(&name) {
                let (tensor, shape) = (param.val(), param.lazy_shape().to_vec());
                let named = name.clone();
                let read = move || {
                    tensor
                        .clone()
                        .try_into_data()
                        .map_err(|error| anyhow::anyhow!("cannot read {named} from the device: {error:?}"))
                };
                self.2.push(Unread { name, shape, read: Box::new(read) });
            }
        }
    }
    let mut visitor = Tensors(Path::default(), wanted, vec![]);
    module.visit(&mut visitor);
    visitor.2
}

/// Every parameter's values.
///
/// # Errors
/// When values cannot be read from the device.
pub fn to_named(module: &impl Module) -> Result<Vec<(String, TensorData)>> {
    let mut all = vec![];
    for_each(module, |name, values| {
        all.push((name.to_string(), values));
        Ok(())
    })?;
    Ok(all)
}

/// The values of [`to_named`] back into a module of the same shape.
///
/// # Errors
/// Names a parameter that is missing, has another shape, is not of 32-bit floats, or has no place in the module.
pub fn load_named<M: Module>(module: M, named: Vec<(String, TensorData)>) -> Result<M> {
    load_named_of(module, named, |_| true)
}

/// [`load_named`] for exactly the parameters that `wanted(name)` chooses; the others stay as they are.
///
/// # Errors
/// As [`load_named`].
pub fn load_named_of<M: Module>(module: M, named: Vec<(String, TensorData)>, mut wanted: impl FnMut(&str) -> bool) -> Result<M> {
    let mut named: HashMap<String, TensorData> = named.into_iter().collect();
    let module = fill_some(module, |name, shape| {
        if !wanted(name) {
            return Ok(None);
        }
        let values = named.remove(name).with_context(|| format!("{name} is missing"))?;
        let found = values.shape().to_vec();
        ensure!(found == shape, "{name} has the shape {found:?}; the model's is {shape:?}");
        values.try_into_vec::<f32>().map(Some).map_err(|error| anyhow::anyhow!("{name}: {error:?}"))
    })?;
    ensure!(named.is_empty(), "nothing of the model is to be {}", first_few(named.into_keys()));
    Ok(module)
}

/// The names of the parameters that are trained: those that are not frozen, of a module with autodiff.
pub fn trained(module: &impl Module) -> Vec<String> {
    struct Trained(Path, Vec<String>);
    impl ModuleVisitor for Trained {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.val().is_require_grad() {
                self.1.push(self.0.name());
            }
        }
    }
    let mut visitor = Trained(Path::default(), vec![]);
    module.visit(&mut visitor);
    visitor.1
}

/// Takes the parameters that `frozen(name)` chooses out of training: they get no gradient, cost no product for one, and have no state in
/// the optimizer.
pub fn freeze<M: Module>(module: M, frozen: impl FnMut(&str) -> bool) -> M {
    struct Freeze<F>(Path, F);
    impl<F: FnMut(&str) -> bool> ModuleMapper for Freeze<F> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if (self.1)(&self.0.name()) { param.set_require_grad(false) } else { param }
        }
    }
    module.map(&mut Freeze(Path::default(), frozen))
}

/// Up to five names, sorted, and how many more there are.
pub(crate) fn first_few(names: impl IntoIterator<Item = String>) -> String {
    let mut names: Vec<String> = names.into_iter().collect();
    names.sort();
    let more = names.len().saturating_sub(5);
    names.truncate(5);
    let listed = names.join(", ");
    if more == 0 { listed } else { format!("{listed} and {more} more") }
}

/// The field for what a head stands on: its parameters have the names they have without one.
const BACKBONE: &str = "backbone";

/// Where a traversal is. An enum's variant and a head's backbone are places in the traversal but no part of a tensor's name; a field whose
/// name in files is a word of the language has an underscore behind it (`self_`).
#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    fn enter(&mut self, name: &str, container: &str) {
        let place = if container.starts_with("Enum:") || name == BACKBONE { "" } else { name.trim_end_matches('_') };
        self.0.push(place.to_string());
    }

    fn exit(&mut self) {
        self.0.pop();
    }

    fn name(&self) -> String {
        let parts: Vec<&str> = self.0.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        parts.join(".")
    }
}
