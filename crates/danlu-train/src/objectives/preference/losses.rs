//! The losses on preferences, as functions of the answers' log-probabilities.

use burn::tensor::activation::{log_sigmoid, sigmoid};
use burn::tensor::{Tensor, TensorData};

use crate::recipe::{PreferenceLoss, PreferenceSpec};

/// Answers of one side of the pairs, or judged ones.
pub struct Answers {
    /// The log-probability of each answer under the model, in nats, `[answers]`.
    pub policy: Tensor<1>,
    /// The same under the start model; empty for losses that do without.
    pub reference: Vec<f32>,
    /// Tokens of each answer.
    pub lengths: Vec<f32>,
}

impl Answers {
    fn constant(&self, values: &[f32]) -> Tensor<1> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &self.policy.device())
    }

    /// What the loss calls an answer's score, `[answers]`: the log-probability, less the start model's where there is one, per token where
    /// the loss counts so.
    fn score(&self, loss: PreferenceLoss) -> Tensor<1> {
        let mut score = self.policy.clone();
        if loss.needs_reference() {
            score = score - self.constant(&self.reference);
        }
        if loss.per_token() {
            score = score / self.constant(&self.lengths);
        }
        score
    }

    /// The reward of each answer, which is β times its score.
    pub fn rewards(&self, spec: &PreferenceSpec) -> Tensor<1> {
        self.score(spec.loss) * spec.beta()
    }

    /// The mean negative log-likelihood of each answer's tokens, `[answers]`.
    fn nll(&self) -> Tensor<1> {
        -self.policy.clone() / self.constant(&self.lengths)
    }
}

/// The loss of each pair, `[pairs]`.
///
/// # Panics
/// For kto, which judges single answers.
pub fn pairs(spec: &PreferenceSpec, chosen: &Answers, rejected: &Answers) -> Tensor<1> {
    let (beta, smoothing) = (spec.beta(), spec.label_smoothing);
    let (better, worse) = (chosen.score(spec.loss), rejected.score(spec.loss));
    let smoothed = |margin: Tensor<1>| {
        let right = -log_sigmoid(margin.clone());
        if smoothing == 0.0 { right } else { right * (1.0 - smoothing) - log_sigmoid(-margin) * smoothing }
    };
    let loss = match spec.loss {
        PreferenceLoss::Dpo => smoothed((better - worse) * beta),
        PreferenceLoss::Ipo => (better - worse - 1.0 / (2.0 * beta)).square(),
        PreferenceLoss::Hinge => (-(better - worse) * beta + 1.0).clamp_min(0.0),
        PreferenceLoss::Robust => {
            let margin = (better - worse) * beta;
            let (right, wrong) = (-log_sigmoid(margin.clone()), -log_sigmoid(-margin));
            (right * (1.0 - smoothing) - wrong * smoothing) / (1.0 - 2.0 * smoothing)
        }
        PreferenceLoss::Simpo => smoothed((better - worse) * beta - spec.gamma),
        PreferenceLoss::Orpo => {
            let odds = better.clone() - worse.clone() - (log_one_minus_exp(better) - log_one_minus_exp(worse));
            -log_sigmoid(odds) * beta
        }
        PreferenceLoss::Kto => unreachable!("kto judges single answers"),
    };
    if spec.sft() == 0.0 { loss } else { loss + chosen.nll() * spec.sft() }
}

/// kto's loss of each answer, `[answers]`: how far its reward is from being clearly above (good) or below (bad) `kl`, the mean reward of
/// answers to other prompts in nats, which is no less than zero.
pub fn judged(spec: &PreferenceSpec, answers: &Answers, good: &[bool], kl: f64) -> Tensor<1> {
    let sign: Vec<f32> = good.iter().map(|&good| if good { 1.0 } else { -1.0 }).collect();
    let weight: Vec<f32> = good.iter().map(|&good| if good { spec.desirable } else { spec.undesirable } as f32).collect();
    let above = (answers.score(spec.loss) - kl.max(0.0)) * spec.beta() * answers.constant(&sign);
    let mut loss = (-sigmoid(above) + 1.0) * answers.constant(&weight);
    if spec.sft() != 0.0 {
        let learned: Vec<f32> = good.iter().map(|&good| if good { spec.sft() as f32 } else { 0.0 }).collect();
        loss = loss + answers.nll() * answers.constant(&learned);
    }
    loss
}

/// The reward model's loss of each pair, `[pairs]`: Bradley and Terry's, with the margin that somebody gave, and rewards drawn to zero
/// ([Touvron et al. 2023](https://arxiv.org/abs/2307.09288); [Eisenstein et al. 2023](https://arxiv.org/abs/2312.09244)).
pub fn bradley_terry(chosen: Tensor<1>, rejected: Tensor<1>, margins: &[f32], center: f64) -> Tensor<1> {
    let margins = Tensor::<1>::from_data(TensorData::new(margins.to_vec(), [margins.len()]), &chosen.device());
    let loss = -log_sigmoid(chosen.clone() - rejected.clone() - margins);
    if center == 0.0 { loss } else { loss + (chosen + rejected).square() * center }
}

/// ln(1 − eˣ) for x below zero. Near zero, 1 − eˣ loses its digits, so its series is taken there.
fn log_one_minus_exp(x: Tensor<1>) -> Tensor<1> {
    // A sure answer has the log-probability zero, where the odds are infinite.
    let x = x.clamp_max(-1e-6);
    let near = x.clone().greater_elem(-1e-2);
    let series = -x.clone() * (x.clone() / 2.0 + x.clone().square() / 6.0 + 1.0);
    let plain = -x.clone().mask_fill(near.clone(), -1.0).exp() + 1.0;
    plain.mask_where(near, series).log()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn numbers(count: usize, seed: u64, low: f32, high: f32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                low + (high - low) * ((state >> 40) as f32 / (1u64 << 24) as f32)
            })
            .collect()
    }

    fn leaf(values: &[f32]) -> Tensor<1> {
        Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), &Device::flex().autodiff()).require_grad()
    }

    /// The derivatives of the sum of losses by the log-probabilities are those that small steps show.
    #[track_caller]
    fn check_gradient(what: &str, inputs: [Vec<f32>; 2], f: impl Fn([Tensor<1>; 2]) -> Tensor<1>) {
        let leaves = inputs.each_ref().map(|x| leaf(x));
        let mut gradients = f(leaves.clone()).sum().backward();
        for (side, values) in inputs.iter().enumerate() {
            let found: Vec<f32> = leaves[side].grad_remove(&mut gradients).unwrap().into_data().try_into_vec().unwrap();
            for i in 0..values.len() {
                // Wide enough that rounding in 32 bits is small beside it; the losses are smooth, so the error goes with its square.
                let step = 2e-2 * values[i].abs().clamp(0.05, 1.0);
                let at = |by: f32| -> f64 {
                    let mut moved = inputs.clone();
                    moved[side][i] += by;
                    let each: Vec<f32> = f(moved.each_ref().map(|x| leaf(x))).inner().into_data().try_into_vec().unwrap();
                    each.iter().map(|&x| f64::from(x)).sum()
                };
                let slope = (at(step) - at(-step)) / (2.0 * f64::from(step));
                let found = f64::from(found[i]);
                assert!(
                    (slope - found).abs() <= 3e-3 * slope.abs().max(0.05),
                    "{what}, side {side}, answer {i}: {found} is {slope}"
                );
            }
        }
    }

    const LENGTHS: [f32; 5] = [3.0, 8.0, 5.0, 2.0, 11.0];

    fn sides(policy: [Tensor<1>; 2]) -> [Answers; 2] {
        let mut seed = 10;
        policy.map(|policy| {
            seed += 1;
            Answers { policy, reference: numbers(5, seed, -9.0, -1.0), lengths: LENGTHS.to_vec() }
        })
    }

    fn policies() -> [Vec<f32>; 2] {
        [numbers(5, 1, -9.0, -1.0), numbers(5, 2, -9.0, -1.0)]
    }

    #[test]
    fn every_loss_has_the_gradient_of_its_differences() {
        use PreferenceLoss::*;
        for loss in [Dpo, Ipo, Hinge, Robust, Simpo, Orpo] {
            for label_smoothing in [0.0, 0.1] {
                for sft in [None, Some(0.3)] {
                    let spec = PreferenceSpec { loss, label_smoothing, sft, beta: Some(0.3), ..PreferenceSpec::default() };
                    check_gradient(&format!("{loss:?} {label_smoothing} {sft:?}"), policies(), |policy| {
                        let [chosen, rejected] = sides(policy);
                        pairs(&spec, &chosen, &rejected)
                    });
                }
            }
        }
        let good = [true, false, false, true, true];
        for (desirable, sft) in [(1.0, None), (1.4, Some(0.2))] {
            let spec = PreferenceSpec { loss: Kto, desirable, sft, beta: Some(0.3), ..PreferenceSpec::default() };
            check_gradient("kto", policies(), |policy| {
                let [answers, others] = sides(policy);
                judged(&spec, &answers, &good, 0.7) + others.policy * 0.0
            });
        }
        for center in [0.0, 0.05] {
            let margins = numbers(5, 7, 0.0, 1.0);
            check_gradient("bradley_terry", policies(), |[chosen, rejected]| bradley_terry(chosen, rejected, &margins, center));
        }
    }

    #[test]
    fn losses_are_what_the_papers_say() {
        // One pair: log-ratios 2 and −1, three and eight tokens.
        let side = |policy: f32, reference: f32, length: f32| Answers {
            policy: leaf(&[policy]),
            reference: vec![reference],
            lengths: vec![length],
        };
        let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
        let check = |spec: PreferenceSpec, want: f64| {
            let found = pairs(&spec, &side(-4.0, -6.0, 3.0), &side(-9.0, -8.0, 8.0)).inner().into_scalar::<f32>();
            assert!((f64::from(found) - want).abs() < 1e-5, "{:?}: {found} is {want}", spec.loss);
        };
        let spec = |loss| PreferenceSpec { loss, beta: Some(0.5), label_smoothing: 0.1, gamma: 0.7, ..PreferenceSpec::default() };
        let (right, wrong) = (-sigma(1.5).ln(), -sigma(-1.5).ln());
        check(PreferenceSpec { label_smoothing: 0.0, ..spec(PreferenceLoss::Dpo) }, right);
        check(spec(PreferenceLoss::Dpo), 0.9 * right + 0.1 * wrong);
        check(spec(PreferenceLoss::Robust), (0.9 * right - 0.1 * wrong) / 0.8);
        check(spec(PreferenceLoss::Hinge), 0.0);
        check(spec(PreferenceLoss::Ipo), (2.0 / 3.0 + 1.0 / 8.0 - 1.0f64).powi(2));
        let (chosen, rejected) = (-4.0 / 3.0f64, -9.0 / 8.0f64);
        let margin = 0.5 * (chosen - rejected) - 0.7;
        check(spec(PreferenceLoss::Simpo), -0.9 * sigma(margin).ln() - 0.1 * sigma(-margin).ln());
        let odds = |x: f64| (x.exp() / (1.0 - x.exp())).ln();
        check(spec(PreferenceLoss::Orpo), -0.5 * sigma(odds(chosen) - odds(rejected)).ln() + 4.0 / 3.0);
        let kto = judged(&spec(PreferenceLoss::Kto), &side(-4.0, -6.0, 3.0), &[true], -3.0).inner().into_scalar::<f32>();
        assert!((f64::from(kto) - (1.0 - sigma(1.0))).abs() < 1e-6, "a mean reward below zero counts as zero");
    }

    #[test]
    fn the_logarithm_of_one_minus_an_exponential_keeps_its_digits() {
        for x in [-1e-5f32, -1e-3, -9.9e-3, -1.01e-2, -0.5, -3.0, -30.0] {
            let found = log_one_minus_exp(leaf(&[x])).inner().into_scalar::<f32>();
            let want = (-f64::from(x).exp_m1()).ln();
            assert!((f64::from(found) - want).abs() <= 2e-5 * want.abs().max(1e-2), "{x}: {found} is {want}");
        }
        assert!(log_one_minus_exp(leaf(&[0.0])).inner().into_scalar::<f32>().is_finite());
    }
}
