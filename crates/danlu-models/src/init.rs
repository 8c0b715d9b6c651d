//! Initial values, a pure function of (seed, parameter's name): the same on any number of threads and in any order.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a parameter starts as, from its name: scales at one, biases at zero, matrices normal with `range`, and those that write to the
/// residual stream normal with `range / sqrt(2 × layers)`, so that the stream's variance does not grow with depth
/// ([Radford et al. 2019](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf), 2.3).
pub(crate) fn values(seed: u64, name: &str, shape: &[usize], range: f64, layers: usize) -> Vec<f32> {
    let count = shape.iter().product();
    if name.ends_with(".bias") {
        return vec![0.0; count];
    }
    if shape.len() == 1 {
        return vec![1.0; count];
    }
    let residual = ["o_proj.weight", "down_proj.weight", "c_proj.weight"].iter().any(|end| name.ends_with(end));
    let deviation = if residual { range / (2.0 * layers as f64).sqrt() } else { range };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(fnv(name));
    normal(&mut rng, deviation, count)
}

/// Uniform in `-bound..bound`.
pub(crate) fn uniform(seed: u64, name: &str, bound: f64, count: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(fnv(name));
    (0..count).map(|_| ((2.0 * rng.random::<f64>() - 1.0) * bound) as f32).collect()
}

/// `count` draws below `end`.
pub(crate) fn indices(seed: u64, name: &str, end: usize, count: usize) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(fnv(name));
    (0..count).map(|_| rng.random_range(0..end)).collect()
}

/// Box and Muller's transform: two normal values from two uniform ones.
pub(crate) fn normal(rng: &mut ChaCha8Rng, deviation: f64, count: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // In (0, 1], so that the logarithm is finite.
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * deviation;
        let (sin, cos) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
        values.push((radius * cos) as f32);
        values.push((radius * sin) as f32);
    }
    values.truncate(count);
    values
}

/// Fowler, Noll and Vo's hash (1a, 64 bits): stable over versions, which the standard library's is not.
fn fnv(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_depend_on_seed_and_name_only_and_have_the_stated_deviation() {
        let draw = |seed, name: &str| values(seed, name, &[200, 300], 0.02, 8);
        assert_eq!(draw(1, "a.weight"), draw(1, "a.weight"));
        assert_ne!(draw(1, "a.weight"), draw(2, "a.weight"));
        assert_ne!(draw(1, "a.weight"), draw(1, "b.weight"));
        let check = |name: &str, deviation: f64| {
            let values = draw(3, name);
            let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / 6e4;
            let variance = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / 6e4;
            // Five standard errors of the mean and of the deviation of 60,000 draws.
            assert!(mean.abs() < 5.0 * deviation / 6e4_f64.sqrt(), "{name}: mean {mean}");
            assert!((variance.sqrt() / deviation - 1.0).abs() < 5.0 / 1.2e5_f64.sqrt(), "{name}: deviation {}", variance.sqrt());
        };
        check("model.layers.0.self_attn.q_proj.weight", 0.02);
        check("model.layers.0.mlp.down_proj.weight", 0.02 / 4.0);
        assert_eq!(values(1, "norm.weight", &[3], 0.02, 1), [1.0; 3]);
        assert_eq!(values(1, "c_attn.bias", &[3], 0.02, 1), [0.0; 3]);
    }
}
