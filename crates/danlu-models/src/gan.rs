//! Generative adversarial networks.

use anyhow::Result;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use danlu_ops::{Convolution, Planes, Projection, Weight};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::config::{GanConfig, GanForm};
use crate::layers::{Linear, placeholder};
use crate::{Filters, init, names};

/// Of the norms, as `torch` has it.
const EPSILON: f64 = 1e-5;
/// Deviation of DCGAN's initial weights (Radford 2015, 3).
const RANGE: f64 = 0.02;

/// Two networks that learn against each other ([Goodfellow et al. 2014](https://arxiv.org/abs/1406.2661)): one draws pictures from noise, the
/// other tells them from real ones. Of layers that read everything, or of convolutions
/// ([Radford et al. 2015](https://arxiv.org/abs/1511.06434)).
///
/// Where it is not the papers': the discriminator of 2014 had maxout units and dropout, and has leaky ones here; pictures of 28×28 halve
/// twice, where DCGAN's 64×64 halve four times.
#[derive(Module, Debug)]
pub struct Gan {
    pub generator: Generator,
    pub discriminator: Discriminator,
}

/// Noise to pictures: layers that read everything, then transposed convolutions, with ReLU between and tanh at the end.
#[derive(Module, Debug)]
pub struct Generator {
    pub layers: Vec<Linear>,
    pub convolutions: Vec<Filters>,
    /// Before each ReLU of `dcgan`.
    pub norms: Vec<BatchNorm>,
    /// The convolutions whose transposes these are.
    #[module(skip)]
    stages: Vec<Convolution>,
}

/// Pictures to scores, positive for real: convolutions, then layers that read everything, with leaky ReLU between.
#[derive(Module, Debug)]
pub struct Discriminator {
    pub convolutions: Vec<Filters>,
    /// After each convolution but the first, unless weights are divided by their singular values.
    pub norms: Vec<BatchNorm>,
    pub layers: Vec<Linear>,
    /// Where weights are divided: an estimate of the left singular vector of each, `[1, outputs]`, which has no gradient and is followed by
    /// [`Discriminator::power_iteration`].
    pub spectral: Vec<Param<Tensor<2>>>,
    #[module(skip)]
    stages: Vec<Convolution>,
}

/// Batch normalization: by the statistics of the batch, or by the population's where they are there.
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// `[channels]`, all of them.
    pub weight: Param<Tensor<1>>,
    pub bias: Param<Tensor<1>>,
    pub running_mean: Option<Param<Tensor<1>>>,
    pub running_var: Option<Param<Tensor<1>>>,
}

/// The discriminator's weights as they are now, ready for any number of batches.
pub struct Scorer {
    layers: Vec<Judging>,
    stages: Vec<Convolution>,
}

struct Judging {
    /// `[outputs, inputs]`, of a convolution too.
    weight: Tensor<2>,
    bias: Tensor<1>,
    norm: Option<[Tensor<1>; 2]>,
}

/// Normal noise `[count, latent]` row after row: row `i` is a function of the seed and of `first + i`, so that rows are drawn by counting and
/// no state is kept.
pub fn noise(seed: u64, first: u64, count: usize, latent: usize) -> Vec<f32> {
    let row = |number: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number);
        init::normal(&mut rng, 1.0, latent)
    };
    (0..count as u64).flat_map(|i| row(first.wrapping_add(i))).collect()
}

impl Gan {
    /// With initial weights: DCGAN's are normal; otherwise uniform, with variance 2 / inputs before a ReLU (He 2015) and 1 / inputs at the end.
    ///
    /// # Errors
    /// When the configuration's numbers do not make a model.
    pub fn new(config: &GanConfig, seed: u64, device: &Device) -> Result<Self> {
        let last = format!("layers.{}.weight", config.widths.len());
        names::fill(Self::empty(config, false, device)?, |name, shape| {
            let count: usize = shape.iter().product();
            Ok(match (config.form, shape) {
                _ if name.contains(".spectral.") => init::uniform(seed, name, 1.0, count),
                (GanForm::Dcgan, _) => init::values(seed, name, shape, RANGE, 1),
                (GanForm::Mlp, [_, read]) => {
                    let gain = if name.ends_with(&last) { 3.0 } else { 6.0 };
                    init::uniform(seed, name, f64::sqrt(gain / *read as f64), count)
                }
                (GanForm::Mlp, _) => vec![0.0; count],
            })
        })
    }

    /// Networks whose parameters have shapes and no values; the generator's norms with the population's statistics where it is `settled`.
    pub(crate) fn empty(config: &GanConfig, settled: bool, device: &Device) -> Result<Self> {
        config.validate()?;
        let stages = config.stages();
        let linear =
            |layers: Vec<[usize; 2]>| layers.into_iter().map(|[read, give]| Linear::new(give, read, true, device)).collect();
        let filters = |stage: &Convolution, bias: usize| {
            let [rows, columns] = stage.kernel;
            let weight = placeholder([stage.outputs, stage.input.channels, rows, columns], device);
            Filters { weight, bias: placeholder([bias], device) }
        };
        let larger: Vec<Convolution> = stages.iter().rev().copied().collect();
        let generator = Generator {
            layers: linear(config.layers()),
            convolutions: larger.iter().map(|stage| filters(stage, stage.input.channels)).collect(),
            norms: larger.iter().map(|stage| BatchNorm::new(stage.outputs, settled, device)).collect(),
            stages: larger,
        };
        let judging = config.judging_layers();
        let widths = stages.iter().map(|stage| stage.outputs).chain(judging.iter().map(|[_, give]| *give));
        let spectral = widths.filter(|_| config.spectral_norm).map(|width| placeholder([1, width], device)).collect();
        let normed = stages.iter().skip(1).filter(|_| config.judge_is_normed());
        let discriminator = Discriminator {
            convolutions: stages.iter().map(|stage| filters(stage, stage.outputs)).collect(),
            norms: normed.map(|stage| BatchNorm::new(stage.outputs, false, device)).collect(),
            layers: linear(judging),
            spectral,
            stages,
        };
        Ok(names::freeze(Self { generator, discriminator }, |name| name.contains(".spectral.")))
    }

    /// The same without the population's statistics, to be trained further.
    #[must_use]
    pub fn unsettled(self) -> Self {
        let unsettled = |norm: BatchNorm| BatchNorm { running_mean: None, running_var: None, ..norm };
        let Self { generator, discriminator } = self;
        let norms = generator.norms.into_iter().map(unsettled).collect();
        Self { generator: Generator { norms, ..generator }, discriminator }
    }
}

impl Generator {
    /// Numbers of the noise.
    pub fn latent(&self) -> usize {
        self.layers[0].dims()[1]
    }

    /// Pictures, values from -1 to 1, of noise `[pictures, latent]`: by the statistics of these very pictures until it is
    /// [`Generator::settled`].
    ///
    /// # Panics
    /// When the noise has another width.
    pub fn forward(&self, noise: Tensor<2>) -> Tensor<2> {
        self.through(noise, |_, _| ())
    }

    /// [`Generator::forward`], with each norm's number and what it reads shown to `look`.
    fn through(&self, noise: Tensor<2>, mut look: impl FnMut(usize, &Tensor<2>)) -> Tensor<2> {
        let steps = self.layers.len() + self.convolutions.len();
        let mut x = noise;
        for step in 0..steps {
            x = match step.checked_sub(self.layers.len()) {
                None => self.layers[step].forward(x),
                Some(i) => {
                    let Filters { weight, bias } = &self.convolutions[i];
                    danlu_ops::transposed_convolution(x, weight.val(), bias.val(), self.stages[i])
                }
            };
            if step + 1 == steps {
                break;
            }
            if let Some(norm) = self.norms.get(step) {
                look(step, &x);
                x = norm.forward(x, self.normed(step));
            }
            x = danlu_ops::relu(x);
        }
        danlu_ops::tanh(x)
    }

    /// What a norm reads: what the next transposed convolution does.
    fn normed(&self, norm: usize) -> Planes {
        self.stages[norm].output()
    }

    /// The same with the statistics that its norms find in pictures of this noise, so that a picture no longer depends on those drawn beside
    /// it. Of the final weights and as many pictures as one likes these are better than means along the training
    /// ([Wu and Johnson 2021](https://arxiv.org/abs/2105.07576), 3), and nothing of them need be kept while it trains.
    #[must_use]
    pub fn settled(&self, noise: Tensor<2>) -> Self {
        let fresh = |norm: &BatchNorm| BatchNorm { running_mean: None, running_var: None, ..norm.clone() };
        let own = Self { norms: self.norms.iter().map(fresh).collect(), ..self.clone() };
        let mut found = vec![];
        own.through(noise, |norm, x| found.push(danlu_ops::channel_statistics(x.clone(), own.normed(norm))));
        let constant = |x: Tensor<1>| Some(Param::from_tensor(x).set_require_grad(false));
        let norms = own.norms.iter().zip(found).map(|(norm, [mean, variance])| BatchNorm {
            running_mean: constant(mean),
            running_var: constant(variance),
            ..norm.clone()
        });
        Self { norms: norms.collect(), ..own.clone() }
    }
}

impl Discriminator {
    /// Its weights as they are now.
    pub fn scorer(&self) -> Scorer {
        let layers = (0..self.convolutions.len() + self.layers.len()).map(|step| {
            let (weight, bias) = self.matrix(step);
            let weight = match self.spectral.get(step) {
                Some(vector) => divided(weight, vector.val()),
                None => weight,
            };
            let norm = step.checked_sub(1).filter(|_| step < self.convolutions.len()).and_then(|norm| self.norms.get(norm));
            Judging { weight, bias, norm: norm.map(|norm| [norm.weight.val(), norm.bias.val()]) }
        });
        Scorer { layers: layers.collect(), stages: self.stages.clone() }
    }

    /// The weight `[outputs, inputs]` of a step, and its bias.
    fn matrix(&self, step: usize) -> (Tensor<2>, Tensor<1>) {
        if let Some(Filters { weight, bias }) = self.convolutions.get(step) {
            let stage = &self.stages[step];
            return (weight.val().reshape([stage.outputs, stage.depth()]), bias.val());
        }
        match self.layers[step - self.convolutions.len()].projection() {
            Projection { weight: Weight::Float(weight), bias: Some(bias), .. } => (weight, bias),
            _ => unreachable!("a discriminator's layers are of floats and have biases"),
        }
    }

    /// Follows the singular vectors by one step of power iteration, as they are before each update in
    /// [Miyato et al. 2018](https://arxiv.org/abs/1802.05957), algorithm 1.
    #[must_use]
    pub fn power_iteration(mut self) -> Self {
        let followed = self.spectral.iter().enumerate().map(|(step, vector)| {
            let weight = constant(self.matrix(step).0);
            vector.clone().map(|left| {
                let right = unit(constant(left).matmul(weight.clone()));
                unit(danlu_ops::linear(right, weight, None))
            })
        });
        self.spectral = followed.collect();
        self
    }
}

impl Scorer {
    /// The same without gradients of its own: for those that come through it.
    #[must_use]
    pub fn fixed(&self) -> Self {
        let fixed = |layer: &Judging| Judging {
            weight: constant(layer.weight.clone()),
            bias: constant(layer.bias.clone()),
            norm: layer.norm.clone().map(|norm| norm.map(constant)),
        };
        Self { layers: self.layers.iter().map(fixed).collect(), stages: self.stages.clone() }
    }

    /// The score of each picture, `[pictures, 1]`. With norms of batches it depends on the other pictures.
    ///
    /// # Panics
    /// When rows are not pictures of the model's size.
    pub fn scores(&self, pictures: Tensor<2>) -> Tensor<2> {
        let mut x = pictures;
        for (step, Judging { weight, bias, norm }) in self.layers.iter().enumerate() {
            let (weight, bias) = (weight.clone(), bias.clone());
            let stage = self.stages.get(step);
            x = match stage {
                Some(stage) => {
                    let [rows, columns] = stage.kernel;
                    let weight = weight.reshape([stage.outputs, stage.input.channels, rows, columns]);
                    danlu_ops::convolution(x, weight, bias, *stage)
                }
                None => danlu_ops::linear(x, weight, Some(bias)),
            };
            if let (Some([weight, bias]), Some(stage)) = (norm, stage) {
                x = danlu_ops::batch_norm(x, weight.clone(), bias.clone(), stage.output(), EPSILON);
            }
            if step + 1 < self.layers.len() {
                x = danlu_ops::leaky_relu(x);
            }
        }
        x
    }
}

impl BatchNorm {
    fn new(channels: usize, settled: bool, device: &Device) -> Self {
        Self {
            weight: placeholder([channels], device),
            bias: placeholder([channels], device),
            running_mean: settled.then(|| placeholder([channels], device)),
            running_var: settled.then(|| placeholder([channels], device)),
        }
    }

    fn forward(&self, x: Tensor<2>, planes: Planes) -> Tensor<2> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        match (&self.running_mean, &self.running_var) {
            (Some(mean), Some(variance)) => danlu_ops::fixed_norm(x, [mean.val(), variance.val()], weight, bias, planes, EPSILON),
            _ => danlu_ops::batch_norm(x, weight, bias, planes, EPSILON),
        }
    }
}

/// A weight over its largest singular value, σ = uᵀ W v. The vectors count as constant, so that the gradient is exact to the first order in
/// the weight: that of Miyato et al. 2018, 2.2.
fn divided(weight: Tensor<2>, left: Tensor<2>) -> Tensor<2> {
    let (left, still) = (unit(constant(left)), constant(weight.clone()));
    let right = unit(left.clone().matmul(still));
    let largest = (danlu_ops::linear(right, weight.clone(), None) * left).sum();
    weight / largest.reshape([1, 1])
}

/// A row of length one.
fn unit(row: Tensor<2>) -> Tensor<2> {
    let length = row.clone().square().sum().sqrt() + 1e-12;
    row / length.reshape([1, 1])
}

/// The values without what they came from.
fn constant<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if x.is_autodiff() { Tensor::from_inner(x.inner()) } else { x }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    fn config(form: GanForm, spectral: bool) -> GanConfig {
        let widths: &[usize] = if form == GanForm::Mlp { &[12, 20] } else { &[6, 4] };
        GanConfig::new(form, [1, 8, 8], 5, widths, spectral)
    }

    fn of(values: Vec<f32>, rows: usize, device: &Device) -> Tensor<2> {
        let columns = values.len() / rows;
        Tensor::from_data(TensorData::new(values, [rows, columns]), device)
    }

    fn numbers(x: Tensor<2>) -> Vec<f32> {
        x.inner().into_data().try_into_vec::<f32>().unwrap()
    }

    #[test]
    fn noise_is_counted() {
        let all = noise(3, 10, 4, 6);
        assert_eq!(noise(3, 12, 2, 6), all[12..]);
        assert_ne!(noise(4, 10, 4, 6), all);
        let many = noise(1, 0, 2000, 10);
        let mean = many.iter().map(|x| f64::from(*x)).sum::<f64>() / many.len() as f64;
        let square = many.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / many.len() as f64;
        assert!(mean.abs() < 0.04 && (square - 1.0).abs() < 0.06, "{mean} {square}");
    }

    /// Every parameter that moves has a gradient from one loss of both players, and the vectors of the norm have none.
    #[test]
    fn both_networks_get_gradients_and_no_others() {
        let device = Device::flex().autodiff();
        for (form, spectral) in [(GanForm::Mlp, false), (GanForm::Mlp, true), (GanForm::Dcgan, false), (GanForm::Dcgan, true)] {
            let config = config(form, spectral);
            let model = Gan::new(&config, 3, &device).unwrap();
            let all = names::names_and_shapes(&model);
            let moved = names::trained(&model);
            let count: usize =
                all.iter().filter(|(name, _)| moved.contains(name)).map(|(_, shape)| shape.iter().product::<usize>()).sum();
            assert_eq!(count as u64, config.parameters(), "{form:?} {spectral}");
            assert_eq!(all.len() - moved.len(), if spectral { 3 } else { 0 }, "{form:?}: {all:?}");
            let model = Gan { discriminator: model.discriminator.power_iteration(), ..model };
            assert_eq!(names::trained(&model), moved);

            let pictures = of(noise(1, 0, 6, 64), 6, &device);
            // A graph is gone after its backward pass, so that each has its own.
            let losses = || {
                let drawn = model.generator.forward(of(noise(2, 0, 6, 5), 6, &device));
                assert_eq!(drawn.dims(), [6, 64]);
                let scorer = model.discriminator.scorer();
                let judge = scorer.scores(pictures.clone()).square().sum() - scorer.scores(constant(drawn.clone())).sum();
                (judge, scorer.fixed().scores(drawn).square().sum())
            };
            // The generator's part alone gives the discriminator nothing.
            let alone = losses().1.backward();
            let (judge, through) = losses();
            let gradients = (judge + through).backward();
            for filters in &model.discriminator.convolutions {
                assert!(filters.weight.val().grad(&alone).is_none() && filters.weight.val().grad(&gradients).is_some());
            }
            let head = |layers: &[Linear]| layers[0].weight.as_ref().unwrap().val();
            assert!(head(&model.discriminator.layers).grad(&alone).is_none());
            assert!(head(&model.discriminator.layers).grad(&gradients).is_some());
            let generator = head(&model.generator.layers);
            let (one, both) = (generator.grad(&alone).unwrap(), generator.grad(&gradients).unwrap());
            assert_eq!(numbers(one), numbers(both), "{form:?}: the discriminator's loss does not reach the generator");
        }
    }

    #[test]
    fn power_iteration_finds_the_largest_singular_value() {
        let device = Device::flex();
        let mut model = Gan::new(&config(GanForm::Mlp, true), 3, &device).unwrap().discriminator;
        for _ in 0..100 {
            model = model.power_iteration();
        }
        // No unit vector is made longer than by one, and the found one by just that.
        let scorer = model.scorer();
        for (step, Judging { weight, .. }) in scorer.layers.iter().enumerate() {
            let [rows, columns] = weight.dims();
            let random = unit(of(noise(step as u64, 0, 1, columns), 1, &device));
            let length = |x: Tensor<2>| danlu_ops::linear(x, weight.clone(), None).square().sum().sqrt().into_scalar::<f32>();
            assert!(length(random) <= 1.0 + 1e-3, "{rows}×{columns}");
            let right = unit(unit(model.spectral[step].val()).matmul(weight.clone()));
            assert!((length(right) - 1.0).abs() < 2e-2, "{rows}×{columns}");
        }
    }

    /// The vectors count as constant, and yet the gradient is that of the whole, since a singular value does not change with its vectors to the
    /// first order: against finite differences in which they are found anew.
    #[test]
    fn the_gradient_of_a_divided_weight_is_exact() {
        let device = Device::flex().autodiff();
        let [weight, probe, along] = [1, 2, 3].map(|seed| noise(seed, 0, 5, 7));
        let left = |weight: &Tensor<2>| {
            let weight = constant(weight.clone());
            (0..200).fold(of(vec![1.0; 5], 1, &device), |left, _| {
                unit(danlu_ops::linear(unit(left.matmul(weight.clone())), weight.clone(), None))
            })
        };
        let value = |weight: Tensor<2>| {
            let left = left(&weight);
            (divided(weight, left) * of(probe.clone(), 5, &device)).sum()
        };
        let leaf = of(weight.clone(), 5, &device).require_grad();
        let gradients = value(leaf.clone()).backward();
        let gradient = numbers(leaf.grad(&gradients).unwrap());
        let expected: f64 = gradient.iter().zip(&along).map(|(a, b)| f64::from(a * b)).sum();
        let at = |step: f32| {
            let moved = weight.iter().zip(&along).map(|(weight, along)| weight + step * along).collect();
            f64::from(value(of(moved, 5, &device)).inner().into_scalar::<f32>())
        };
        let slope = (at(3e-3) - at(-3e-3)) / 6e-3;
        assert!((slope - expected).abs() < 1e-2 * expected.abs().max(1.0), "the slope is {slope}, the gradient says {expected}");
    }

    /// Settled by many pictures, a generator draws nearly what it drew of a large batch, and each picture alone as in company.
    #[test]
    fn a_settled_generator_draws_each_picture_by_itself() {
        let device = Device::flex();
        for form in [GanForm::Mlp, GanForm::Dcgan] {
            let generator = Gan::new(&config(form, false), 3, &device).unwrap().generator;
            let settled = generator.settled(of(noise(7, 0, 500, 5), 500, &device));
            let few = noise(9, 0, 3, 5);
            let together = numbers(settled.forward(of(few.clone(), 3, &device)));
            let alone = numbers(settled.forward(of(few[5..10].to_vec(), 1, &device)));
            let far = together[64..128].iter().zip(&alone).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 1e-5, "{form:?}: {far}");
            let many = numbers(generator.forward(of(noise(7, 0, 500, 5), 500, &device)));
            let again = numbers(settled.forward(of(noise(7, 0, 500, 5), 500, &device)));
            let far = many.iter().zip(&again).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 1e-3, "{form:?}: {far}");
        }
    }
}
