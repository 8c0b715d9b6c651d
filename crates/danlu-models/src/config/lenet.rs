use anyhow::{Result, ensure};
use danlu_ops::{Convolution, Planes, Pooling, Window};
use serde::{Deserialize, Serialize};

use super::bounded;

/// The shape of a LeNet, as its `config.json` has it beside `id2label`; `transformers` has no such class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LenetConfig {
    pub model_type: String,
    pub form: LenetForm,
    /// Planes of a picture: 1 for brightness, 3 for colour.
    pub num_channels: usize,
    /// Height and width of a picture.
    pub image_size: [usize; 2],
    /// Of each convolution: the planes that it gives, the side of its windows, and the zeros on each side of what it reads.
    pub channels: Vec<usize>,
    pub kernel_sizes: Vec<usize>,
    pub paddings: Vec<usize>,
    /// Widths of the layers after the convolutions.
    pub hidden_sizes: Vec<usize>,
    /// The classes, in the order of the outputs; `id2label` in the file.
    #[serde(skip)]
    pub labels: Vec<String>,
    /// What is taken from each channel, as a share of full brightness, and what it is then divided by; in `preprocessor_config.json`.
    #[serde(skip)]
    pub image_mean: Vec<f64>,
    #[serde(skip)]
    pub image_std: Vec<f64>,
}

/// What a stage is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LenetForm {
    /// Convolution, tanh, and the mean of each four values.
    #[serde(rename = "1998")]
    Paper,
    /// Convolution, group normalization with a single group, ReLU, and the largest of each four values.
    #[serde(rename = "modern")]
    Modern,
}

/// What a stage reads and gives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    pub(crate) convolution: Convolution,
    pub(crate) pool: Window,
}

/// The most stages: each halves the sides, and the largest picture has 4,096.
const STAGES: usize = 12;

impl LenetConfig {
    /// LeNet-5 of the paper, or its modern form, for pictures `[channels, height, width]`: `channels` of the stages and widths of the
    /// `hidden` layers, or none for the usual ones.
    pub fn new(form: LenetForm, picture: [usize; 3], channels: &[usize], hidden: &[usize], labels: Vec<String>) -> Self {
        let usual: (&[usize], &[usize]) = match form {
            LenetForm::Paper => (&[6, 16], &[120, 84]),
            LenetForm::Modern => (&[24, 48, 96], &[128]),
        };
        let channels = if channels.is_empty() { usual.0 } else { channels };
        let (num_channels, image_size) = (picture[0], [picture[1], picture[2]]);
        // The paper's 28×28 digits stand in the middle of 32×32, so that their edges are in the middle of a window too.
        let around = if image_size[0].min(image_size[1]) < 32 { 2 } else { 0 };
        let (kernel_sizes, paddings) = (0..channels.len())
            .map(|stage| match (form, stage) {
                (LenetForm::Paper, 0) => (5, around),
                (LenetForm::Paper, _) => (5, 0),
                (LenetForm::Modern, 0) => (5, 2),
                (LenetForm::Modern, _) => (3, 1),
            })
            .unzip();
        Self {
            model_type: "lenet".into(),
            form,
            num_channels,
            image_size,
            channels: channels.to_vec(),
            kernel_sizes,
            paddings,
            hidden_sizes: if hidden.is_empty() { usual.1 } else { hidden }.to_vec(),
            labels,
            image_mean: vec![0.0; num_channels],
            image_std: vec![1.0; num_channels],
        }
    }

    /// What it reads.
    pub fn picture(&self) -> Planes {
        Planes { channels: self.num_channels, height: self.image_size[0], width: self.image_size[1] }
    }

    /// Checks that the numbers make a model.
    ///
    /// # Errors
    /// Names the key and what it may be.
    pub fn validate(&self) -> Result<()> {
        ensure!(self.model_type == "lenet", "`model_type` is {:?}; this is read as lenet", self.model_type);
        ensure!([1, 3].contains(&self.num_channels), "`num_channels` is {}; pictures have 1 or 3", self.num_channels);
        self.image_size.iter().try_for_each(|side| bounded("image_size", *side, 4096))?;
        let count = self.channels.len();
        ensure!((1..=STAGES).contains(&count), "`channels` has {count} stages; there are from 1 to {STAGES}");
        ensure!(
            self.kernel_sizes.len() == count && self.paddings.len() == count,
            "`channels`, `kernel_sizes` and `paddings` have {count}, {} and {} numbers; each stage has one of each",
            self.kernel_sizes.len(),
            self.paddings.len()
        );
        self.channels.iter().try_for_each(|n| bounded("channels", *n, 4096))?;
        self.kernel_sizes.iter().try_for_each(|n| bounded("kernel_sizes", *n, 31))?;
        ensure!(self.paddings.iter().all(|n| *n <= 31), "`paddings` must be from 0 to 31");
        ensure!((1..=8).contains(&self.hidden_sizes.len()), "`hidden_sizes` must have from 1 to 8 numbers");
        self.hidden_sizes.iter().try_for_each(|n| bounded("hidden_sizes", *n, 1 << 16))?;
        ensure!(
            (2..=1 << 16).contains(&self.labels.len()),
            "there are {} classes; a classifier tells from 2 to 65536 apart",
            self.labels.len()
        );
        let scaled = |x: &[f64]| x.len() == self.num_channels && x.iter().all(|x| x.is_finite());
        ensure!(
            scaled(&self.image_mean) && scaled(&self.image_std) && self.image_std.iter().all(|x| *x > 0.0),
            "`image_mean` and `image_std` must have a number for each of the {} channels, and deviations above zero",
            self.num_channels
        );
        let planes = self.fitted()?.last().map_or(0, |stage| stage.pool.output().len());
        ensure!(planes <= 1 << 22, "the last stage gives {planes} values, too many for a layer to read; give more stages");
        Ok(())
    }

    /// The stages, one after the other.
    ///
    /// # Errors
    /// When the picture is too small for them.
    fn fitted(&self) -> Result<Vec<Stage>> {
        let mut input = self.picture();
        let mut stages = vec![];
        for (stage, ((&outputs, &kernel), &padding)) in
            self.channels.iter().zip(&self.kernel_sizes).zip(&self.paddings).enumerate()
        {
            let (side, picture) = (input.height.min(input.width), self.picture());
            // What is left of the smaller side is halved afterwards, so that there must be two of it.
            ensure!(
                side + 2 * padding > kernel,
                "pictures of {}×{} are too small for `channels` with {} stages: before stage {} they are {}×{}; give fewer",
                picture.height,
                picture.width,
                self.channels.len(),
                stage + 1,
                input.height,
                input.width
            );
            let convolution = Convolution { input, outputs, kernel: [kernel; 2], stride: 1, padding };
            let pooling = if self.form == LenetForm::Paper { Pooling::Average } else { Pooling::Max };
            let pool = Window { input: convolution.output(), size: 2, stride: 2, pooling };
            input = pool.output();
            stages.push(Stage { convolution, pool });
        }
        Ok(stages)
    }

    /// [`LenetConfig::fitted`] of a configuration that was validated.
    pub(crate) fn stages(&self) -> Vec<Stage> {
        self.fitted().expect("the stages of a validated configuration fit")
    }

    /// Widths of the layers after the convolutions: what the first reads, then what each gives.
    pub(crate) fn widths(&self) -> Vec<usize> {
        let read = self.stages().last().map_or(0, |stage| stage.pool.output().len());
        [&[read], &self.hidden_sizes[..]].concat()
    }

    /// Number of parameters.
    ///
    /// # Panics
    /// Like those below, when the configuration is not valid.
    pub fn parameters(&self) -> u64 {
        let norm = if self.form == LenetForm::Modern { 2 } else { 0 };
        let stages = self.stages().into_iter().map(|stage| stage.convolution);
        let convolutions: usize = stages.map(|c| c.outputs * (c.depth() + 1 + norm)).sum();
        let layers: usize = self.layers().map(|[read, give]| give * (read + 1)).sum();
        (convolutions + layers) as u64
    }

    /// What each layer after the convolutions reads and gives, the classifier too.
    fn layers(&self) -> impl Iterator<Item = [usize; 2]> {
        let widths = [self.widths(), vec![self.labels.len()]].concat();
        (1..widths.len()).map(move |i| [widths[i - 1], widths[i]])
    }

    /// Floating-point operations to train on one picture: two for each product and sum, forward, for the weights' gradients, and for the
    /// inputs', which the first convolution does without.
    pub fn flops(&self) -> f64 {
        let products = |c: &Convolution| (c.output().len() * c.depth()) as f64;
        let stages = self.stages();
        let convolutions: f64 = stages.iter().map(|stage| products(&stage.convolution)).sum();
        let layers: usize = self.layers().map(|[read, give]| read * give).sum();
        let first = stages.first().map_or(0.0, |stage| products(&stage.convolution));
        6.0 * (convolutions + layers as f64) - 2.0 * first
    }

    /// Numbers that a picture's activations come to, which are kept for the backward pass.
    pub fn activations(&self) -> u64 {
        let of_stage = |stage: &Stage| {
            let convolved = stage.convolution.output().len();
            // A norm keeps what it reads beside what the activation function gives.
            let kept = if self.form == LenetForm::Modern { 2 * convolved } else { convolved };
            stage.convolution.input.len() + kept
        };
        (self.stages().iter().map(of_stage).sum::<usize>() + 2 * self.widths().iter().sum::<usize>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lenet(form: LenetForm, picture: [usize; 3]) -> LenetConfig {
        LenetConfig::new(form, picture, &[], &[], (0..10).map(|i| i.to_string()).collect())
    }

    /// The paper's layers: 156 weights and biases in C1; C3 is connected in full here, which makes 2,416 of 1,516; C5 48,120; F6 10,164; and
    /// the output, which is a layer with weights here, 850. S2 and S4 have none.
    #[test]
    fn the_paper_s_network_has_its_parameters() {
        let config = lenet(LenetForm::Paper, [1, 28, 28]);
        config.validate().unwrap();
        assert_eq!(config.parameters(), 156 + 2416 + 48_120 + 10_164 + 850);
        assert_eq!(config.widths(), [400, 120, 84]);
        // Its 32×32 need no padding.
        assert_eq!(lenet(LenetForm::Paper, [1, 32, 32]).parameters(), config.parameters());
        let products = 28 * 28 * 6 * 25 + 10 * 10 * 16 * 150 + 400 * 120 + 120 * 84 + 84 * 10;
        assert_eq!(config.flops(), f64::from(6 * products - 2 * 28 * 28 * 6 * 25));
        assert!(config.activations() > 28 * 28 * 7);
        lenet(LenetForm::Modern, [3, 28, 28]).validate().unwrap();
    }

    #[test]
    fn what_does_not_make_a_network_is_refused() {
        let check = |change: &dyn Fn(&mut LenetConfig), says: &str| {
            let mut config = lenet(LenetForm::Modern, [1, 28, 28]);
            change(&mut config);
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        };
        check(&|c| c.channels = vec![], "`channels`");
        check(&|c| c.channels[1] = 0, "`channels`");
        check(&|c| c.kernel_sizes.truncate(1), "each stage has one of each");
        check(&|c| c.image_size = [4, 28], "too small");
        check(&|c| c.image_size = [1 << 30, 28], "`image_size`");
        check(&|c| c.num_channels = 4, "`num_channels`");
        check(&|c| c.labels.truncate(1), "1 classes");
        check(&|c| c.image_std[0] = 0.0, "`image_std`");
        check(&|c| c.model_type = "vit".into(), "vit");
        check(&|c| c.paddings[0] = 1 << 40, "`paddings`");
    }
}
