//! What must hold for every adapter on every architecture.

mod common;

use burn::module::Module;
use burn::tensor::Device;
use common::{configs, tokens};
use danlu_models::adapter::{self, logits_gap};
use danlu_models::{AdapterSpec, Batch, Cache, Decoder, DecoderConfig, LoraSpec, names, trained};
use danlu_ops::IGNORE;

fn specs() -> Vec<(&'static str, AdapterSpec)> {
    let lora = LoraSpec { rank: 3, alpha: 6.0, ..LoraSpec::default() };
    vec![
        ("lora", AdapterSpec::Lora(lora.clone())),
        ("rslora", AdapterSpec::Lora(LoraSpec { rank_stabilized: true, ..lora.clone() })),
        ("dora", AdapterSpec::Lora(LoraSpec { dora: true, ..lora })),
        ("prompt", AdapterSpec::Prompt { tokens: 3 }),
    ]
}

/// The adapter's values moved away from where they begin, which B does not do by itself.
fn shaken<M: Module>(model: M) -> M {
    let mut state = 1u32;
    let adapted = trained(&model);
    names::fill_some(model, |name, shape| {
        let draws = (0..shape.iter().product()).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let draw = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
            if name.ends_with("vector") { 1.0 + draw } else { draw }
        });
        Ok(adapted.iter().any(|adapted| adapted == name).then(|| draws.collect()))
    })
    .unwrap()
}

/// Every architecture with every adapter, on a float and on a 4-bit base.
fn each(mut check: impl FnMut(&str, &DecoderConfig, &AdapterSpec, Decoder, Decoder)) {
    for (model, config) in configs() {
        for (kind, spec) in specs() {
            for nf4 in [false, true] {
                let base = Decoder::new(&config, 3, &Device::flex().autodiff()).unwrap();
                let base = if nf4 { base.quantized().unwrap() } else { base };
                let adapted = base.with_adapter(&spec, 5).unwrap();
                check(&format!("{model}, {kind}, nf4 {nf4}"), &config, &spec, base, adapted);
            }
        }
    }
}

fn document(config: &DecoderConfig) -> Batch {
    Batch::document(&tokens(12, config.vocab_size()))
}

#[test]
fn a_new_adapter_changes_nothing_and_the_base_stays_as_it_was() {
    each(|name, config, spec, base, adapted| {
        let batch = document(config);
        if let AdapterSpec::Lora(_) = spec {
            let gap = logits_gap(&base, &adapted, &batch).unwrap();
            assert!(gap < 2e-5, "{name}: {gap}");
        }
        let moved = shaken(adapted);
        assert!(logits_gap(&base, &moved, &batch).unwrap() > 1e-3, "{name}: the adapter does nothing");
        assert_eq!(logits_gap(&base, &moved.base(), &batch).unwrap(), 0.0, "{name}");
        assert_eq!(moved.weights_hash().unwrap(), base.weights_hash().unwrap(), "{name}");
    });
}

#[test]
fn only_the_adapter_is_trained_and_all_of_it() {
    each(|name, config, spec, base, adapted| {
        let adapted = shaken(adapted);
        let all = tokens(13, config.vocab_size());
        let batch = Batch::new(all[..12].to_vec(), all[1..].to_vec(), 1, 12, vec![5]);
        for recompute in [false, true] {
            let loss = if recompute { adapted.loss_recomputed(&batch) } else { adapted.loss(&batch) };
            let mut gradients = loss.backward();
            let found = with_gradient(&adapted, &mut gradients);
            assert_eq!(found, trained(&adapted), "{name}, recomputed {recompute}");
            let expected = match spec {
                AdapterSpec::Prompt { .. } => 1,
                AdapterSpec::Lora(spec) => {
                    let projections = if matches!(config, DecoderConfig::Gpt2(_)) { 4 } else { 7 };
                    config.layers() * projections * if spec.dora { 3 } else { 2 }
                }
            };
            assert_eq!(found.len(), expected, "{name}");
        }
        assert!(!trained(&base).is_empty() || base.is_quantized(), "{name}: the base itself was frozen");
    });
}

fn with_gradient(model: &impl Module, gradients: &mut burn::tensor::Gradients) -> Vec<String> {
    use burn::module::{ModuleVisitor, Param};
    struct Found<'a>(&'a mut burn::tensor::Gradients, Vec<bool>);
    impl ModuleVisitor for Found<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<burn::tensor::Tensor<D>>) {
            self.1.push(param.val().grad_remove(self.0).is_some());
        }
    }
    let mut found = Found(gradients, vec![]);
    model.visit(&mut found);
    let names = danlu_models::names_and_shapes(model);
    names.into_iter().zip(found.1).filter(|(_, found)| *found).map(|((name, _), _)| name).collect()
}

#[test]
fn merged_and_unmerged_give_the_same_logits() {
    each(|name, config, spec, base, adapted| {
        let adapted = shaken(adapted);
        if let AdapterSpec::Prompt { .. } = spec {
            assert!(adapted.merged().unwrap_err().to_string().contains("cannot be merged"));
            return;
        }
        let merged = adapted.merged().unwrap();
        let gap = logits_gap(&adapted, &merged.decoder, &document(config)).unwrap();
        assert!(gap < 1e-4, "{name}: {gap}");
        let error = merged.quantization_error;
        assert_eq!(error.is_some(), base.is_quantized(), "{name}");
        assert!(error.is_none_or(|error| (0.01..0.2).contains(&error)), "{name}: {error:?}");
        assert!(!merged.decoder.is_adapted() && !merged.decoder.is_quantized());
    });
}

#[test]
fn cached_and_packed_tokens_see_the_adapter_as_one_document_does() {
    each(|name, config, _, _, adapted| {
        let adapted = shaken(adapted).valid();
        let vocabulary = config.vocab_size();
        let all = tokens(12, vocabulary);
        let numbers = |batch: &Batch| adapted.logits(batch).into_data().try_into_vec::<f32>().unwrap();
        let whole = numbers(&Batch::document(&all));
        let mut cache = Cache::new(&adapted, 12);
        let close = |what: &str, got: &[f32], want: &[f32]| {
            let gap = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(got.len() == want.len() && gap < 2e-5, "{name}, {what}: {gap}");
        };
        for (start, end) in [(0, 5), (5, 6), (6, 12)] {
            let last = adapted.step(&all[start..end], &mut cache);
            close("cached", &last, &whole[(end - 1) * vocabulary..end * vocabulary]);
            assert_eq!(cache.len(), end);
        }
        cache.truncate(7);
        close("after going back", &adapted.step(&all[7..9], &mut cache), &whole[8 * vocabulary..9 * vocabulary]);
        cache.truncate(0);
        close("from the start", &adapted.step(&all[..2], &mut cache), &whole[vocabulary..2 * vocabulary]);
        let packed = numbers(&Batch::new(all.clone(), vec![IGNORE; 12], 2, 6, vec![2, 9]));
        for (start, end) in [(0, 2), (2, 6), (6, 9), (9, 12)] {
            let alone = numbers(&Batch::document(&all[start..end]));
            close("packed", &packed[start * vocabulary..end * vocabulary], &alone);
        }
    });
}

#[test]
fn a_folder_gives_back_the_adapter_and_refuses_another_base() {
    each(|name, config, spec, base, adapted| {
        let adapted = shaken(adapted);
        let dir = tempfile::tempdir().unwrap();
        adapter::save(&adapted, spec, config, "some/base", dir.path()).unwrap();
        let read = adapter::load(dir.path(), &base).unwrap();
        assert_eq!(logits_gap(&adapted, &read.decoder, &document(config)).unwrap(), 0.0, "{name}");
        assert_eq!(read.base.as_deref(), Some("some/base"));
        let again = || {
            adapter::save(&adapted, spec, config, "some/base", dir.path()).unwrap();
            std::fs::read(dir.path().join("adapter_model.safetensors")).unwrap()
        };
        let first = again();
        assert!((0..8).all(|_| again() == first), "{name}: the same adapter is another file");
        let other = Decoder::new(config, 4, &Device::flex()).unwrap();
        let error = format!("{:#}", adapter::load(dir.path(), &other).unwrap_err());
        assert!(error.contains("for another base") && error.contains("some/base"), "{name}: {error}");
        // The same base in the other form is the same base.
        let float = Decoder::new(config, 3, &Device::flex()).unwrap();
        adapter::load(dir.path(), &float).unwrap();
        assert!(danlu_models::folder::save(&adapted, config, dir.path()).unwrap_err().to_string().contains("merge"));
    });
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (_, config) = configs().remove(0);
    let base = Decoder::new(&config, 3, &Device::flex()).unwrap();
    let lora = LoraSpec::default();
    let refused = |spec: AdapterSpec, words: &str| {
        let error = format!("{:#}", base.with_adapter(&spec, 0).unwrap_err());
        assert!(error.contains(words), "{error} lacks {words:?}");
    };
    refused(
        AdapterSpec::Lora(LoraSpec { targets: vec!["q_proj".into(), "c_attn".into()], ..lora.clone() }),
        "\"c_attn\" is no projection",
    );
    refused(AdapterSpec::Lora(LoraSpec { rank: 0, ..lora.clone() }), "a rank of 0");
    refused(AdapterSpec::Lora(LoraSpec { alpha: f64::NAN, ..lora.clone() }), "an alpha of NaN");
    refused(AdapterSpec::Prompt { tokens: 0 }, "0 learned tokens");
    refused(AdapterSpec::Prompt { tokens: 32 }, "no room");
    let spec = AdapterSpec::Lora(LoraSpec { targets: vec!["q_proj".into()], ..lora });
    let adapted = base.with_adapter(&spec, 0).unwrap();
    assert!(adapted.with_adapter(&spec, 0).is_err());
    let dir = tempfile::tempdir().unwrap();
    adapter::save(&adapted, &spec, &config, "b", dir.path()).unwrap();
    let path = dir.path().join("adapter_config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    for (from, to, words) in [
        ("\"LORA\"", "\"IA3\"", "`peft_type`"),
        ("\"bias\": \"none\"", "\"bias\": \"all\"", "`bias`"),
        ("\"r\": 16", "\"r\": 8", "another base"),
        ("{", "[", "PEFT"),
    ] {
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = format!("{:#}", adapter::load(dir.path(), &base).unwrap_err());
        assert!(error.contains(words), "{error} lacks {words:?}");
    }
    // A base of another width: the shapes say so even without a hash.
    std::fs::write(&path, &text).unwrap();
    let DecoderConfig::Llama(mut wider) = config else { unreachable!("the first is a llama") };
    wider.hidden_size = 24;
    let wider = Decoder::new(&DecoderConfig::Llama(wider), 3, &Device::flex()).unwrap();
    assert!(format!("{:#}", adapter::load(dir.path(), &wider).unwrap_err()).contains("another base"));
}

/// What holds for decoders holds for a Vision Transformer, whose updates become part of its weights.
#[test]
fn a_vision_transformer_has_low_rank_updates() {
    use burn::tensor::{Tensor, TensorData};
    use danlu_models::{Vit, VitConfig, names_and_shapes};
    let config = VitConfig::new([1, 8, 8], 4, 32, 2);
    let base = Vit::new(&config, 3, &Device::flex().autodiff()).unwrap();
    let pictures = |device: &Device| {
        let values: Vec<f32> = (0..128).map(|i| (i as f32 * 0.37).sin()).collect();
        Tensor::<2>::from_data(TensorData::new(values, [2, 64]), device)
    };
    let states =
        |vit: &Vit| -> Vec<f32> { vit.valid().wholes(pictures(&Device::flex()), None).into_data().iter::<f32>().collect() };
    let gap = |a: &Vit, b: &Vit| states(a).iter().zip(states(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    for (kind, spec) in specs() {
        let AdapterSpec::Lora(lora) = &spec else {
            assert!(base.with_adapter(&spec, 5).unwrap_err().to_string().contains("decoders"));
            continue;
        };
        let adapted = base.with_adapter(&spec, 5).unwrap();
        assert!(gap(&base, &adapted) < 2e-5, "{kind}");
        let expected = trained(&adapted);
        assert_eq!(expected.len(), 2 * 6 * if lora.dora { 3 } else { 2 }, "{kind}");
        let shapes = names_and_shapes(&adapted);
        let size = |name: &String| {
            shapes.iter().filter(|(known, _)| known == name).map(|(_, shape)| shape.iter().product::<usize>() as u64).sum::<u64>()
        };
        assert_eq!(expected.iter().map(size).sum::<u64>(), adapter::parameters_of_vit(&config, &spec).unwrap(), "{kind}");

        let moved = shaken(adapted);
        assert!(gap(&base, &moved) > 0.05, "{kind}: the adapter does nothing");
        let mut gradients = moved.wholes(pictures(&Device::flex().autodiff()), None).powi_scalar(2).sum().backward();
        assert_eq!(with_gradient(&moved, &mut gradients), expected, "{kind}");
        let merged = moved.merged().unwrap();
        assert_eq!(names_and_shapes(&merged), names_and_shapes(&base), "{kind}");
        assert!(gap(&moved, &merged) < 1e-3, "{kind}");
        assert!(merged.merged().unwrap_err().to_string().contains("no adapter"));
        assert!(moved.with_adapter(&spec, 5).unwrap_err().to_string().contains("already"));
    }
    let other = AdapterSpec::Lora(LoraSpec { targets: vec!["q_proj".into()], ..LoraSpec::default() });
    assert!(base.with_adapter(&other, 5).unwrap_err().to_string().contains("query"));
}
