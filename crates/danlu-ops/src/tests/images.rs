//! Operations on images.

use super::{as_elsewhere, assert_close, check, elsewhere, evaluate, numbers, to_vec, vector};
use burn::tensor::{Device, Tensor};

use crate::unit::Kind;
use crate::{Convolution, Planes, Pooling, Window};

/// [`check`] for functions with kinks, which finite differences and rounding to bfloat16 fall over.
#[track_caller]
fn check_kinked(
    name: &str,
    shape: [usize; 2],
    ours: &dyn Fn(&[Tensor<2>]) -> Tensor<2>,
    plain: &dyn Fn(&[Tensor<2>]) -> Tensor<2>,
) {
    let inputs = [numbers(shape[0] * shape[1], 1)];
    let (here, there) = (Device::flex().autodiff(), elsewhere().0.autodiff());
    let (y, gradients) = evaluate(ours, &inputs, &[shape], 0, &here);
    for (what, (want, want_gradients)) in [
        ("plain", evaluate(plain, &inputs, &[shape], 0, &here)),
        ("elsewhere", as_elsewhere(|| evaluate(ours, &inputs, &[shape], 0, &there))),
    ] {
        assert_close(&format!("{name}, {what}"), &y, &want, 2e-6);
        let (got, want) = (gradients[0].as_ref().unwrap(), want_gradients[0].as_ref().unwrap());
        assert_close(&format!("{name}, {what}, gradient"), got, want, 2e-5);
    }
    let off = Tensor::from_data(burn::tensor::TensorData::new(inputs[0].clone(), shape), &Device::flex());
    assert_eq!(to_vec(ours(&[off])), y, "{name}: autodiff changes no value");
}

#[test]
fn convolutions() {
    for (images, channels, height, width, outputs, kernel, stride, padding) in [
        (1, 1, 1, 1, 1, [1, 1], 1, 0),
        (3, 2, 7, 6, 3, [3, 3], 1, 1),
        (2, 1, 12, 12, 4, [5, 5], 1, 2),
        (2, 3, 9, 8, 5, [3, 2], 2, 1),
        // Windows that lie in the padding alone, and one that is as large as the image.
        (2, 2, 3, 3, 2, [1, 1], 2, 2),
        (5, 2, 4, 5, 7, [4, 5], 1, 0),
        // More images than shares, and more rows than are unfolded at once.
        (19, 1, 5, 5, 2, [3, 3], 1, 0),
        (1, 8, 40, 80, 2, [3, 3], 1, 1),
    ] {
        let input = Planes { channels, height, width };
        let shape = Convolution { input, outputs, kernel, stride, padding };
        let weight = |x: &Tensor<2>| x.clone().reshape([outputs, channels, kernel[0], kernel[1]]);
        check(
            &format!("{shape:?}"),
            &[[images, input.len()], [outputs, shape.depth()], [1, outputs]],
            &|x| crate::convolution(x[0].clone(), weight(&x[1]), vector(&x[2]), shape),
            &|x| crate::convolution::plain(x[0].clone(), weight(&x[1]), vector(&x[2]), shape),
        );
    }
}

#[test]
fn transposed_convolutions() {
    for (images, channels, height, width, outputs, kernel, stride, padding) in [
        (1, 1, 1, 1, 1, [1, 1], 1, 0),
        (3, 2, 7, 6, 3, [3, 3], 1, 1),
        // DCGAN's: each side is doubled.
        (2, 1, 8, 6, 4, [4, 4], 2, 1),
        // Windows that leave a row and a column over.
        (2, 3, 10, 9, 5, [3, 2], 2, 1),
        (19, 2, 6, 6, 3, [4, 4], 2, 1),
        (1, 8, 40, 80, 2, [3, 3], 1, 1),
    ] {
        let input = Planes { channels, height, width };
        let of = Convolution { input, outputs, kernel, stride, padding };
        let weight = |x: &Tensor<2>| x.clone().reshape([outputs, channels, kernel[0], kernel[1]]);
        check(
            &format!("the transpose of {of:?}"),
            &[[images, of.output().len()], [outputs, of.depth()], [1, channels]],
            &|x| crate::transposed_convolution(x[0].clone(), weight(&x[1]), vector(&x[2]), of),
            &|x| crate::transposed::plain(x[0].clone(), weight(&x[1]), vector(&x[2]), of),
        );
    }
}

/// What the word means: ⟨conv(x), y⟩ = ⟨x, transposed(y)⟩.
#[test]
fn the_transpose_of_a_convolution_is_its_transpose() {
    let device = Device::flex();
    let of =
        Convolution { input: Planes { channels: 2, height: 8, width: 6 }, outputs: 3, kernel: [4, 4], stride: 2, padding: 1 };
    let tensor = |shape: [usize; 2], seed| {
        Tensor::<2>::from_data(burn::tensor::TensorData::new(numbers(shape[0] * shape[1], seed), shape), &device)
    };
    let (x, y) = (tensor([2, of.input.len()], 1), tensor([2, of.output().len()], 2));
    let weight = tensor([3, of.depth()], 3).reshape([3, 2, 4, 4]);
    let none = |channels| Tensor::zeros([channels], &device);
    let product = |a: Tensor<2>, b: Tensor<2>| (a * b).sum().into_scalar::<f32>();
    let one = product(crate::convolution(x.clone(), weight.clone(), none(3), of), y.clone());
    let other = product(x, crate::transposed_convolution(y, weight, none(2), of));
    assert!((one - other).abs() < 1e-4 * one.abs().max(1.0), "{one} and {other}");
}

/// The paper's first layer, by hand: a window that copies its middle gives the image back.
#[test]
fn a_window_of_one_value_moves_the_image() {
    let device = Device::flex();
    let input = Planes { channels: 1, height: 4, width: 4 };
    let shape = Convolution { input, outputs: 1, kernel: [3, 3], stride: 1, padding: 1 };
    let image: Vec<f32> = (0..16).map(|i| i as f32).collect();
    let moved = |place: usize| {
        let mut weight = vec![0.0; 9];
        weight[place] = 1.0;
        let tensor = |values: Vec<f32>, shape| Tensor::<2>::from_data(burn::tensor::TensorData::new(values, shape), &device);
        let weight = tensor(weight, [1, 9]).reshape([1, 1, 3, 3]);
        to_vec(crate::convolution(tensor(image.clone(), [1, 16]), weight, Tensor::zeros([1], &device), shape))
    };
    assert_eq!(moved(4), image);
    // The window's right column reads what is right of each place, and zero beyond the edge.
    assert_eq!(moved(5)[..8], [1.0, 2.0, 3.0, 0.0, 5.0, 6.0, 7.0, 0.0]);
    assert_eq!(moved(1)[..8], [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0]);
}

#[test]
fn pooling() {
    for (images, channels, height, width, size, stride) in
        [(1, 1, 1, 1, 1, 1), (3, 2, 8, 6, 2, 2), (2, 3, 7, 7, 2, 2), (2, 1, 7, 9, 3, 2), (40, 5, 14, 14, 2, 2)]
    {
        let input = Planes { channels, height, width };
        let window = |pooling| Window { input, size, stride, pooling };
        let shape = [images, input.len()];
        let (mean, max) = (window(Pooling::Average), window(Pooling::Max));
        check(&format!("{mean:?}"), &[shape], &|x| crate::pool(x[0].clone(), mean), &|x| crate::pool::plain(x[0].clone(), mean));
        check_kinked(&format!("{max:?}"), shape, &|x| crate::pool(x[0].clone(), max), &|x| crate::pool::plain(x[0].clone(), max));
    }
}

#[test]
fn group_norms() {
    for (images, channels, height, width, groups) in [(2, 4, 3, 3, 2), (3, 6, 5, 4, 1), (70, 3, 7, 5, 3)] {
        let planes = Planes { channels, height, width };
        check(
            &format!("group_norm {planes:?} in {groups}"),
            &[[images, planes.len()], [1, channels], [1, channels]],
            &|x| crate::group_norm(x[0].clone(), vector(&x[1]), vector(&x[2]), planes, groups, 1e-5),
            &|x| crate::group_norm::plain(x[0].clone(), vector(&x[1]), vector(&x[2]), planes, groups, 1e-5),
        );
    }
}

#[test]
fn batch_norms() {
    for (images, channels, height, width) in [(9, 3, 1, 1), (3, 4, 3, 3), (70, 3, 7, 5)] {
        let planes = Planes { channels, height, width };
        check(
            &format!("batch_norm {planes:?} of {images}"),
            &[[images, planes.len()], [1, channels], [1, channels]],
            &|x| crate::batch_norm(x[0].clone(), vector(&x[1]), vector(&x[2]), planes, 0.1),
            &|x| crate::batch_norm::plain(x[0].clone(), vector(&x[1]), vector(&x[2]), planes, 0.1),
        );
        // By the statistics of the batch itself, fixed ones give the same.
        let device = Device::flex();
        let row =
            |count: usize, seed| Tensor::<1>::from_data(burn::tensor::TensorData::new(numbers(count, seed), [count]), &device);
        let x = row(images * planes.len(), 1).reshape([images, planes.len()]);
        let (weight, bias) = (row(channels, 2), row(channels, 3));
        let statistics = crate::channel_statistics(x.clone(), planes);
        let fixed = to_vec(crate::fixed_norm(x.clone(), statistics, weight.clone(), bias.clone(), planes, 0.1));
        assert_close("fixed_norm", &fixed, &to_vec(crate::batch_norm(x, weight, bias, planes, 0.1)), 2e-6);
    }
}

#[test]
fn units() {
    for shape in [[1, 1], [5, 9], [300, 130]] {
        check_kinked("leaky_relu", shape, &|x| crate::leaky_relu(x[0].clone()), &|x| {
            crate::unit::plain(x[0].clone(), Kind::LeakyRelu)
        });
        check("tanh", &[shape], &|x| crate::tanh(x[0].clone() * 3.0), &|x| crate::unit::plain(x[0].clone() * 3.0, Kind::Tanh));
        check_kinked("relu", shape, &|x| crate::relu(x[0].clone()), &|x| crate::unit::plain(x[0].clone(), Kind::Relu));
    }
    let strange = Tensor::<2>::from_data([[f32::NAN, -1.0, 2.0]], &Device::flex());
    let found = to_vec(crate::relu(strange));
    assert!(found[0].is_nan() && found[1..] == [0.0, 2.0], "{found:?}");
}
