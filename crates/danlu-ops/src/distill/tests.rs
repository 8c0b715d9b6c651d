use burn::tensor::{Device, Tensor};

use super::*;
use crate::tests::{check as hold, tensor, to_vec};

const DIVERGENCES: [Divergence; 4] =
    [Divergence::Forward, Divergence::Reverse, Divergence::JensenShannon { beta: 0.5 }, Divergence::JensenShannon { beta: 0.9 }];

fn teacher(tokens: usize, vocabulary: usize) -> [Tensor<2>; 2] {
    let device = Device::flex();
    [tensor([tokens, 6], 20, &device) * 2.0, tensor([vocabulary, 6], 21, &device)]
}

fn targets(tokens: usize, vocabulary: usize) -> Ids {
    (0..tokens as u32).map(|i| if i % 5 == 2 { IGNORE } else { i * 7 % vocabulary as u32 }).collect()
}

#[test]
fn it_is_its_plain_form() {
    let settings = [(2.0, 0.3), (1.0, 0.0), (1.0, 0.5), (0.7, 0.0)];
    // The largest is there for how it is cut into chunks, in which the settings have no say.
    for (tokens, channels, vocabulary, tried) in [(1, 1, 2, 4), (7, 5, 11, 4), (600, 8, 33, 4), (300, 20, 9000, 1)] {
        let targets = targets(tokens, vocabulary);
        let teacher = teacher(tokens, vocabulary);
        // The mean has one small gradient for each token; a factor brings it to the size that the harness looks at.
        let factor = tokens as f32;
        for divergence in DIVERGENCES {
            for (temperature, hard) in settings.into_iter().take(tried) {
                let spec = Distillation { divergence, temperature, hard };
                hold(
                    &format!("{spec:?} of {tokens}×{channels}×{vocabulary}"),
                    &[[tokens, channels], [vocabulary, channels]],
                    &|x| (linear_distill(x[0].clone(), x[1].clone(), teacher.clone(), &targets, &spec).loss * factor).unsqueeze(),
                    &|x| {
                        (plain(x[0].clone(), x[1].clone(), teacher.clone(), &targets, &spec).narrow(0, 0, 1) * factor).unsqueeze()
                    },
                );
            }
        }
    }
}

#[test]
fn its_parts_are_what_they_are_called() {
    let device = Device::flex();
    let (tokens, vocabulary) = (9, 40);
    let (x, weight) = (tensor([tokens, 5], 1, &device), tensor([vocabulary, 5], 2, &device));
    let (targets, teacher) = (targets(tokens, vocabulary), teacher(tokens, vocabulary));
    let nll = to_vec(crate::linear_cross_entropy(x.clone(), weight.clone(), &targets))[0];
    for divergence in DIVERGENCES {
        let spec = Distillation { divergence, temperature: 1.5, hard: 0.25 };
        let found = linear_distill(x.clone(), weight.clone(), teacher.clone(), &targets, &spec);
        let [loss, hard, soft] = [found.loss, found.nll, found.soft].map(|x| to_vec(x)[0]);
        assert!((hard - nll).abs() < 1e-5 && (loss - 0.25 * nll - 0.75 * soft).abs() < 1e-5, "{spec:?}");
        assert!(soft > 1e-3, "{spec:?}: another model is {soft} away");
        let same = linear_distill(x.clone(), weight.clone(), [x.clone(), weight.clone()], &targets, &spec);
        assert!(to_vec(same.soft)[0].abs() < 1e-5, "{spec:?}: a model is no distance from itself");
    }
    // As β goes to zero, the generalized divergence over β goes to the forward one; as it goes to one, over 1 − β, to the reverse one.
    let of = |divergence| {
        let spec = Distillation { divergence, temperature: 1.0, hard: 0.0 };
        to_vec(linear_distill(x.clone(), weight.clone(), teacher.clone(), &targets, &spec).soft)[0]
    };
    let close = |a: f32, b: f32| assert!((a / b - 1.0).abs() < 0.03, "{a} is not {b}");
    close(of(Divergence::JensenShannon { beta: 1e-3 }) / 1e-3, of(Divergence::Forward));
    close(of(Divergence::JensenShannon { beta: 1.0 - 1e-3 }) / 1e-3, of(Divergence::Reverse));
}

#[test]
fn without_targets_there_is_no_loss() {
    let device = Device::flex().autodiff();
    let (x, weight) = (tensor([3, 2], 1, &device).require_grad(), tensor([4, 2], 2, &device).require_grad());
    let none: Ids = vec![IGNORE; 3].into();
    let spec = Distillation { divergence: Divergence::Forward, temperature: 1.0, hard: 0.5 };
    let found = linear_distill(x.clone(), weight.clone(), teacher(3, 4), &none, &spec);
    let mut gradients = found.loss.backward();
    assert_eq!(to_vec(found.loss), [0.0]);
    assert!([x, weight].iter().all(|leaf| to_vec(leaf.grad_remove(&mut gradients).unwrap()).iter().all(|&g| g == 0.0)));
}
