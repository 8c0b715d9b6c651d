//! How much better an answer, or a token, was than was to be expected.

use std::ops::Range;

use crate::recipe::AdvantageScale;

/// Added to a deviation before it divides, as in TRL.
const LEAST_DEVIATION: f64 = 1e-4;

/// The rewards of answers, less the mean of their group, by what `scale` says. Groups follow one another, each of `samples`.
pub fn grouped(rewards: &[f64], samples: usize, scale: AdvantageScale) -> Vec<f64> {
    let all = deviation(rewards);
    let one = |group: &[f64]| {
        let by = match scale {
            AdvantageScale::Group => deviation(group) + LEAST_DEVIATION,
            AdvantageScale::Batch => all + LEAST_DEVIATION,
            AdvantageScale::None => 1.0,
        };
        let centre = mean(group);
        group.iter().map(|reward| (reward - centre) / by).collect::<Vec<_>>()
    };
    rewards.chunks(samples.max(1)).flat_map(one).collect()
}

/// The rewards of answers, less the mean of the others of their group ([Ahmadian et al. 2024](https://arxiv.org/abs/2402.14740)).
pub fn leave_one_out(rewards: &[f64], samples: usize) -> Vec<f64> {
    let one = |group: &[f64]| {
        let (sum, others) = (group.iter().sum::<f64>(), group.len().saturating_sub(1));
        let less = |reward: &f64| if others == 0 { 0.0 } else { reward - (sum - reward) / others as f64 };
        group.iter().map(less).collect::<Vec<_>>()
    };
    rewards.chunks(samples.max(1)).flat_map(one).collect()
}

/// Advantages and returns of the tokens of one answer, from the reward of each and the value before each
/// ([Schulman et al. 2015](https://arxiv.org/abs/1506.02438)).
pub fn gae(rewards: &[f64], values: &[f64], gamma: f64, lambda: f64) -> (Vec<f64>, Vec<f64>) {
    let mut advantages = vec![0.0; rewards.len()];
    let (mut later, mut next) = (0.0, 0.0);
    for t in (0..rewards.len()).rev() {
        let surprise = rewards[t] + gamma * next - values[t];
        later = surprise + gamma * lambda * later;
        advantages[t] = later;
        next = values[t];
    }
    let returns = advantages.iter().zip(values).map(|(advantage, value)| advantage + value).collect();
    (advantages, returns)
}

/// Moves numbers to mean zero and variance one.
pub fn whiten(numbers: &mut [f64]) {
    let (centre, deviation) = (mean(numbers), deviation(numbers));
    let by = (deviation * deviation + 1e-8).sqrt();
    numbers.iter_mut().for_each(|number| *number = (*number - centre) / by);
}

/// Whether the answers of each group differ in what they are worth, so that something can be learned from them.
pub fn useful(rewards: &[f64], samples: usize) -> Vec<bool> {
    let differ = |group: &[f64]| group.iter().any(|reward| *reward != group[0]);
    rewards.chunks(samples.max(1)).map(differ).collect()
}

pub fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len().max(1) as f64
}

/// The standard deviation of what the numbers are a sample of; zero for one number.
pub fn deviation(numbers: &[f64]) -> f64 {
    let centre = mean(numbers);
    let squares: f64 = numbers.iter().map(|number| (number - centre).powi(2)).sum();
    (squares / numbers.len().saturating_sub(1).max(1) as f64).sqrt()
}

/// The tokens of each answer, when answers of these lengths follow one another.
pub fn spans(lengths: impl IntoIterator<Item = usize>) -> Vec<Range<usize>> {
    let mut begin = 0;
    let span = |length| {
        begin += length;
        begin - length..begin
    };
    lengths.into_iter().map(span).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn near(found: &[f64], want: &[f64]) {
        let close = found.len() == want.len() && found.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(close, "{found:?} is {want:?}");
    }

    #[test]
    fn groups_are_compared_within_themselves() {
        let rewards = [1.0, 0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 2.0];
        near(&grouped(&rewards, 4, AdvantageScale::None), &[0.75, -0.25, -0.25, -0.25, 0.0, 0.0, 0.0, 0.0]);
        near(&grouped(&rewards[..4], 4, AdvantageScale::Group), &[0.75, -0.25, -0.25, -0.25].map(|x| x / (0.5 + 1e-4)));
        let all = deviation(&rewards) + 1e-4;
        near(&grouped(&rewards, 4, AdvantageScale::Batch)[..2], &[0.75 / all, -0.25 / all]);
        near(&leave_one_out(&rewards, 4)[..5], &[1.0, -1.0 / 3.0, -1.0 / 3.0, -1.0 / 3.0, 0.0]);
        near(&leave_one_out(&[3.0], 1), &[0.0]);
        assert_eq!(useful(&rewards, 4), [true, false]);
    }

    #[test]
    fn generalised_advantages_are_between_one_step_and_all() {
        let (rewards, values) = ([0.0, 0.0, 1.0], [0.5, 0.2, 0.6]);
        let (one, returns) = gae(&rewards, &values, 1.0, 0.0);
        near(&one, &[-0.3, 0.4, 0.4]);
        near(&returns, &[0.2, 0.6, 1.0]);
        near(&gae(&rewards, &values, 1.0, 1.0).0, &[0.5, 0.8, 0.4]);
        near(&gae(&rewards, &values, 0.9, 0.5).0, &[0.18 - 0.5 + 0.45 * (0.54 - 0.2 + 0.45 * 0.4), 0.34 + 0.45 * 0.4, 0.4]);
    }

    #[test]
    fn whitened_numbers_have_mean_zero_and_variance_one() {
        let mut numbers = [1.0, 2.0, 4.0, 9.0];
        whiten(&mut numbers);
        assert!(mean(&numbers).abs() < 1e-12 && (deviation(&numbers) - 1.0).abs() < 1e-6);
        let mut alike = [3.0; 4];
        whiten(&mut alike);
        near(&alike, &[0.0; 4]);
    }
}
