//! Losses that tell identities apart by angles, with a margin.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, TensorData};
use danlu_ops::Ids;

use crate::recipe::MarginLoss;

/// Sines are no smaller than the root of this, below which their slope is of rounding.
const LEAST: f64 = 1e-6;

/// How far apart identities are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Margin {
    pub loss: MarginLoss,
    /// Added to the angle, in radians, or taken from its cosine.
    pub margin: f64,
    /// What cosines are multiplied by before the softmax.
    pub scale: f64,
}

/// The mean cross-entropy, `[1]`, of the softmax over `scale` times the cosines `[pictures, identities]`, in which the angle θ between a
/// picture and its own identity is made larger: its cosine counts as cos(θ + margin)
/// ([ArcFace](https://arxiv.org/abs/1801.07698), Deng et al. 2019, 3), or as cos θ − margin
/// ([CosFace](https://arxiv.org/abs/1801.09414), Wang et al. 2018, 3.1). Where θ + margin is more than a half turn, from which the cosine
/// would grow again, ArcFace goes on as cos θ − margin · sin margin, as its authors' code does.
pub fn margin_loss(cosines: Tensor<2>, labels: &Ids, Margin { loss, margin, scale }: Margin) -> Tensor<1> {
    let [count, identities] = cosines.dims();
    let mut own = vec![0.0f32; count * identities];
    labels.iter().enumerate().for_each(|(row, &label)| own[row * identities + label as usize] = 1.0);
    let own: Tensor<2> = Tensor::from_data(TensorData::new(own, [count, identities]), &cosines.device());
    let cosine = (cosines.clone() * own.clone()).sum_dim(1);
    let harder = match loss {
        MarginLoss::Cosface => cosine.clone() - margin,
        MarginLoss::Arcface => {
            let sine = (-cosine.clone().square() + 1.0).clamp_min(LEAST).sqrt();
            let turned = cosine.clone() * margin.cos() - sine * margin.sin();
            turned.mask_where(cosine.clone().lower_elem(-margin.cos()), cosine.clone() - margin * margin.sin())
        }
    };
    let logits = (cosines + own.clone() * (harder - cosine)) * scale;
    -(log_softmax(logits, 1) * own).sum_dim(1).mean()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// The loss of cosines by its definition.
    fn plain(cosines: &[f64], labels: &[u32], Margin { loss, margin, scale }: Margin) -> f64 {
        let each = cosines.len() / labels.len();
        let of = |(row, &label): (&[f64], &u32)| {
            let own = row[label as usize];
            let harder = match loss {
                MarginLoss::Cosface => own - margin,
                MarginLoss::Arcface if own.acos() + margin > std::f64::consts::PI => own - margin * margin.sin(),
                MarginLoss::Arcface => (own.acos() + margin).cos(),
            };
            let exponentials = row.iter().enumerate().map(|(i, &x)| (scale * if i == label as usize { harder } else { x }).exp());
            exponentials.sum::<f64>().ln() - scale * harder
        };
        cosines.chunks(each).zip(labels).map(of).sum::<f64>() / labels.len() as f64
    }

    #[test]
    fn losses_and_gradients_are_those_of_their_definition() {
        // Angles to the own identity: usual, obtuse, and so far that the margin would go beyond a half turn.
        let cosines = [0.7, -0.1, 0.3, 0.2, -0.4, 0.5, -0.95, 0.1, 0.0];
        let labels = [0, 1, 0];
        let device = Device::flex().autodiff();
        for (loss, margin) in [(MarginLoss::Arcface, 0.5), (MarginLoss::Cosface, 0.35), (MarginLoss::Arcface, 0.0)] {
            let with = Margin { loss, margin, scale: 8.0 };
            let values: Vec<f32> = cosines.iter().map(|&x| x as f32).collect();
            let x: Tensor<2> = Tensor::from_data(TensorData::new(values, [3, 3]), &device).require_grad();
            let found = margin_loss(x.clone(), &labels.into(), with);
            let gradients = found.backward();
            let (expected, found) = (plain(&cosines, &labels, with), f64::from(found.into_scalar::<f32>()));
            assert!((found - expected).abs() < 1e-4, "{with:?}: {found}, by definition {expected}");
            let gradient: Vec<f32> = x.grad(&gradients).unwrap().into_data().iter::<f32>().collect();
            for (i, &gradient) in gradient.iter().enumerate() {
                let moved = |by: f64| {
                    let mut cosines = cosines;
                    cosines[i] += by;
                    plain(&cosines, &labels, with)
                };
                let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((f64::from(gradient) - slope).abs() < 1e-3, "{with:?} at {i}: {gradient}, by differences {slope}");
            }
        }
        // A margin makes it harder.
        let of = |margin: f64| plain(&cosines, &labels, Margin { loss: MarginLoss::Arcface, margin, scale: 8.0 });
        assert!(of(0.5) > of(0.2) && of(0.2) > of(0.0));
    }
}
