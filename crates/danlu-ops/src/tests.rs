//! Every operation is held to its plain form and to finite differences, with each choice of frozen inputs; and what other devices run to
//! what the CPU does, in 32-bit floats and in bfloat16. `DANLU_TEST_DEVICE=cuda` names such a device; without it the CPU plays one.

mod images;

use std::cell::Cell;

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::{Before, Heads, IGNORE, Ids, KvFormat, LowRank, Nf4, Projection, Rope, Segments, Weight};

/// Repeatable numbers in -1..1.
pub(crate) fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

pub(crate) fn tensor(shape: [usize; 2], seed: u64, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(numbers(shape[0] * shape[1], seed), shape), device)
}

pub(crate) fn to_vec<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().convert::<f32>().try_into_vec().unwrap()
}

/// A vector from the row that the harness passes.
fn vector(row: &Tensor<2>) -> Tensor<1> {
    row.clone().flatten(0, 1)
}

thread_local! {
    static ONLY_PLAIN_FORMS: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread's operations shall run as on a device other than the CPU.
pub(crate) fn only_plain_forms() -> bool {
    ONLY_PLAIN_FORMS.get()
}

/// The device under test, and how exact its products of 32-bit floats are: graphics cards may read them with 10 bits of fraction.
pub(crate) fn elsewhere() -> (Device, f64) {
    match std::env::var("DANLU_TEST_DEVICE") {
        Err(_) => (Device::flex(), 2e-6),
        Ok(name) => {
            crate::choose_device(&name).unwrap_or_else(|error| panic!("DANLU_TEST_DEVICE: {error}"));
            (crate::device(), 2e-3)
        }
    }
}

/// Runs `body` as on the device under test.
pub(crate) fn as_elsewhere<R>(body: impl FnOnce() -> R) -> R {
    ONLY_PLAIN_FORMS.set(true);
    let result = body();
    ONLY_PLAIN_FORMS.set(false);
    result
}

type Function<'a> = &'a dyn Fn(&[Tensor<2>]) -> Tensor<2>;

/// The output, and the gradient of `Σ output · probe` for each input that is not frozen.
fn evaluate(
    f: Function,
    inputs: &[Vec<f32>],
    shapes: &[[usize; 2]],
    frozen: u32,
    device: &Device,
) -> (Vec<f32>, Vec<Option<Vec<f32>>>) {
    let leaves: Vec<Tensor<2>> = inputs
        .iter()
        .zip(shapes)
        .enumerate()
        .map(|(i, (values, &shape))| {
            let leaf = Tensor::<2>::from_data(TensorData::new(values.clone(), shape), device);
            if frozen & (1 << i) == 0 { leaf.require_grad() } else { leaf }
        })
        .collect();
    let y = f(&leaves);
    let out = to_vec(y.clone());
    if frozen + 1 == 1 << inputs.len() {
        return (out, vec![None; inputs.len()]);
    }
    let probe = tensor(y.dims(), 99, device);
    let mut gradients = (y * probe).sum().backward();
    (out, leaves.iter().map(|leaf| leaf.grad_remove(&mut gradients).map(to_vec)).collect())
}

#[track_caller]
pub(crate) fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let size = norm(&mut want.iter().map(|&x| f64::from(x)));
    let error = norm(&mut got.iter().zip(want).map(|(&a, &b)| f64::from(a) - f64::from(b)));
    assert!(error <= tolerance * size.max(1e-3), "{what}: off by {error:e} of {size:e}");
}

/// Holds `ours` to `plain` (values and all gradients, every set of frozen inputs, both checkpointing strategies) and to finite
/// differences in a random direction.
#[track_caller]
pub(crate) fn check(name: &str, shapes: &[[usize; 2]], ours: Function, plain: Function) {
    check_moving(name, shapes, shapes.len(), ours, plain);
}

/// [`check`] whose finite differences move only the first `moving` inputs: what the gradient takes for constant stays so.
#[track_caller]
fn check_moving(name: &str, shapes: &[[usize; 2]], moving: usize, ours: Function, plain: Function) {
    let device = Device::flex().autodiff();
    let inputs: Vec<Vec<f32>> = shapes.iter().enumerate().map(|(i, s)| numbers(s[0] * s[1], i as u64 + 1)).collect();
    for frozen in 0..1 << shapes.len() {
        let (y, gradients) = evaluate(ours, &inputs, shapes, frozen, &device);
        let (want, want_gradients) = evaluate(plain, &inputs, shapes, frozen, &device);
        assert_close(&format!("{name}, frozen {frozen:b}, value"), &y, &want, 2e-6);
        for (i, (got, want)) in gradients.iter().zip(&want_gradients).enumerate() {
            assert_eq!(got.is_some(), want.is_some(), "{name}, frozen {frozen:b}, gradient {i} is there");
            if let (Some(got), Some(want)) = (got, want) {
                assert_close(&format!("{name}, frozen {frozen:b}, gradient {i}"), got, want, 2e-5);
            }
        }
    }
    let (y, gradients) = evaluate(ours, &inputs, shapes, 0, &device);
    check_elsewhere(name, shapes, ours, &inputs, &y, &gradients);
    let (y_again, again) = evaluate(ours, &inputs, shapes, 0, &device.clone().gradient_checkpointing());
    assert!(y == y_again && gradients == again, "{name}: another checkpointing strategy changes nothing");
    // Without autodiff the same numbers come out.
    let off: Vec<Tensor<2>> =
        inputs.iter().zip(shapes).map(|(x, &s)| Tensor::from_data(TensorData::new(x.clone(), s), &Device::flex())).collect();
    assert_eq!(to_vec(ours(&off)), y, "{name}: autodiff changes no value");
    // Finite differences along a random direction.
    let step = 1e-2f32;
    let at = |side: f32| -> f64 {
        let moved: Vec<Vec<f32>> = inputs
            .iter()
            .enumerate()
            .map(|(i, x)| {
                let step = if i < moving { side * step } else { 0.0 };
                x.iter().zip(numbers(x.len(), i as u64 + 50)).map(|(x, d)| x + step * d).collect()
            })
            .collect();
        let y = evaluate(ours, &moved, shapes, (1 << shapes.len()) - 1, &device).0;
        y.iter().zip(numbers(y.len(), 99)).map(|(&y, p)| f64::from(y) * f64::from(p)).sum()
    };
    let slope = (at(1.0) - at(-1.0)) / (2.0 * f64::from(step));
    let expect: f64 = gradients
        .iter()
        .take(moving)
        .enumerate()
        .flat_map(|(i, g)| {
            let g = g.clone().unwrap();
            let direction = numbers(g.len(), i as u64 + 50);
            g.into_iter().zip(direction).map(|(g, d)| f64::from(g) * f64::from(d)).collect::<Vec<_>>()
        })
        .sum();
    let size: f64 = gradients.iter().flatten().flatten().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>().sqrt();
    assert!((slope - expect).abs() <= 5e-3 * size + 1e-3, "{name}: the slope is {slope}, the gradient says {expect} of {size}");
}

/// Holds what other devices run to what the CPU does.
#[track_caller]
fn check_elsewhere(
    name: &str,
    shapes: &[[usize; 2]],
    ours: Function,
    inputs: &[Vec<f32>],
    want: &[f32],
    gradients: &[Option<Vec<f32>>],
) {
    let (device, tolerance) = elsewhere();
    let device = device.autodiff();
    let narrow = |x: &[Tensor<2>]| {
        // Activations come first.
        let mut x = x.to_vec();
        x[0] = x[0].clone().cast(DType::BF16);
        ours(&x).cast(DType::F32)
    };
    // Products of bfloat16 have 8 bits, and errors add up over a form's steps.
    for (precision, ours, tolerance) in [("f32", ours, tolerance), ("bf16", &narrow as Function, 4e-2)] {
        let (y, found) = as_elsewhere(|| evaluate(ours, inputs, shapes, 0, &device));
        let off: Vec<String> = found
            .iter()
            .zip(gradients)
            .map(|(a, b)| format!("{:.1e}", error(a.as_ref().unwrap(), b.as_ref().unwrap())))
            .collect();
        println!("{name}: {precision} {:.1e}, gradients {}", error(&y, want), off.join(" "));
        assert_close(&format!("{name} elsewhere in {precision}"), &y, want, tolerance);
        for (i, (got, want)) in found.iter().zip(gradients).enumerate() {
            let (got, want) = (got.as_ref().unwrap(), want.as_ref().unwrap());
            assert_close(&format!("{name} elsewhere in {precision}, gradient {i}"), got, want, 10.0 * tolerance.min(1e-2));
        }
    }
}

/// How far off a vector is, relative to what it should be.
fn error(got: &[f32], want: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let off: f64 = got.iter().zip(want).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    (off / want.iter().map(|&x| square(f64::from(x))).sum::<f64>().max(1e-6)).sqrt()
}

#[test]
fn embedding() {
    for (vocabulary, width, ids) in [(5, 3, vec![0, 4, 4, 1]), (300, 130, (0..257).map(|i| i * i % 7).collect()), (2, 1, vec![1])]
    {
        let ids: Ids = ids.into();
        check("embedding", &[[vocabulary, width]], &|x| crate::embedding(x[0].clone(), &ids), &|x| {
            crate::embedding::plain(x[0].clone(), &ids)
        });
    }
}

#[test]
fn projections() {
    for (tokens, inputs, outputs, biased) in [
        (1, 1, vec![1], false),
        (7, 5, vec![3], true),
        (33, 17, vec![20, 7], false),
        (40, 9, vec![8, 3, 3], true),
        (65, 48, vec![48, 16, 16], false),
        (5, 4, vec![2, 3, 4, 5], true),
    ] {
        let count = outputs.len();
        let mut shapes = vec![[tokens, inputs]];
        shapes.extend(outputs.iter().map(|&outputs| [outputs, inputs]));
        if biased {
            shapes.extend(outputs.iter().map(|&outputs| [1, outputs]));
        }
        let parts = |x: &[Tensor<2>]| {
            let biases: Option<Vec<Tensor<1>>> = biased.then(|| x[1 + count..].iter().map(vector).collect());
            (x[0].clone(), x[1..1 + count].to_vec(), biases)
        };
        let ours = |x: &[Tensor<2>]| {
            let (x, weights, biases) = parts(x);
            crate::project(x, &weights, biases.as_deref())
        };
        let plain = |x: &[Tensor<2>]| {
            let (x, weights, biases) = parts(x);
            let part = |(i, weight): (usize, &Tensor<2>)| Projection {
                bias: biases.as_ref().map(|biases| biases[i].clone()),
                ..Projection::of(weight.clone())
            };
            crate::linear::plain(x, &weights.iter().enumerate().map(part).collect::<Vec<_>>())
        };
        check(&format!("project {outputs:?}"), &shapes, &ours, &plain);
    }
}

/// What is the same in all projections of a case.
struct Case {
    tokens: usize,
    inputs: usize,
    /// Width and rank of each projection; no rank, no adapter.
    outputs: Vec<(usize, usize)>,
    biased: bool,
    dora: bool,
    nf4: bool,
}

impl Case {
    /// `x`, then magnitudes, then weights, biases, A and B. Magnitudes come early, since differences may move only them and `x` in DoRA.
    fn shapes(&self) -> Vec<[usize; 2]> {
        let adapted = || self.outputs.iter().filter(|(_, rank)| *rank > 0);
        let mut shapes = vec![[self.tokens, self.inputs]];
        shapes.extend(adapted().filter(|_| self.dora).map(|(width, _)| [1, *width]));
        shapes.extend(self.outputs.iter().filter(|_| !self.nf4).map(|(width, _)| [*width, self.inputs]));
        shapes.extend(self.outputs.iter().filter(|_| self.biased).map(|(width, _)| [1, *width]));
        shapes.extend(adapted().map(|(_, rank)| [*rank, self.inputs]));
        shapes.extend(adapted().map(|(width, rank)| [*width, *rank]));
        shapes
    }

    fn projections(&self, tensors: &[Tensor<2>]) -> Vec<Projection> {
        let count = self.outputs.len();
        let adapted = self.outputs.iter().filter(|(_, rank)| *rank > 0).count();
        let mut rest = tensors[1..].iter();
        let mut take = |n: usize| rest.by_ref().take(n).cloned().collect::<Vec<_>>();
        let magnitudes = take(if self.dora { adapted } else { 0 });
        let weights = take(if self.nf4 { 0 } else { count });
        let biases = take(if self.biased { count } else { 0 });
        let mut adapters = take(adapted).into_iter().zip(take(adapted)).enumerate();
        let one = |(i, &(width, rank)): (usize, &(usize, usize))| Projection {
            weight: match weights.get(i) {
                Some(weight) => Weight::Float(weight.clone()),
                None => {
                    let values = numbers(width * self.inputs, i as u64 + 30);
                    Weight::Nf4(Nf4::quantize(&values, [width, self.inputs]).into())
                }
            },
            bias: biases.get(i).map(vector),
            adapter: (rank > 0).then(|| {
                let (j, (a, b)) = adapters.next().unwrap();
                LowRank { a, b, scale: 0.5, magnitude: magnitudes.get(j).map(vector) }
            }),
        };
        self.outputs.iter().enumerate().map(one).collect()
    }

    #[track_caller]
    fn check(&self) {
        let name = format!("{}×{} to {:?}, dora {}, nf4 {}", self.tokens, self.inputs, self.outputs, self.dora, self.nf4);
        let shapes = self.shapes();
        let moving = match self.outputs.iter().filter(|(_, rank)| *rank > 0).count() {
            adapted if self.dora => 1 + adapted,
            _ => shapes.len(),
        };
        let ours = |x: &[Tensor<2>]| crate::projections(x[0].clone(), &self.projections(x));
        let plain = |x: &[Tensor<2>]| crate::linear::plain(x[0].clone(), &self.projections(x));
        check_moving(&name, &shapes, moving, &ours, &plain);
        // One matrix gives the same.
        let device = Device::flex();
        let tensors: Vec<_> = shapes.iter().enumerate().map(|(i, s)| tensor(*s, i as u64 + 1, &device)).collect();
        let merged: Vec<_> = self
            .projections(&tensors)
            .into_iter()
            .map(|part| Projection { weight: Weight::Float(part.merged()), adapter: None, ..part })
            .collect();
        assert_close(&name, &to_vec(crate::projections(tensors[0].clone(), &merged)), &to_vec(ours(&tensors)), 2e-6);
    }
}

#[test]
fn adapters() {
    for (tokens, inputs, outputs, biased) in [
        (3, 5, vec![(4, 2)], true),
        (33, 17, vec![(20, 3), (7, 0)], false),
        (270, 9, vec![(8, 4), (3, 1), (3, 2)], false),
        (300, 20, vec![(6, 2)], true),
    ] {
        for (dora, nf4) in [(false, false), (true, false), (false, true), (true, true)] {
            let outputs = outputs.clone();
            Case { tokens, inputs, outputs, biased, dora, nf4 }.check();
        }
    }
}

#[test]
fn norms() {
    for (tokens, width) in [(1, 1), (3, 7), (130, 40), (600, 65)] {
        check("rms_norm", &[[tokens, width], [1, width]], &|x| crate::rms_norm(x[0].clone(), vector(&x[1]), 1e-5), &|x| {
            crate::rms_norm::plain(x[0].clone(), vector(&x[1]), 1e-5)
        });
    }
    // A layer norm of one channel is the bias, and its gradient nothing but rounding.
    for (tokens, width) in [(3, 7), (130, 40), (600, 65)] {
        check(
            "layer_norm",
            &[[tokens, width], [1, width], [1, width]],
            &|x| crate::layer_norm(x[0].clone(), vector(&x[1]), vector(&x[2]), 1e-5),
            &|x| crate::layer_norm::plain(x[0].clone(), vector(&x[1]), vector(&x[2]), 1e-5),
        );
    }
    for heads in [Heads { heads: 1, kv_heads: 1, head_dim: 4 }, Heads { heads: 6, kv_heads: 2, head_dim: 10 }] {
        check(
            "head_rms_norm",
            &[[37, heads.qkv()], [1, heads.head_dim], [1, heads.head_dim]],
            &|x| crate::head_rms_norm(x[0].clone(), vector(&x[1]), vector(&x[2]), heads, 1e-6),
            &|x| crate::rms_norm::plain_heads(x[0].clone(), vector(&x[1]), vector(&x[2]), heads, 1e-6),
        );
    }
}

#[test]
fn activations() {
    for (tokens, width) in [(1, 1), (5, 9), (300, 130)] {
        check("swiglu", &[[tokens, 2 * width]], &|x| crate::swiglu(x[0].clone() * 3.0), &|x| {
            crate::swiglu::plain(x[0].clone() * 3.0)
        });
        check("gelu", &[[tokens, width]], &|x| crate::gelu(x[0].clone() * 3.0), &|x| crate::gelu::plain(x[0].clone() * 3.0));
        check("gelu_exact", &[[tokens, width]], &|x| crate::gelu_exact(x[0].clone() * 3.0), &|x| {
            crate::gelu_exact::plain(x[0].clone() * 3.0)
        });
    }
}

#[test]
fn attention() {
    let rope = Rope::new(6, 10_000.0, 64);
    for (rows, row_len, starts, heads, kv_heads) in [
        (1, 1, vec![], 1, 1),
        (2, 5, vec![], 2, 2),
        (2, 33, vec![7, 8, 40], 4, 2),
        (1, 64, (0..64).collect(), 3, 1),
        (3, 20, vec![1, 2, 19, 25, 59], 6, 3),
    ] {
        let heads = Heads { heads, kv_heads, head_dim: 6 };
        let segments = Segments::new(rows, row_len, starts);
        for rope in [None, Some(&rope)] {
            check(
                &format!("attention {segments:?} {heads:?} rope {}", rope.is_some()),
                &[[rows * row_len, heads.qkv()]],
                &|x| crate::attention(x[0].clone(), heads, rope, &segments),
                &|x| crate::attention::plain(x[0].clone(), heads, rope, &segments, true),
            );
            check(
                &format!("bidirectional attention {segments:?} {heads:?} rope {}", rope.is_some()),
                &[[rows * row_len, heads.qkv()]],
                &|x| crate::bidirectional_attention(x[0].clone(), heads, rope, &segments),
                &|x| crate::attention::plain(x[0].clone(), heads, rope, &segments, false),
            );
        }
    }
}

#[test]
fn cross_attention() {
    for (targets, sources, heads, kv_heads) in [
        (vec![1], vec![1], 1, 1),
        (vec![5], vec![2], 2, 2),
        (vec![3, 1, 40], vec![20, 7, 1], 4, 2),
        (vec![70, 9], vec![65, 33], 6, 3),
    ] {
        let heads = Heads { heads, kv_heads, head_dim: 6 };
        let segments = |lengths: &[usize]| {
            let starts = lengths.iter().scan(0, |end, length| Some(std::mem::replace(end, *end + *length as u32)));
            Segments::new(1, lengths.iter().sum(), starts.collect())
        };
        let (of_targets, of_sources) = (segments(&targets), segments(&sources));
        let shapes = [[of_targets.tokens(), heads.q()], [of_sources.tokens(), 2 * heads.kv()]];
        check(
            &format!("cross attention of {targets:?} to {sources:?} {heads:?}"),
            &shapes,
            &|x| crate::cross_attention(x[0].clone(), x[1].clone(), heads, &of_targets, &of_sources),
            &|x| crate::cross_attention::plain(x[0].clone(), x[1].clone(), heads, &of_targets, &of_sources),
        );
        // Each sees its own source only: alone it gets the same.
        let device = Device::flex();
        let [q, kv] = [(shapes[0], 3), (shapes[1], 4)].map(|(shape, seed)| tensor(shape, seed, &device));
        let packed = to_vec(crate::cross_attention(q.clone(), kv.clone(), heads, &of_targets, &of_sources));
        for (target, source) in of_targets.iter().zip(of_sources.iter()) {
            let q = q.clone().narrow(0, target.start, target.len());
            let kv = kv.clone().narrow(0, source.start, source.len());
            let (one, other) = (Segments::rows(1, target.len()), Segments::rows(1, source.len()));
            let alone = to_vec(crate::cross_attention(q, kv, heads, &one, &other));
            assert_close("a pair", &packed[target.start * heads.q()..target.end * heads.q()], &alone, 2e-6);
        }
    }
}

#[test]
fn packed_attention_is_that_of_each_document() {
    let heads = Heads { heads: 4, kv_heads: 2, head_dim: 8 };
    let rope = Rope::new(8, 10_000.0, 100);
    let device = Device::flex();
    let qkv = tensor([96, heads.qkv()], 5, &device);
    let segments = Segments::new(2, 48, vec![10, 11, 30, 70]);
    let packed = to_vec(crate::attention(qkv.clone(), heads, Some(&rope), &segments));
    for segment in segments.iter() {
        let alone = qkv.clone().narrow(0, segment.start, segment.len());
        let alone = to_vec(crate::attention(alone, heads, Some(&rope), &Segments::rows(1, segment.len())));
        assert_close("a document", &packed[segment.start * heads.q()..segment.end * heads.q()], &alone, 2e-6);
    }
}

#[test]
fn cached_attention_is_full_attention() {
    let rope = Rope::new(8, 10_000.0, 64);
    for heads in [Heads { heads: 4, kv_heads: 4, head_dim: 8 }, Heads { heads: 6, kv_heads: 2, head_dim: 8 }] {
        for rope in [None, Some(&rope)] {
            let (device, tolerance) = elsewhere();
            let qkv = tensor([40, heads.qkv()], 7, &device);
            let full = to_vec(crate::attention(qkv.clone(), heads, rope, &Segments::rows(1, 40)));
            let mut cache = crate::LayerCache::new(heads, 40, &device);
            let mut pieces = Vec::new();
            for (start, len) in [(0, 17), (17, 1), (18, 9), (27, 1), (28, 12)] {
                // Whatever was refused is taken back: the cache must come out the same.
                let _ = crate::attention_cached(qkv.clone().narrow(0, 0, 3.min(40 - cache.len())), heads, rope, &mut cache);
                cache.truncate(start);
                pieces.extend(to_vec(crate::attention_cached(qkv.clone().narrow(0, start, len), heads, rope, &mut cache)));
            }
            assert_eq!(cache.len(), 40);
            assert_close("cached", &pieces, &full, tolerance);
        }
    }
}

/// Sequences of different lengths read in one go, with padding, some continuing a beginning they share: each gets what it would alone.
#[test]
fn paged_attention_is_full_attention() {
    paged_as_full(KvFormat::F32, 0.0);
}

#[test]
fn paged_attention_in_halves_is_full_attention_up_to_their_rounding() {
    paged_as_full(KvFormat::F16, 2e-3);
}

fn paged_as_full(format: KvFormat, tolerance: f64) {
    for heads in [Heads { heads: 4, kv_heads: 4, head_dim: 8 }, Heads { heads: 6, kv_heads: 2, head_dim: 48 }] {
        let rope = Rope::new(heads.head_dim, 10_000.0, 128);
        for rope in [None, Some(&rope)] {
            let (device, least) = elsewhere();
            let tolerance = tolerance.max(least);
            let texts: Vec<Tensor<2>> = [100, 71, 9].iter().map(|&n| tensor([n, heads.qkv()], n as u64, &device)).collect();
            let full = |x: &Tensor<2>| to_vec(crate::attention(x.clone(), heads, rope, &Segments::rows(1, x.dims()[0])));
            let whole: Vec<Vec<f32>> = texts.iter().map(full).collect();
            for plain in [false, true] {
                let mut caches: Vec<crate::PagedCache> =
                    (0..3).map(|_| crate::PagedCache::new(heads, 100, format, &device)).collect();
                let mut got = vec![Vec::new(); 3];
                let mut read = |caches: &mut [crate::PagedCache], counts: [usize; 3]| {
                    let parts = texts.iter().zip(caches.iter()).zip(counts).filter(|(_, count)| *count > 0);
                    let parts: Vec<_> = parts.map(|((x, c), count)| x.clone().narrow(0, c.len(), count)).collect();
                    let padded = Tensor::cat([parts, vec![tensor([2, heads.qkv()], 3, &device)]].concat(), 0);
                    let mut caches: Vec<&mut crate::PagedCache> = caches.iter_mut().collect();
                    let y = if plain {
                        let firsts = [0, counts[0], counts[0] + counts[1]];
                        crate::attention_paged::plain(padded, heads, rope, &mut caches, &firsts, &counts)
                    } else {
                        crate::attention_paged(padded, heads, rope, &mut caches, &counts)
                    };
                    let y = to_vec(y);
                    let mut rows = y.chunks_exact(heads.q());
                    for (got, count) in got.iter_mut().zip(counts) {
                        (0..count).for_each(|_| got.extend(rows.next().unwrap()));
                    }
                    assert!(rows.flatten().all(|&y| y == 0.0), "padding gives zeros");
                };
                read(&mut caches, [40, 33, 0]);
                // Clones go another way; what they share must not change.
                let mut clones = caches.clone();
                let other = tensor([60, heads.qkv()], 77, &device);
                let mut borrowed: Vec<&mut crate::PagedCache> = clones.iter_mut().collect();
                let _ = if plain {
                    crate::attention_paged::plain(other, heads, rope, &mut borrowed, &[0, 20, 40], &[20, 20, 20])
                } else {
                    crate::attention_paged(other, heads, rope, &mut borrowed, &[20, 20, 20])
                };
                read(&mut caches, [1, 1, 8]);
                read(&mut caches, [7, 12, 1]);
                caches[0].truncate(45);
                got[0].truncate(45 * heads.q());
                let mut read_rest = |caches: &mut [crate::PagedCache]| {
                    for _ in 0..25 {
                        let (cache, x) = (&mut caches[1], &texts[1]);
                        let row = x.clone().narrow(0, cache.len(), 1);
                        let y = if plain {
                            crate::attention_paged::plain(row, heads, rope, &mut [cache], &[0], &[1])
                        } else {
                            crate::attention_paged(row, heads, rope, &mut [cache], &[1])
                        };
                        got[1].extend(to_vec(y));
                    }
                };
                read_rest(&mut caches);
                let (cache, x) = (&mut caches[0], &texts[0]);
                let rest = x.clone().narrow(0, 45, 55);
                let y = if plain {
                    crate::attention_paged::plain(rest, heads, rope, &mut [cache], &[0], &[55])
                } else {
                    crate::attention_paged(rest, heads, rope, &mut [cache], &[55])
                };
                got[0].extend(to_vec(y));
                for (got, want) in got.iter().zip(&whole) {
                    assert_close("paged", got, want, tolerance);
                }
            }
        }
    }
}

#[test]
fn linear_cross_entropy() {
    for (tokens, channels, vocabulary) in [(1, 1, 2), (7, 5, 11), (600, 8, 33), (300, 20, 9000)] {
        let targets: Ids = (0..tokens as u32).map(|i| if i % 5 == 2 { IGNORE } else { i * 7 % vocabulary as u32 }).collect();
        // The mean has one small gradient for each token; a factor brings it to the size that the harness looks at.
        let factor = tokens as f32;
        check(
            "linear_cross_entropy",
            &[[tokens, channels], [vocabulary, channels]],
            &|x| (crate::linear_cross_entropy(x[0].clone(), x[1].clone(), &targets) * factor).unsqueeze(),
            &|x| (crate::loss::plain(x[0].clone(), x[1].clone(), &targets) * factor).unsqueeze(),
        );
        let device = Device::flex();
        let (x, weight) = (tensor([tokens, channels], 1, &device), tensor([vocabulary, channels], 2, &device));
        let want = to_vec(crate::loss::plain_nll(x.clone(), weight.clone(), &targets));
        assert_close("token_nll", &crate::token_nll(x, weight, &targets), &want, 2e-6);
    }
    let none: Ids = vec![IGNORE; 3].into();
    let loss = crate::linear_cross_entropy(tensor([3, 2], 1, &Device::flex()), tensor([4, 2], 2, &Device::flex()), &none);
    assert_eq!(to_vec(loss), [0.0]);
}

#[test]
fn smoothed_linear_cross_entropy() {
    for (tokens, channels, vocabulary, smoothing) in [(1, 1, 2, 0.5), (7, 5, 11, 0.1), (600, 8, 33, 0.3), (300, 20, 3000, 0.1)] {
        let targets: Ids = (0..tokens as u32).map(|i| if i % 5 == 2 { IGNORE } else { i * 7 % vocabulary as u32 }).collect();
        let factor = tokens as f32;
        check(
            "linear_cross_entropy_smoothed",
            &[[tokens, channels], [vocabulary, channels]],
            &|x| (crate::linear_cross_entropy_smoothed(x[0].clone(), x[1].clone(), &targets, smoothing) * factor).unsqueeze(),
            &|x| (crate::loss::plain_smoothed(x[0].clone(), x[1].clone(), &targets, smoothing) * factor).unsqueeze(),
        );
    }
    // By its definition, on logits that are the input: (1 - 0.2) · -log softmax of the target, and 0.2 of the mean of all three.
    let logits = Tensor::<2>::from_data([[1.0f32, 2.0, 4.0]], &Device::flex());
    let loss = crate::linear_cross_entropy_smoothed(logits, Tensor::eye(3, &Device::flex()), &vec![1].into(), 0.2);
    let total = (1f64.exp() + 2f64.exp() + 4f64.exp()).ln();
    assert_close("smoothed", &to_vec(loss), &[(total - 0.8 * 2.0 - 0.2 * 7.0 / 3.0) as f32], 1e-6);
}

#[test]
fn linear_log_probs() {
    for (tokens, channels, vocabulary) in [(1, 1, 2), (7, 5, 11), (600, 8, 33), (300, 20, 9000)] {
        let targets: Ids = (0..tokens as u32).map(|i| if i % 5 == 2 { IGNORE } else { i * 7 % vocabulary as u32 }).collect();
        let shapes = [[tokens, channels], [vocabulary, channels]];
        check(
            "linear_log_probs",
            &shapes,
            &|x| crate::linear_log_probs(x[0].clone(), x[1].clone(), &targets).unsqueeze(),
            &|x| -crate::loss::plain_nll(x[0].clone(), x[1].clone(), &targets).unsqueeze::<2>(),
        );
        check(
            "linear_log_probs_and_entropy",
            &shapes,
            &|x| Tensor::stack(crate::linear_log_probs_and_entropy(x[0].clone(), x[1].clone(), &targets).into(), 0),
            &|x| Tensor::stack(crate::log_probs::plain_both(x[0].clone(), x[1].clone(), &targets).into(), 0),
        );
    }
    let none: Ids = vec![IGNORE; 3].into();
    let device = Device::flex().autodiff();
    let leaves = [tensor([3, 2], 1, &device).require_grad(), tensor([4, 2], 2, &device).require_grad()];
    let y = crate::linear_log_probs(leaves[0].clone(), leaves[1].clone(), &none);
    let mut gradients = y.clone().sum().backward();
    assert_eq!(to_vec(y), [0.0; 3], "without targets there is nothing");
    for leaf in leaves {
        assert!(to_vec(leaf.grad_remove(&mut gradients).unwrap()).iter().all(|&g| g == 0.0));
    }
}

#[test]
fn weighing_tokens_alike_is_the_mean_loss() {
    let targets: Ids = (0..40).map(|i| if i % 3 == 0 { IGNORE } else { i % 17 }).collect();
    let device = Device::flex().autodiff();
    let of = |f: &dyn Fn(Tensor<2>, Tensor<2>) -> Tensor<1>| {
        let leaves = [tensor([40, 9], 1, &device).require_grad(), tensor([17, 9], 2, &device).require_grad()];
        let mut gradients = f(leaves[0].clone(), leaves[1].clone()).backward();
        leaves.map(|leaf| to_vec(leaf.grad_remove(&mut gradients).unwrap()))
    };
    let want = of(&|x, w| crate::linear_cross_entropy(x, w, &targets));
    let got = of(&|x, w| -crate::linear_log_probs(x, w, &targets).sum() / 26.0);
    for (got, want) in got.iter().zip(&want) {
        assert_close("gradient", got, want, 2e-6);
    }
}

#[test]
fn non_contiguous_inputs_are_taken() {
    check(
        "rms_norm of a transpose and linear of a slice",
        &[[12, 9], [1, 9], [4, 6]],
        &|x| {
            let x0 = crate::rms_norm(x[0].clone().transpose().reshape([9, 12]).transpose(), vector(&x[1]), 1e-5);
            crate::linear(x0.slice([0..12, 2..8]), x[2].clone(), None)
        },
        &|x| {
            let x0 = crate::rms_norm::plain(x[0].clone().transpose().reshape([9, 12]).transpose(), vector(&x[1]), 1e-5);
            crate::linear::plain(x0.slice([0..12, 2..8]), &[Projection::of(x[2].clone())])
        },
    );
}

/// A small decoder layer with a tied head, whole: embedding, norm, attention, mlp, loss.
fn tiny(x: &[Tensor<2>], ids: &Ids, targets: &Ids, segments: &Segments, rope: &Rope) -> Tensor<1> {
    let heads = Heads { heads: 2, kv_heads: 1, head_dim: 8 };
    let [table, qkv, out, gate, up, down] = x else { unreachable!() };
    let norm = |h: Tensor<2>| crate::rms_norm(h, Tensor::ones([16], &table.device()), 1e-5);
    let h = crate::embedding(table.clone(), ids);
    let a = crate::attention(crate::linear(norm(h.clone()), qkv.clone(), None), heads, Some(rope), segments);
    let h = h + crate::linear(a, out.clone(), None);
    let gu = crate::project(norm(h.clone()), &[gate.clone(), up.clone()], None);
    let h = h + crate::linear(crate::swiglu(gu), down.clone(), None);
    crate::linear_cross_entropy(norm(h), table.clone(), targets)
}

const TINY: [[usize; 2]; 6] = [[50, 16], [32, 16], [16, 16], [24, 16], [24, 16], [16, 24]];

fn tiny_gradients(rows: std::ops::Range<usize>) -> (Vec<f32>, Vec<Vec<f32>>) {
    let row_len = 12;
    let token = |i: usize| (i * i % 47) as u32;
    let ids: Ids = (rows.start * row_len..rows.end * row_len).map(token).collect();
    let targets: Ids = (rows.start * row_len..rows.end * row_len).map(|i| token(i + 1)).collect();
    let segments = Segments::rows(rows.len(), row_len);
    let device = Device::flex().autodiff();
    let leaves: Vec<Tensor<2>> = TINY.iter().enumerate().map(|(i, &s)| tensor(s, i as u64, &device).require_grad()).collect();
    let loss = tiny(&leaves, &ids, &targets, &segments, &Rope::new(8, 10_000.0, row_len));
    let mut gradients = loss.backward();
    (to_vec(loss), leaves.iter().map(|leaf| to_vec(leaf.grad_remove(&mut gradients).unwrap())).collect())
}

#[test]
fn accumulated_gradients_are_those_of_the_whole_batch() {
    let (whole_loss, whole) = tiny_gradients(0..6);
    let parts: Vec<_> = [0..2, 2..4, 4..6].into_iter().map(tiny_gradients).collect();
    let loss: f32 = parts.iter().map(|(loss, _)| loss[0] / 3.0).sum();
    assert!((loss - whole_loss[0]).abs() < 1e-5);
    for (i, whole) in whole.iter().enumerate() {
        let sum: Vec<f32> = (0..whole.len()).map(|j| parts.iter().map(|(_, g)| g[i][j] / 3.0).sum()).collect();
        assert_close("accumulated", &sum, whole, 1e-5);
    }
}

#[test]
fn results_are_the_same_bits_under_load() {
    let first = tiny_gradients(0..6);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        for _ in 0..20 {
            assert_eq!(tiny_gradients(0..6), first);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_tied_embedding_gathers_both_gradients() {
    let ids: Ids = vec![1, 4, 2, 2, 0].into();
    let targets: Ids = vec![4, 2, 2, 0, 3].into();
    check(
        "tied",
        &[[6, 7]],
        &|x| (crate::linear_cross_entropy(crate::embedding(x[0].clone(), &ids), x[0].clone(), &targets) * 5.0).unsqueeze(),
        &|x| (crate::loss::plain(crate::embedding::plain(x[0].clone(), &ids), x[0].clone(), &targets) * 5.0).unsqueeze(),
    );
}

/// The head and two lookups: each adds to the gradient that is there.
#[test]
fn several_uses_of_a_table_gather_in_one_gradient() {
    let (ids, more): (Ids, Ids) = (vec![1, 4, 2, 2, 0].into(), vec![5, 5, 1, 0, 3].into());
    let targets: Ids = vec![4, 2, 2, 0, 3].into();
    check(
        "tied twice",
        &[[6, 7]],
        &|x| {
            let h = crate::embedding(x[0].clone(), &ids) + crate::embedding(x[0].clone(), &more);
            (crate::linear_cross_entropy(h, x[0].clone(), &targets) * 5.0).unsqueeze()
        },
        &|x| {
            let h = crate::embedding::plain(x[0].clone(), &ids) + crate::embedding::plain(x[0].clone(), &more);
            (crate::loss::plain(h, x[0].clone(), &targets) * 5.0).unsqueeze()
        },
    );
}

/// What stands before a projection and is made again in the backward pass changes no bit.
#[test]
fn projections_after_what_is_not_kept() {
    let device = Device::flex().autodiff();
    for tokens in [9, 300] {
        let shapes = [[tokens, 12], [7, 12], [1, 12], [1, 12]];
        let parts = |x: &[Tensor<2>]| [Projection::of(x[1].clone())];
        let norm = |x: &[Tensor<2>]| Before::LayerNorm { weight: vector(&x[2]), bias: vector(&x[3]), eps: 1e-5 };
        let normed = |x: &[Tensor<2>]| crate::layer_norm(x[0].clone(), vector(&x[2]), vector(&x[3]), 1e-5);
        let scaled = |x: &[Tensor<2>]| Before::RmsNorm { weight: vector(&x[2]), eps: 1e-5 };
        let cases: [(&[[usize; 2]], Function, Function); 4] = [
            (&[[tokens, 24], [7, 12]], &|x| crate::projections_after(Before::Swiglu, x[0].clone(), &parts(x)), &|x| {
                crate::projections(crate::swiglu(x[0].clone()), &parts(x))
            }),
            (&shapes[..3], &|x| crate::projections_after(scaled(x), x[0].clone(), &parts(x)), &|x| {
                crate::projections(crate::rms_norm(x[0].clone(), vector(&x[2]), 1e-5), &parts(x))
            }),
            (&shapes[..2], &|x| crate::projections_after(Before::Gelu, x[0].clone(), &parts(x)), &|x| {
                crate::projections(crate::gelu(x[0].clone()), &parts(x))
            }),
            (&shapes, &|x| crate::projections_after(norm(x), x[0].clone(), &parts(x)), &|x| {
                crate::projections(normed(x), &parts(x))
            }),
        ];
        for (shapes, after, apart) in cases {
            check("after", shapes, after, apart);
            let inputs: Vec<Vec<f32>> = shapes.iter().enumerate().map(|(i, s)| numbers(s[0] * s[1], i as u64 + 1)).collect();
            for frozen in 0..1 << shapes.len() {
                let of = |f| evaluate(f, &inputs, shapes, frozen, &device);
                assert!(of(after) == of(apart), "{tokens} tokens, frozen {frozen:b}");
            }
        }
    }
}
