use anyhow::{Result, ensure};
use danlu_ops::{Convolution, Planes};
use serde::{Deserialize, Serialize};

use super::bounded;

/// The shape of a generative adversarial network, a generator and the discriminator it learned against, as its `config.json` has it;
/// `transformers` has no such class. Pictures are from -1 for black to 1 for full brightness.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GanConfig {
    pub model_type: String,
    pub form: GanForm,
    /// Planes of a picture: 1 for brightness, 3 for colour.
    pub num_channels: usize,
    /// Height and width of a picture.
    pub image_size: [usize; 2],
    /// Numbers of the noise that a picture is drawn from, each normal.
    pub latent_size: usize,
    /// From noise to picture, and backwards in the discriminator: the widths of the layers between, or of `dcgan` the planes of each stage.
    pub widths: Vec<usize>,
    /// Whether the discriminator's weights are divided by their largest singular value.
    pub spectral_norm: bool,
}

/// What both networks are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GanForm {
    /// Layers that read everything (Goodfellow 2014).
    Mlp,
    /// Convolutions of stride two and their transposes, with batch normalization (Radford 2015).
    Dcgan,
}

/// The side of DCGAN's windows.
const KERNEL: usize = 4;

impl GanConfig {
    /// For pictures `[channels, height, width]`, with `widths` or, where there are none, the usual ones.
    pub fn new(form: GanForm, picture: [usize; 3], latent: usize, widths: &[usize], spectral_norm: bool) -> Self {
        let usual: &[usize] = match form {
            GanForm::Mlp => &[256, 512],
            GanForm::Dcgan => &[64, 32],
        };
        Self {
            model_type: "gan".into(),
            form,
            num_channels: picture[0],
            image_size: [picture[1], picture[2]],
            latent_size: latent,
            widths: if widths.is_empty() { usual } else { widths }.to_vec(),
            spectral_norm,
        }
    }

    /// What is drawn.
    pub fn picture(&self) -> Planes {
        Planes { channels: self.num_channels, height: self.image_size[0], width: self.image_size[1] }
    }

    /// Checks that the numbers make a model.
    ///
    /// # Errors
    /// Names the key and what it may be.
    pub fn validate(&self) -> Result<()> {
        ensure!(self.model_type == "gan", "`model_type` is {:?}; this is read as gan", self.model_type);
        ensure!([1, 3].contains(&self.num_channels), "`num_channels` is {}; pictures have 1 or 3", self.num_channels);
        self.image_size.iter().try_for_each(|side| bounded("image_size", *side, 4096))?;
        bounded("latent_size", self.latent_size, 1 << 16)?;
        ensure!((1..=8).contains(&self.widths.len()), "`widths` must have from 1 to 8 numbers, not {}", self.widths.len());
        match self.form {
            GanForm::Mlp => self.widths.iter().try_for_each(|n| bounded("widths", *n, 1 << 16))?,
            GanForm::Dcgan => {
                self.widths.iter().try_for_each(|n| bounded("widths", *n, 4096))?;
                let all = 1 << self.widths.len();
                ensure!(
                    self.image_size.iter().all(|side| side % all == 0),
                    "pictures of {}×{} cannot be halved once for each of the {} `widths`; give a number of them that fits, or pictures \
                     whose sides are multiples of {all}",
                    self.image_size[0],
                    self.image_size[1],
                    self.widths.len()
                );
            }
        }
        let largest = self.layers().into_iter().map(|[read, give]| read as u64 * give as u64).max().unwrap_or(0);
        ensure!(
            largest <= 1 << 28,
            "`widths` ask for a layer of {largest} weights, too many for pictures of {:?}",
            self.image_size
        );
        Ok(())
    }

    /// The discriminator's convolutions, each of which halves the sides; the generator has their transposes, from the last to the first.
    pub(crate) fn stages(&self) -> Vec<Convolution> {
        if self.form == GanForm::Mlp {
            return vec![];
        }
        let mut input = self.picture();
        let stage = |&outputs: &usize| {
            let stage = Convolution { input, outputs, kernel: [KERNEL; 2], stride: 2, padding: 1 };
            input = stage.output();
            stage
        };
        self.widths.iter().rev().map(stage).collect()
    }

    /// What each layer of the generator that reads everything reads and gives; the discriminator's come the other way round, but for its last,
    /// which gives one number and not noise.
    pub(crate) fn layers(&self) -> Vec<[usize; 2]> {
        let after = match self.form {
            GanForm::Mlp => [&self.widths[..], &[self.picture().len()]].concat(),
            GanForm::Dcgan => vec![self.stages().last().map_or(0, |stage| stage.output().len())],
        };
        let widths = [&[self.latent_size], &after[..]].concat();
        widths.windows(2).map(|pair| [pair[0], pair[1]]).collect()
    }

    /// The discriminator's layers that read everything: what each reads and gives.
    pub(crate) fn judging_layers(&self) -> Vec<[usize; 2]> {
        let mut layers: Vec<[usize; 2]> = self.layers().into_iter().rev().map(|[read, give]| [give, read]).collect();
        if let Some(last) = layers.last_mut() {
            last[1] = 1;
        }
        layers
    }

    /// Whether the discriminator has norms of batches: a weight that is divided by its largest singular value does without.
    pub(crate) fn judge_is_normed(&self) -> bool {
        self.form == GanForm::Dcgan && !self.spectral_norm
    }

    /// Parameters of both networks.
    pub fn parameters(&self) -> u64 {
        let stages = self.stages();
        let of_layers = |layers: Vec<[usize; 2]>| layers.iter().map(|[read, give]| give * (read + 1)).sum::<usize>();
        // A convolution and its transpose have the same weights and other biases.
        let convolutions: usize = stages.iter().map(|c| 2 * c.outputs * c.depth() + c.outputs + c.input.channels).sum();
        let generator_norms: usize = stages.iter().map(|c| 2 * c.outputs).sum();
        let judge_norms: usize = if self.judge_is_normed() { stages.iter().skip(1).map(|c| 2 * c.outputs).sum() } else { 0 };
        (of_layers(self.layers()) + of_layers(self.judging_layers()) + convolutions + generator_norms + judge_norms) as u64
    }

    /// Floating-point operations to train on one picture and one drawn: the generator forward and backward, and the discriminator on the
    /// picture, on the drawn one, and once more on it for the generator's sake, for which its weights need no gradient.
    pub fn flops(&self) -> f64 {
        let products = |layers: Vec<[usize; 2]>| layers.iter().map(|[read, give]| read * give).sum::<usize>() as f64;
        let convolutions: f64 = self.stages().iter().map(|c| (c.output().len() * c.depth()) as f64).sum();
        let (generator, judge) = (products(self.layers()) + convolutions, products(self.judging_layers()) + convolutions);
        6.0 * generator + 2.0 * 6.0 * judge + 4.0 * judge
    }

    /// Numbers that are kept for the backward pass, for one picture and one drawn.
    pub fn activations(&self) -> u64 {
        let stages: usize = self.stages().iter().map(|c| c.input.len() + 3 * c.output().len()).sum();
        let widths = |layers: Vec<[usize; 2]>| layers.iter().map(|[read, give]| read + give).sum::<usize>();
        (4 * stages + widths(self.layers()) + 3 * widths(self.judging_layers())) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_networks_mirror_each_other() {
        let mlp = GanConfig::new(GanForm::Mlp, [1, 28, 28], 100, &[], false);
        mlp.validate().unwrap();
        assert_eq!(mlp.layers(), [[100, 256], [256, 512], [512, 784]]);
        assert_eq!(mlp.judging_layers(), [[784, 512], [512, 256], [256, 1]]);
        let generator = 101 * 256 + 257 * 512 + 513 * 784;
        assert_eq!(mlp.parameters(), generator + 785 * 512 + 513 * 256 + 257);
        let dcgan = GanConfig::new(GanForm::Dcgan, [1, 28, 28], 64, &[], false);
        dcgan.validate().unwrap();
        let stages = dcgan.stages();
        assert_eq!(stages.iter().map(|stage| stage.output().len()).collect::<Vec<_>>(), [32 * 14 * 14, 64 * 7 * 7]);
        assert_eq!((dcgan.layers(), dcgan.judging_layers()), (vec![[64, 64 * 49]], vec![[64 * 49, 1]]));
        let weights = 2 * (32 * 16 + 64 * 32 * 16);
        let biases = 32 + 64 + 1 + 32;
        let norms = 2 * (64 + 32) + 2 * 64;
        assert_eq!(dcgan.parameters(), weights + biases + norms + 65 * 64 * 49 + 64 * 49 + 1);
        let spectral = GanConfig { spectral_norm: true, ..dcgan.clone() };
        assert_eq!(spectral.parameters(), dcgan.parameters() - 2 * 64);
        assert!(dcgan.flops() > 0.0 && dcgan.activations() > 784);
    }

    #[test]
    fn what_does_not_make_a_network_is_refused() {
        let check = |change: &dyn Fn(&mut GanConfig), says: &str| {
            let mut config = GanConfig::new(GanForm::Dcgan, [1, 28, 28], 64, &[], true);
            change(&mut config);
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        };
        check(&|c| c.widths = vec![8; 3], "multiples of 8");
        check(&|c| c.widths.clear(), "`widths`");
        check(&|c| c.widths[0] = 1 << 40, "`widths`");
        check(&|c| c.image_size = [1 << 30, 28], "`image_size`");
        check(&|c| c.num_channels = 4, "`num_channels`");
        check(&|c| c.latent_size = 0, "`latent_size`");
        check(&|c| c.model_type = "lenet".into(), "lenet");
        check(&|c| (c.form, c.image_size, c.widths) = (GanForm::Mlp, [4096, 4096], vec![1 << 16]), "too many");
    }
}
