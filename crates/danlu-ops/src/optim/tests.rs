use burn::tensor::{Device, Tensor};

use super::*;
use crate::read_scalars;
use crate::tests::{as_elsewhere, elsewhere, tensor, to_vec};

fn assert_close(got: Vec<f32>, want: Vec<f32>, tolerance: f32) {
    let size = want.iter().fold(1e-3f32, |size, x| size.max(x.abs()));
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        assert!((got - want).abs() <= tolerance * size, "{i}: {got} instead of {want}");
    }
}

#[test]
fn adamw_is_its_plain_form_over_several_steps() {
    let options = AdamW { rate: 1e-2, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 };
    let device = Device::flex();
    for shape in [[1, 1], [7, 5], [300, 257]] {
        let zeros = || [Tensor::<2>::zeros(shape, &device), Tensor::zeros(shape, &device)];
        let mut ours = (tensor(shape, 1, &device), zeros());
        let mut plain = (tensor(shape, 1, &device), zeros());
        for step in 1..5 {
            let gradient = tensor(shape, 10 + step, &device);
            ours = adamw_step(ours.0, gradient.clone(), ours.1, step, 0.5, &options);
            plain = adamw::plain(plain.0, gradient, plain.1, step, 0.5, &options);
        }
        assert_close(to_vec(ours.0), to_vec(plain.0), 1e-5);
        for (ours, plain) in ours.1.into_iter().zip(plain.1) {
            assert_close(to_vec(ours), to_vec(plain), 1e-5);
        }
    }
}

#[test]
fn a_step_changes_in_place_what_nothing_else_holds_and_copies_what_something_does() {
    let options = AdamW { rate: 0.1, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.0 };
    let device = Device::flex();
    let address = |x: &Tensor<2>| crate::bridge::values(&crate::bridge::primitive(x.clone())).as_ptr();
    let moments = || [Tensor::<2>::zeros([4, 4], &device), Tensor::zeros([4, 4], &device)];
    let weight = tensor([4, 4], 1, &device);
    let before = address(&weight);
    let (weight, _) = adamw_step(weight, tensor([4, 4], 2, &device), moments(), 1, 1.0, &options);
    assert_eq!(address(&weight), before);
    let (kept, was) = (weight.clone(), to_vec(weight.clone()));
    let (weight, _) = adamw_step(weight, tensor([4, 4], 2, &device), moments(), 1, 1.0, &options);
    assert_eq!(to_vec(kept), was);
    assert_ne!(to_vec(weight), was);
}

#[test]
fn muon_is_its_plain_form_and_its_update_is_nearly_orthogonal() {
    let options = Muon { rate: 0.02, momentum: 0.95, weight_decay: 0.1, iterations: 5 };
    let device = Device::flex();
    for shape in [[8, 8], [40, 17], [17, 40], [200, 130]] {
        let mut ours = (tensor(shape, 1, &device), Tensor::<2>::zeros(shape, &device));
        let mut plain = ours.clone();
        for step in 0..3 {
            let gradient = tensor(shape, 10 + step, &device);
            ours = muon_step(ours.0, gradient.clone(), ours.1, 2.0, &options);
            plain = muon::plain(plain.0, gradient, plain.1, 2.0, &options);
        }
        assert_close(to_vec(ours.0), to_vec(plain.0), 1e-4);
        assert_close(to_vec(ours.1), to_vec(plain.1), 1e-5);
        // From zero, one step of rate one is the orthogonal update itself.
        let once = Muon { rate: 1.0, weight_decay: 0.0, ..options };
        let zeros = Tensor::<2>::zeros(shape, &device);
        let (update, _) = muon_step(zeros.clone(), tensor(shape, 3, &device), zeros, 1.0, &once);
        let size = (read_scalars(vec![square_sum(&update)])[0] / shape.iter().min().copied().unwrap() as f64).sqrt();
        let expect = 0.2 * (shape.iter().max().copied().unwrap() as f64).sqrt();
        assert!((0.6..1.3).contains(&(size / expect)), "{shape:?}: singular values about {size}, expected about {expect}");
    }
}

#[test]
fn the_global_norm_is_that_of_everything_together() {
    let device = Device::flex();
    let parts = [tensor([300, 257], 1, &device), tensor([1, 3], 2, &device)];
    let want: f64 = parts.iter().flat_map(|x| to_vec(x.clone())).map(|x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    let got = global_norm(read_scalars(parts.iter().map(square_sum).collect()));
    assert!((got - want).abs() < 1e-5 * want, "{got} instead of {want}");
    let narrowed = parts[0].clone().narrow(0, 3, 5).transpose();
    let [ours, plain] = read_scalars(vec![square_sum(&narrowed), norm::plain(narrowed.clone())])[..] else { unreachable!() };
    assert!((ours - plain).abs() < 1e-3);
}

/// Other devices move the weights as the CPU does, and read several sums of squares at once.
#[test]
fn steps_elsewhere_are_those_of_the_cpu() {
    let (device, tolerance) = elsewhere();
    let adamw = AdamW { rate: 1e-2, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 };
    let muon = Muon { rate: 0.02, momentum: 0.95, weight_decay: 0.1, iterations: 5 };
    let shape = [200, 130];
    let run = |device: &Device| {
        let zeros = || Tensor::<2>::zeros(shape, device);
        let (mut a, mut m) = ((tensor(shape, 1, device), [zeros(), zeros()]), (tensor(shape, 1, device), zeros()));
        let mut squares = vec![];
        for step in 1..4 {
            let gradient = tensor(shape, 10 + step, device);
            squares.push(square_sum(&gradient));
            a = adamw_step(a.0, gradient.clone(), a.1, step, 0.5, &adamw);
            m = muon_step(m.0, gradient, m.1, 2.0, &muon);
        }
        (to_vec(a.0), to_vec(m.0), read_scalars(squares))
    };
    let ((a, m, squares), found) = (run(&Device::flex()), as_elsewhere(|| run(&device)));
    assert_close(found.0, a, 1e-5);
    assert_close(found.1, m, 1e-4_f32.max(tolerance as f32));
    for (found, square) in found.2.into_iter().zip(squares) {
        assert!((found - square).abs() <= 1e-5 * square, "{found} instead of {square}");
    }
}
