use burn::tensor::{Device, Tensor};

use super::*;
use crate::optim::adamw_step;
use crate::tests::{as_elsewhere, elsewhere, numbers, tensor, to_vec};

const OPTIONS: AdamW = AdamW { rate: 0.05, beta1: 0.9, beta2: 0.95, epsilon: 1e-10, weight_decay: 0.0 };

fn codes(moment: &Int8Moment) -> Vec<u8> {
    moment.codes.clone().into_data().try_into_vec().unwrap()
}

/// AdamW with moments of either kind on one row of weights.
#[allow(clippy::large_enum_variant, reason = "there are two of these")]
enum Run {
    Wide(Tensor<2>, [Tensor<2>; 2]),
    Int8(Tensor<2>, [Int8Moment; 2]),
}

impl Run {
    fn both(weights: &[f32]) -> [Run; 2] {
        let (len, device) = (weights.len(), Device::flex());
        let weight = Tensor::<2>::from_data(TensorData::new(weights.to_vec(), [1, len]), &device);
        let zeros = || Tensor::zeros([1, len], &device);
        [Run::Wide(weight.clone(), [zeros(), zeros()]), Run::Int8(weight, Int8Moment::zeros(len, &device))]
    }

    fn step(self, gradient: Vec<f32>, step: u64, options: &AdamW) -> Run {
        let len = gradient.len();
        let gradient = Tensor::from_data(TensorData::new(gradient, [1, len]), &Device::flex());
        match self {
            Run::Wide(weight, moments) => {
                let (weight, moments) = adamw_step(weight, gradient, moments, step, 1.0, options);
                Run::Wide(weight, moments)
            }
            Run::Int8(weight, moments) => {
                let (weight, moments) = adamw_int8_step(weight, gradient, moments, step, 1.0, options);
                Run::Int8(weight, moments)
            }
        }
    }

    fn weights(&self) -> Vec<f32> {
        match self {
            Run::Wide(weight, _) | Run::Int8(weight, _) => to_vec(weight.clone()),
        }
    }
}

/// The root of the mean square of a difference.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    (squares / a.len() as f64).sqrt()
}

#[test]
fn the_cpu_form_is_the_plain_form_to_the_bit() {
    let (options, device) = (AdamW { weight_decay: 0.1, ..OPTIONS }, Device::flex());
    // One value, less than a block, whole blocks, a piece and a part of a block.
    for shape in [[1, 1], [7, 5], [16, 256], [300, 257]] {
        let start = || (tensor(shape, 1, &device), Int8Moment::zeros(shape[0] * shape[1], &device));
        let (mut ours, mut plain) = (start(), start());
        for step in 1..8 {
            let gradient = tensor(shape, 10 + step, &device);
            ours = adamw_int8_step(ours.0, gradient.clone(), ours.1, step, 0.5, &options);
            let (weight, moments) = plain;
            plain = as_elsewhere(|| adamw_int8_step(weight, gradient, moments, step, 0.5, &options));
            for (ours, plain) in ours.1.iter().zip(&plain.1) {
                assert_eq!(codes(ours), codes(plain), "{shape:?} step {step}");
                assert_eq!(to_vec(ours.scales.clone()), to_vec(plain.scales.clone()), "{shape:?} step {step}");
            }
            assert_eq!(to_vec(ours.0.clone()), to_vec(plain.0.clone()), "{shape:?} step {step}");
        }
    }
}

#[test]
fn floors_and_bytes_are_exact() {
    for i in 0..=255u8 {
        let x = f32::from(i);
        assert_eq!(byte(x), i);
        for x in [x, x.next_down().max(0.0), x.next_up(), x + 0.25, x + 0.5, x + 0.75] {
            assert_eq!(floor(x), x.floor(), "{x}");
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let (len, blocks) = (1000, 4);
    let run = |isa: Isa| {
        let mut w = numbers(len, 1);
        let (mut codes, mut scales) = ([vec![MIDDLE as u8; len], vec![0; len]], [vec![0.0; blocks], vec![0.0; blocks]]);
        for step in 1..8 {
            let ([m, v], [m_scales, v_scales]) = (&mut codes, &mut scales);
            let constants = Constants::new(step, 1.0, &OPTIONS);
            let along = ALONG.map(|along| offset(step, along));
            update(isa, &mut w, &numbers(len, 10 + step), (m, m_scales), (v, v_scales), constants, along);
        }
        (w, codes, scales)
    };
    let first = run(Isa::Portable);
    for isa in Isa::available() {
        assert_eq!(run(isa), first, "{isa:?}");
    }
}

/// Where the device under test has bytes, its steps are the CPU's up to roundings that fall on the other side.
#[test]
fn steps_elsewhere_are_those_of_the_cpu() {
    let (device, _) = elsewhere();
    if !has_int8_moments(&device) {
        return;
    }
    let shape = [200, 130];
    let run = |device: &Device| {
        let mut run = (tensor(shape, 1, device), Int8Moment::zeros(shape[0] * shape[1], device));
        for step in 1..4 {
            run = adamw_int8_step(run.0, tensor(shape, 10 + step, device), run.1, step, 0.5, &OPTIONS);
        }
        to_vec(run.0)
    };
    let far = distance(&as_elsewhere(|| run(&device)), &run(&Device::flex()));
    assert!(far < 1e-4, "{far}");
}

/// Least squares with a minimum of its own for each weight and curvatures, and so gradients, over three and over six decades within each
/// block: eight bits follow 32 and end as near to the minimum, with and without noise in the gradients and for a fast and a slow decay.
#[test]
fn a_convex_problem_is_solved_as_with_32_bits() {
    let (len, steps) = (8200, 300);
    let goal: Vec<f32> = numbers(len, 7).iter().map(|x| 2.0 * x).collect();
    // Of the distance gone after 60 steps, how far the two are apart.
    for (decades, apart) in [(1.5, 0.05), (3.0, 0.15)] {
        let curvature: Vec<f32> = numbers(len, 8).iter().map(|x| 10f32.powf(decades * x)).collect();
        for (beta2, noise) in [(0.95, 0.0), (0.95, 0.5), (0.999, 0.0), (0.999, 0.5)] {
            let mut runs = Run::both(&vec![0.0; len]);
            for step in 1..=steps {
                let rate = OPTIONS.rate * (1.0 - (step - 1) as f64 / steps as f64);
                let options = AdamW { rate, beta2, ..OPTIONS };
                let random = numbers(len, 1000 + step);
                runs = runs.map(|run| {
                    let weights = run.weights();
                    let gradient = (0..len).map(|i| curvature[i] * (weights[i] - goal[i] + noise * random[i])).collect();
                    run.step(gradient, step, &options)
                });
                if step == 60 {
                    let [wide, int8] = runs.each_ref().map(Run::weights);
                    let (far, moved) = (distance(&wide, &int8), distance(&wide, &vec![0.0; len]));
                    assert!(far <= apart * moved, "{decades} decades, beta2 {beta2}, noise {noise}: {far} apart after {moved}");
                }
            }
            let [wide, int8] = runs.map(|run| distance(&run.weights(), &goal));
            let bound = 1.15 * wide + 5e-3;
            assert!(int8 <= bound, "{decades} decades, beta2 {beta2}, noise {noise}: {int8} from the minimum, 32 bits {wide}");
        }
    }
}

#[test]
fn zero_gradients_move_nothing_and_a_second_moment_never_becomes_zero() {
    let len = 700;
    let zeros = || vec![0.0; len];
    let start = numbers(len, 1);
    let [_, mut run] = Run::both(&start);
    for step in 1..4 {
        run = run.step(zeros(), step, &OPTIONS);
    }
    assert_eq!(run.weights(), start);
    let Run::Int8(_, moments) = &run else { unreachable!() };
    assert_eq!(moments.each_ref().map(codes), [vec![128; len], vec![0; len]]);
    // Decay alone is as with 32 bits.
    let decays = AdamW { weight_decay: 0.1, ..OPTIONS };
    let [wide, int8] = Run::both(&start).map(|run| run.step(zeros(), 1, &decays).weights());
    assert_eq!(wide, int8);

    let mut runs = Run::both(&start);
    let mut last = vec![];
    for step in 1..1200 {
        let gradient = if step < 5 { numbers(len, 20 + step) } else { zeros() };
        runs = runs.map(|run| run.step(gradient.clone(), step, &OPTIONS));
        if step == 600 {
            last = runs[1].weights();
        }
    }
    let [wide, int8] = runs.each_ref().map(Run::weights);
    assert!(distance(&wide, &int8) < 0.03 * distance(&wide, &start), "{} apart", distance(&wide, &int8));
    assert!(distance(&int8, &last) < 1e-6, "weights still move long after the last gradient");
    let Run::Int8(_, [_, second]) = &runs[1] else { unreachable!() };
    // A number of the random ones may be zero itself.
    assert!(codes(second).iter().filter(|&&code| code < LEAST as u8).count() <= 1);
}

/// Gradients of any size, alone and side by side in a block, give steps no larger than AdamW's bound allows.
#[test]
fn huge_and_tiny_gradients_are_followed() {
    let len = 600;
    let options = AdamW { epsilon: 1e-16, ..OPTIONS };
    for size in [1e-12f32, 1e-6, 1e6, 1e15] {
        let mut runs = Run::both(&vec![0.0; len]);
        for step in 1..=60 {
            let gradient: Vec<f32> = numbers(len, step).iter().map(|x| size * (x + 0.3)).collect();
            runs = runs.map(|run| run.step(gradient.clone(), step, &options));
        }
        let [wide, int8] = runs.each_ref().map(Run::weights);
        let (far, moved) = (distance(&wide, &int8), distance(&wide, &vec![0.0; len]));
        assert!(far < 0.05 * moved, "{size}: {far} apart after {moved}");
    }
    let [_, mut run] = Run::both(&vec![0.0; len]);
    let mut before = vec![0.0; len];
    for step in 1..=60 {
        // Each value has a size of its own, and at one step all grow a thousandfold.
        let grown = if step > 30 { 1e3 } else { 1.0 };
        let sized = |(i, x): (usize, &f32)| grown * 10f32.powi((i % 25) as i32 - 12) * x;
        run = run.step(numbers(len, step).iter().enumerate().map(sized).collect(), step, &options);
        let after = run.weights();
        let largest = before.iter().zip(&after).fold(0.0f32, |largest, (a, b)| largest.max((a - b).abs()));
        assert!(largest.is_finite() && f64::from(largest) < 4.0 * options.rate, "step {step} moves by {largest}");
        before = after;
    }
}
