//! Folders of encoders and classifiers that `transformers` saved give the logits it computed; folders of ours are read back as they were.
//! `tests/peers/classify_parity.py fixtures` makes the first, and compares more in both directions.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use danlu_models::{
    Backbone, BackboneConfig, Bert, BertConfig, BertHeads, Classifier, DecoderConfig, Gpt2Config, HeadConfig, LlamaConfig,
    Pooling, SparseRows, Task, Texts, folder, names_and_shapes, trained,
};
use serde_json::Value;

fn numbers(x: Tensor<2>) -> Vec<f32> {
    x.into_data().try_into_vec().unwrap()
}

fn gap(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The texts of a fixture one by one and all together must give the expected logits.
fn check(name: &str, logits: impl Fn(&Texts) -> Tensor<2>) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let expected: Vec<Value> = serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap();
    let list = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    let rows = |value: &Value| -> Vec<f32> { serde_json::from_value::<Vec<Vec<f32>>>(value["logits"].clone()).unwrap().concat() };
    let texts: Vec<(Vec<u32>, Vec<u32>)> = expected.iter().map(|one| (list(&one["ids"]), list(&one["kinds"]))).collect();
    for ((ids, kinds), expected) in texts.iter().zip(&expected) {
        let found = numbers(logits(&Texts::new([(&ids[..], &kinds[..])])));
        assert!(gap(&found, &rows(expected)) <= 1e-4, "{name}: the logits differ by {}", gap(&found, &rows(expected)));
    }
    let together = numbers(logits(&Texts::new(texts.iter().map(|(ids, kinds)| (&ids[..], &kinds[..])))));
    let all: Vec<f32> = expected.iter().flat_map(rows).collect();
    assert!(gap(&together, &all) <= 1e-4, "{name}: texts read together see each other");
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

#[test]
fn heads_of_transformers_give_its_logits() {
    for name in ["bert-sequence", "llama-sequence", "qwen3-tokens", "gpt2-tokens"] {
        let (model, _) = folder::load_classifier(&fixture(name), &Device::flex()).unwrap();
        check(name, |texts| model.logits(texts, None, false));
    }
    let (bert, _) = folder::load_bert(&fixture("bert-masked"), &Device::flex()).unwrap();
    check("bert-masked", |texts| bert.masked_logits(bert.hidden(&texts.ids, Some(&texts.kinds), &texts.segments, false)));
}

fn backbones() -> Vec<BackboneConfig> {
    vec![
        BackboneConfig::Decoder(DecoderConfig::Llama(LlamaConfig::new(50, 32, 2, 8, 64))),
        BackboneConfig::Decoder(DecoderConfig::Qwen3(LlamaConfig::new(50, 32, 2, 8, 64))),
        BackboneConfig::Decoder(DecoderConfig::Gpt2(Gpt2Config::new(50, 32, 2, 64))),
        BackboneConfig::Bert(BertConfig::new(50, 32, 2, 64)),
    ]
}

fn head(task: Task, pooling: Pooling, features: usize) -> HeadConfig {
    let labels = if task == Task::Number { vec![] } else { vec!["no".to_string(), "yes".to_string(), "very".to_string()] };
    HeadConfig { task, labels, pooling, features }
}

fn texts() -> Texts {
    Texts::new([(&[1, 2, 3, 4][..], &[0, 0, 1, 1][..]), (&[9, 8][..], &[0, 0][..])])
}

fn features() -> SparseRows {
    let mut rows = SparseRows::default();
    rows.push(&[(0, 1.0), (6, -0.5)]);
    rows.push(&[(3, 2.0)]);
    rows
}

#[test]
fn every_head_on_every_backbone_trains_whole_and_is_read_back() {
    let device = Device::flex().autodiff();
    for config in backbones() {
        let bert = matches!(config, BackboneConfig::Bert(_));
        let usual = if bert { Pooling::First } else { Pooling::Last };
        for (task, pooling, count) in [
            (Task::Classes, usual, 0),
            (Task::Number, usual, 0),
            (Task::Tags, usual, 0),
            (Task::Classes, Pooling::Mean, 0),
            (Task::Classes, usual, 7),
            (Task::Number, Pooling::Mean, 7),
        ] {
            let head = head(task, pooling, count);
            let what = format!("{} {head:?}", config.model_type());
            let backbone = Backbone::new(&config, 1, &device).unwrap();
            let model = Classifier::new(Some((backbone, &config)), &head, 1, &device).unwrap();
            assert_eq!(names_and_shapes(&model), Classifier::shapes(Some(&config), &head).unwrap(), "{what}");
            let logits = model.logits(&texts(), (count > 0).then(features).as_ref(), false);
            assert_eq!(logits.dims(), [if task == Task::Tags { 6 } else { 2 }, head.outputs()], "{what}");
            // Nothing stands idle: what is trained takes part in the loss.
            let gradients = logits.clone().powf_scalar(2.0).sum().backward();
            let mut idle = vec![];
            struct Idle<'a>(&'a burn::tensor::Gradients, &'a mut Vec<usize>, usize);
            impl burn::module::ModuleVisitor for Idle<'_> {
                fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
                    if param.val().grad(self.0).is_none() {
                        self.1.push(self.2);
                    }
                    self.2 += 1;
                }
            }
            model.visit(&mut Idle(&gradients, &mut idle, 0));
            assert!(idle.is_empty() && trained(&model).len() == names_and_shapes(&model).len(), "{what}: {idle:?}");

            let dir = tempfile::tempdir().unwrap();
            folder::save_classifier(&model.valid(), Some(&config), Some(0), dir.path()).unwrap();
            let (read, again) = folder::load_classifier(dir.path(), &Device::flex()).unwrap();
            assert_eq!(read.config(), &head, "{what}");
            let found = read.logits(&texts(), (count > 0).then(features).as_ref(), false);
            assert_eq!(numbers(found), numbers(logits.inner()), "{what}");
            assert_eq!(again.unwrap().hidden_size(), 32);
            let written = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
            assert_eq!(
                written.contains("ForSequenceClassification"),
                pooling == usual && count == 0 && task != Task::Tags,
                "{what}"
            );
        }
    }
}

#[test]
fn features_alone_are_a_linear_model() {
    let head = head(Task::Classes, Pooling::Last, 7);
    let model = Classifier::new(None, &head, 1, &Device::flex()).unwrap();
    assert_eq!(numbers(model.head(None, Some(&features()))), [0.0; 6], "features start from zero");
    let mut empty = SparseRows::default();
    empty.push(&[]);
    assert_eq!(numbers(model.head(None, Some(&empty))), [0.0; 3]);
    let dir = tempfile::tempdir().unwrap();
    folder::save_classifier(&model, None, None, dir.path()).unwrap();
    assert!(folder::load_classifier(dir.path(), &Device::flex()).unwrap().1.is_none());
}

#[test]
fn what_makes_no_classifier_is_refused() {
    let config = &backbones()[0];
    let says = |head: HeadConfig, backbone: Option<&BackboneConfig>, part: &str| {
        let message = Classifier::shapes(backbone, &head).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    };
    says(head(Task::Classes, Pooling::First, 0), Some(config), "has seen nothing");
    says(head(Task::Classes, Pooling::Last, 0), None, "must be features");
    says(head(Task::Tags, Pooling::Last, 7), Some(config), "cannot use them");
    says(HeadConfig { labels: vec!["one".into()], ..head(Task::Classes, Pooling::Last, 0) }, Some(config), "at least two labels");
    let dir = tempfile::tempdir().unwrap();
    let bert = BertConfig::new(50, 32, 1, 16);
    let model = Bert::new(&bert, BertHeads::default(), 1, &Device::flex()).unwrap();
    folder::save_bert(&model, &bert, dir.path()).unwrap();
    assert!(folder::load_head_config(dir.path()).unwrap().is_none());
    let error = folder::load_classifier(dir.path(), &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("without a classifier's head"), "{error}");
}

#[test]
fn an_encoder_is_read_back_with_the_heads_it_has() {
    let config = BertConfig::new(50, 32, 2, 16);
    for heads in [BertHeads::default(), BertHeads { pooler: true, masked_lm: true }] {
        let model = Bert::new(&config, heads, 3, &Device::flex()).unwrap();
        let parameters: usize = names_and_shapes(&model).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        if heads == BertHeads::default() {
            assert_eq!(parameters as u64, config.parameters());
        }
        let dir = tempfile::tempdir().unwrap();
        folder::save_bert(&model, &config, dir.path()).unwrap();
        let (read, again) = folder::load_bert(dir.path(), &Device::flex()).unwrap();
        assert_eq!(again, config);
        assert_eq!(names_and_shapes(&read), names_and_shapes(&model));
        let texts = texts();
        let of = |bert: &Bert| numbers(bert.hidden(&texts.ids, None, &texts.segments, false));
        assert_eq!(of(&read), of(&model));
    }
}

/// Both forms of LeNet, of grey and of coloured pictures: read back it gives the same, and every parameter is trained.
#[test]
fn generators_are_read_back_with_their_discriminators() {
    use danlu_models::{Gan, GanConfig, GanForm, noise};
    for (form, spectral) in [(GanForm::Mlp, true), (GanForm::Dcgan, false), (GanForm::Dcgan, true)] {
        let config = GanConfig::new(form, [3, 8, 12], 5, &[6, 4], spectral);
        let device = Device::flex();
        let gan = Gan::new(&config, 3, &device).unwrap();
        let rows = |count: usize| {
            let values = burn::tensor::TensorData::new(noise(1, 0, count, 5), [count, 5]);
            Tensor::<2>::from_data(values, &device)
        };
        let dir = tempfile::tempdir().unwrap();
        if form == GanForm::Dcgan {
            let error = folder::save_gan(&gan, &config, dir.path()).unwrap_err().to_string();
            assert!(error.contains("settle"), "{error}");
        }
        let gan = Gan { generator: gan.generator.settled(rows(64)), ..gan };
        let both = |gan: &Gan| {
            let drawn = gan.generator.forward(rows(4));
            let scores = gan.discriminator.scorer().scores(drawn.clone());
            [numbers(drawn), numbers(scores)].concat()
        };
        let expected = both(&gan);
        assert_eq!(expected.len(), 4 * 3 * 8 * 12 + 4);
        folder::save_gan(&gan, &config, dir.path()).unwrap();
        assert!(folder::is_gan(dir.path()).unwrap() && !folder::is_lenet(dir.path()).unwrap());
        let (read, found) = folder::load_gan(dir.path(), &device).unwrap();
        assert_eq!(found, config);
        assert_eq!(both(&read), expected);
        // Without the statistics it is what is trained: the fresh model's parameters, name by name.
        let names = |gan: &Gan| names_and_shapes(gan);
        assert_eq!(names(&read.unsettled()), names(&Gan::new(&config, 3, &device).unwrap()));
        let mut file: Value = serde_json::from_slice(&std::fs::read(dir.path().join("config.json")).unwrap()).unwrap();
        file["latent_size"] = serde_json::json!(7);
        std::fs::write(dir.path().join("config.json"), file.to_string()).unwrap();
        let error = format!("{:#}", folder::load_gan(dir.path(), &device).unwrap_err());
        assert!(error.contains("generator.layers.0.weight") && error.contains("shape"), "{error}");
    }
}

#[test]
fn lenets_are_read_back_as_they_were_written() {
    use danlu_models::{Lenet, LenetConfig, LenetForm};
    for (form, picture) in [(LenetForm::Paper, [1, 28, 28]), (LenetForm::Modern, [3, 20, 24])] {
        let labels = ["cat", "dog", "bird"].map(String::from).into();
        let mut config = LenetConfig::new(form, picture, &[4, 6], &[10], labels);
        config.image_mean = vec![0.25; picture[0]];
        config.image_std = vec![0.5; picture[0]];
        let device = Device::flex();
        let lenet = Lenet::new(&config, 3, &device).unwrap();
        let count: usize = names_and_shapes(&lenet).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        assert_eq!(count as u64, config.parameters());
        let values: Vec<f32> = (0..2 * lenet.picture().len()).map(|i| (i as f32 * 0.37).sin()).collect();
        let pictures = |device: &Device| {
            Tensor::<2>::from_data(burn::tensor::TensorData::new(values.clone(), [2, lenet.picture().len()]), device)
        };
        let expected = lenet.logits(pictures(&device));
        assert_eq!(expected.dims(), [2, 3]);
        assert_eq!(lenet.features(pictures(&device)).dims(), [2, 10]);
        let expected = numbers(expected);
        assert!(expected.iter().all(|x| x.is_finite()) && gap(&expected[..3], &expected[3..]) > 1e-4, "{expected:?}");

        let dir = tempfile::tempdir().unwrap();
        folder::save_lenet(&lenet, &config, dir.path()).unwrap();
        assert!(folder::is_lenet(dir.path()).unwrap());
        let (read, found) = folder::load_lenet(dir.path(), &device).unwrap();
        assert_eq!(found, config);
        assert_eq!(numbers(read.logits(pictures(&device))), expected);
        let mut file: Value = serde_json::from_slice(&std::fs::read(dir.path().join("config.json")).unwrap()).unwrap();
        assert_eq!(file["id2label"]["2"], "bird");
        file["channels"] = serde_json::json!([4, 7]);
        std::fs::write(dir.path().join("config.json"), file.to_string()).unwrap();
        let error = format!("{:#}", folder::load_lenet(dir.path(), &device).unwrap_err());
        assert!(error.contains("convolutions.1.weight") && error.contains("shape"), "{error}");

        let device = device.autodiff();
        let lenet = Lenet::new(&config, 3, &device).unwrap();
        assert_eq!(trained(&lenet).len(), names_and_shapes(&lenet).len());
        let gradients = lenet.logits(pictures(&device)).square().sum().backward();
        for filters in &lenet.convolutions {
            let gradient = filters.weight.val().grad(&gradients).unwrap();
            assert!(gradient.square().sum().into_scalar::<f32>() > 0.0);
        }
    }
}
