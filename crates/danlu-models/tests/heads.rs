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
        assert!(folder::is_gan(dir.path()).unwrap() && folder::picture_kind(dir.path()).unwrap().is_none());
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
    use danlu_models::{Lenet, LenetConfig, LenetForm, PictureClassifier, PictureConfig};
    for (form, picture) in [(LenetForm::Paper, [1, 28, 28]), (LenetForm::Modern, [3, 20, 24])] {
        let labels = ["cat", "dog", "bird"].map(String::from).into();
        let mut config = LenetConfig::new(form, picture, &[4, 6], &[10], labels);
        config.image_mean = vec![0.25; picture[0]];
        config.image_std = vec![0.5; picture[0]];
        let device = Device::flex();
        let lenet = Lenet::new(&config, 3, &device).unwrap();
        assert_eq!(count(&lenet), config.parameters());
        let each = lenet.picture().len();
        let pictures = |device: &Device| waves(2, each, device);
        let expected = lenet.logits(pictures(&device));
        assert_eq!(expected.dims(), [2, 3]);
        assert_eq!(lenet.features(pictures(&device)).dims(), [2, 10]);
        let expected = numbers(expected);
        assert!(expected.iter().all(|x| x.is_finite()) && gap(&expected[..3], &expected[3..]) > 1e-4, "{expected:?}");

        let dir = tempfile::tempdir().unwrap();
        let of_any = PictureConfig::Lenet(config.clone());
        folder::save_picture_classifier(&PictureClassifier::Lenet(lenet), &of_any, dir.path()).unwrap();
        assert_eq!(folder::picture_kind(dir.path()).unwrap(), Some("lenet"));
        let (read, found) = folder::load_picture_classifier(dir.path(), &device).unwrap();
        assert_eq!(found, of_any);
        assert_eq!(numbers(read.logits(pictures(&device))), expected);
        let mut file: Value = serde_json::from_slice(&std::fs::read(dir.path().join("config.json")).unwrap()).unwrap();
        assert_eq!(file["id2label"]["2"], "bird");
        file["channels"] = serde_json::json!([4, 7]);
        std::fs::write(dir.path().join("config.json"), file.to_string()).unwrap();
        let error = format!("{:#}", folder::load_picture_classifier(dir.path(), &device).unwrap_err());
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

/// How many values a module's parameters have.
fn count(module: &impl Module) -> u64 {
    names_and_shapes(module).iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum()
}

/// Made-up pictures.
fn waves(count: usize, each: usize, device: &Device) -> Tensor<2> {
    let values: Vec<f32> = (0..count * each).map(|i| (i as f32 * 0.37).sin() + (i as f32 * 0.011).cos()).collect();
    Tensor::from_data(burn::tensor::TensorData::new(values, [count, each]), device)
}

fn vit_config(picture: [usize; 3]) -> danlu_models::VitConfig {
    let labels = ["cat", "dog", "bird"].map(String::from).into();
    let base = danlu_models::VitConfig::new(picture, 4, 32, 2);
    danlu_models::VitConfig { labels, image_mean: vec![0.25; picture[0]], image_std: vec![0.3; picture[0]], ..base }
}

/// A Vision Transformer of grey and of coloured pictures: read back it gives the same, what it says of a picture does not depend on those
/// beside it, and all patches kept is none left out.
#[test]
fn vision_transformers_are_read_back_and_see_the_patches_that_are_kept() {
    use danlu_models::{PictureClassifier, PictureConfig, VitClassifier, VitConfig};
    for picture in [[1, 12, 12], [3, 8, 16]] {
        let (config, device) = (vit_config(picture), Device::flex());
        let model = VitClassifier::new(&config, 3, &device).unwrap();
        assert_eq!(count(&model), config.parameters());
        let patches = model.vit.patches();
        let pictures = waves(2, model.vit.picture().len(), &device);
        let expected = numbers(model.logits(pictures.clone(), None));
        assert!(expected.iter().all(|x| x.is_finite()) && gap(&expected[..3], &expected[3..]) > 1e-5, "{expected:?}");
        let alone = numbers(model.logits(pictures.clone().narrow(0, 1, 1), None));
        assert!(gap(&alone, &expected[3..]) < 1e-5, "a picture sees the one beside it");
        let all = (0..2).flat_map(|_| 0..patches as u32).collect();
        assert!(gap(&numbers(model.logits(pictures.clone(), Some(&all))), &expected) < 1e-6);
        // The last layer that finishes one token only gives what it would give of all.
        let (states, wholes) = (model.vit.states(pictures.clone(), None), numbers(model.vit.wholes(pictures.clone(), None)));
        let firsts = numbers(Tensor::cat(vec![states.clone().narrow(0, 0, 1), states.narrow(0, patches + 1, 1)], 0));
        assert!(gap(&firsts, &wholes) < 1e-4);
        // What is not kept is not seen: of two pictures that differ in the last patch alone, and of which it is left out.
        let mut other = numbers(pictures.clone().narrow(0, 0, 1));
        *other.last_mut().unwrap() += 3.0;
        let other = Tensor::<2>::from_data(burn::tensor::TensorData::new(other, [1, model.vit.picture().len()]), &device);
        let both = Tensor::cat(vec![pictures.clone().narrow(0, 0, 1), other], 0);
        let few = (0..2).flat_map(|_| [0, 2]).collect();
        let of_few = numbers(model.logits(both.clone(), Some(&few)));
        assert!(gap(&of_few[..3], &of_few[3..]) < 1e-6);
        let of_all = numbers(model.logits(both, None));
        assert!(gap(&of_all[..3], &of_all[3..]) > 1e-5);

        let dir = tempfile::tempdir().unwrap();
        let of_any = PictureConfig::Vit(config.clone());
        folder::save_picture_classifier(&PictureClassifier::Vit(model), &of_any, dir.path()).unwrap();
        let (read, found) = folder::load_picture_classifier(dir.path(), &device).unwrap();
        assert_eq!(found, of_any);
        assert_eq!(numbers(read.logits(pictures.clone())), expected);
        assert_eq!(folder::load_vit(dir.path(), &device).unwrap().1, config);
        let file: Value = serde_json::from_slice(&std::fs::read(dir.path().join("config.json")).unwrap()).unwrap();
        assert_eq!(file["architectures"][0], "ViTForImageClassification");
        assert_eq!(file["id2label"]["2"], "bird");
        // A folder without its own scale reads values from -1 to 1.
        std::fs::remove_file(dir.path().join("preprocessor_config.json")).unwrap();
        let (_, found) = folder::load_picture_classifier(dir.path(), &device).unwrap();
        let usual = VitConfig { image_mean: vec![0.5; picture[0]], image_std: vec![0.5; picture[0]], ..config };
        assert_eq!(found, PictureConfig::Vit(usual));
    }
}

/// Features beside a network, and alone: they begin by changing nothing, are read back, and the network is there without them.
#[test]
fn features_stand_beside_a_network_of_pictures_or_alone() {
    use danlu_models::names::fill_some;
    use danlu_models::{PictureClassifier, PictureConfig, PictureLabeller, PictureLabellerConfig};
    let (device, vit) = (Device::flex(), vit_config([1, 8, 12]));
    let network = PictureConfig::Vit(vit.clone());
    let beside = PictureLabellerConfig::of(network.clone(), 5);
    let alone = PictureLabellerConfig { network: None, ..beside.clone() };
    let (pictures, features) = (waves(2, 96, &device), waves(2, 5, &device));
    for config in [beside, alone] {
        let backbone = config.network.as_ref().map(|network| PictureClassifier::new(network, 3, &device).unwrap());
        let of_network = backbone.as_ref().map_or(vec![0.0; 6], |network| numbers(network.logits(pictures.clone())));
        let model = PictureLabeller::new(backbone, &config, &device).unwrap();
        assert_eq!(count(&model), config.parameters());
        let logits = |model: &PictureLabeller| numbers(model.logits(pictures.clone(), Some(features.clone())));
        assert!(gap(&logits(&model), &of_network) < 1e-6);
        let moved = fill_some(model, |name, shape| {
            let values = (0..shape.iter().product::<usize>()).map(|i| (i as f32).sin()).collect();
            Ok(name.starts_with("features.").then_some(values))
        });
        let moved = moved.unwrap();
        let expected = logits(&moved);
        assert!(gap(&expected, &of_network) > 0.1);

        let dir = tempfile::tempdir().unwrap();
        folder::save_picture_labeller(&moved, &config, dir.path()).unwrap();
        let (read, found) = folder::load_picture_labeller(dir.path(), &device).unwrap();
        assert_eq!(found, config);
        assert_eq!(logits(&read), expected);
        let mut file: Value = serde_json::from_slice(&std::fs::read(dir.path().join("config.json")).unwrap()).unwrap();
        assert!(file["architectures"].is_null(), "the class of transformers leaves features out");
        let without = folder::load_picture_classifier(dir.path(), &device);
        if config.network.is_some() {
            let (read, found) = without.unwrap();
            assert_eq!((numbers(read.logits(pictures.clone())), found), (of_network, network.clone()));
            assert_eq!(folder::load_vit(dir.path(), &device).unwrap().1, vit);
        } else {
            assert!(format!("{:#}", without.unwrap_err()).contains("picture_features"));
        }
        file["danlu"]["features"] = serde_json::json!(6);
        std::fs::write(dir.path().join("config.json"), file.to_string()).unwrap();
        let error = format!("{:#}", folder::load_picture_labeller(dir.path(), &device).unwrap_err());
        assert!(error.contains("features.weight") && error.contains("shape"), "{error}");
    }
    let none = PictureLabellerConfig { network: None, ..PictureLabellerConfig::of(network, 0) };
    assert!(PictureLabeller::new(None, &none, &device).unwrap_err().to_string().contains("there must be features"));
}

/// The gradients of a loss of a tiny network are those that finite differences find: along each parameter's own gradient, where the
/// difference is largest.
fn check_gradients<M: Module>(model: &M, loss: impl Fn(&M) -> Tensor<1>) {
    use danlu_models::names::fill_some;
    let mut gradients = Gradients { found: loss(model).backward(), all: vec![] };
    model.visit(&mut gradients);
    let names = names_and_shapes(model);
    assert_eq!(gradients.all.len(), names.len());
    for ((name, _), gradient) in names.iter().zip(&gradients.all) {
        let length = gradient.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        assert!(length > 1e-7, "{name} gets no gradient");
        let step = 3e-3 / length;
        let moved = |sign: f64| {
            let values = danlu_models::to_named(model).unwrap();
            let values = &values.iter().find(|(known, _)| known == name).unwrap().1;
            let values: Vec<f32> =
                values.iter::<f32>().zip(gradient).map(|(x, g)| x + (sign * step * f64::from(*g)) as f32).collect();
            let model = fill_some(model.clone(), |known, _| Ok((known == name).then(|| values.clone()))).unwrap();
            f64::from(loss(&model).into_scalar::<f32>())
        };
        let found = (moved(1.0) - moved(-1.0)) / 6e-3;
        assert!((found - length).abs() < 0.02 * length + 3e-4, "{name}: {found} by differences, {length} by gradient");
    }
}

struct Gradients {
    found: burn::tensor::Gradients,
    all: Vec<Vec<f32>>,
}

impl burn::module::ModuleVisitor for Gradients {
    fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
        let gradient = param.val().grad(&self.found);
        self.all.push(gradient.map_or(vec![], |gradient| gradient.into_data().iter::<f32>().collect()));
    }
}

#[test]
fn every_parameter_of_a_vision_transformer_gets_its_gradient() {
    // A bias of the keys moves all that a query sees alike, which softmax does not notice.
    let config = danlu_models::VitConfig { qkv_bias: false, ..vit_config([1, 8, 8]) };
    let device = Device::flex().autodiff();
    let model = danlu_models::VitClassifier::new(&config, 3, &device).unwrap();
    let kept = [0, 1, 3, 0, 2, 3].into();
    check_gradients(&model, |model| (model.logits(waves(2, 64, &device), Some(&kept)) * 5.0).sin().sum());
}

/// What the autoencoder does with patches: the encoder sees those that are kept and the loss asks for the others; read back it is the same,
/// and its encoder is found by whoever starts from it.
#[test]
fn masked_autoencoders_tell_what_they_do_not_see() {
    use danlu_models::{Mae, MaeConfig};
    let vit = danlu_models::VitConfig { labels: vec![], qkv_bias: false, ..vit_config([1, 8, 12]) };
    let config = MaeConfig { mask_ratio: 0.5, ..MaeConfig::new(vit, 16, 1) };
    let device = Device::flex();
    let mae = Mae::new(&config, 3, &device).unwrap();
    assert_eq!(count(&mae), config.parameters());
    assert_eq!(config.kept(), 3);
    let pictures = waves(2, 96, &device);
    let kept = [0, 2, 5, 1, 2, 3].into();
    let losses = mae.losses(pictures.clone(), &kept);
    let mean = mae.loss(pictures.clone(), &kept).into_scalar::<f32>();
    assert!(losses.len() == 2 && ((losses[0] + losses[1]) / 2.0 - mean).abs() < 1e-5, "{losses:?} {mean}");
    let (told, are) = mae.told(pictures.clone(), &kept);
    assert_eq!((told.dims(), are.dims()), ([6, 16], [6, 16]));
    // Normalized: each patch has mean 0 and, over 15, a sum of squares of 1.
    for row in numbers(are).chunks(16) {
        let (mean, squares) = (row.iter().sum::<f32>() / 16.0, row.iter().map(|x| x * x).sum::<f32>() / 15.0);
        assert!(mean.abs() < 1e-4 && (squares - 1.0).abs() < 1e-3, "{mean} {squares}");
    }
    // The first patch that is hidden in the second picture is its first, pixel after pixel.
    let plain = Mae::new(&MaeConfig { norm_pix_loss: false, ..config.clone() }, 3, &device).unwrap();
    let (first, second) = (numbers(plain.told(pictures.clone(), &kept).1), numbers(pictures.clone().narrow(0, 1, 1)));
    let patch: Vec<f32> = (0..16).map(|i| second[i / 4 * 12 + i % 4]).collect();
    assert_eq!(first[3 * 16..4 * 16], patch);
    // What is hidden changes what is asked, and nothing that is told.
    let mut changed = numbers(pictures.clone().narrow(0, 0, 1));
    changed[4] += 2.0;
    let changed = Tensor::<2>::from_data(burn::tensor::TensorData::new(changed, [1, 96]), &device);
    let alone = [0, 2, 5].into();
    let of = |pictures: Tensor<2>| {
        let (told, are) = plain.told(pictures, &alone);
        (numbers(told), numbers(are))
    };
    let (before, after) = (of(pictures.clone().narrow(0, 0, 1)), of(changed));
    assert!(gap(&before.0, &after.0) < 1e-6 && gap(&before.1, &after.1) > 1.0);

    let dir = tempfile::tempdir().unwrap();
    folder::save_mae(&mae, &config, dir.path()).unwrap();
    let (read, found) = folder::load_mae(dir.path(), &device).unwrap();
    assert_eq!(found, config);
    assert_eq!(read.losses(pictures.clone(), &kept), losses);
    // Published weights have the names that are written, and so has the model in `transformers`, which saves others.
    let file = dir.path().join("model.safetensors");
    let written = std::fs::read(&file).unwrap();
    let renamed =
        |(name, values): (String, _)| (name.replace("decoder.decoder_layers.", "decoder.decoder_encoder.layer."), values);
    let written = safetensors::SafeTensors::deserialize(&written).unwrap().tensors();
    assert!(written.iter().any(|(name, _)| name == "decoder.decoder_layers.0.attention.attention.query.weight"));
    safetensors::serialize_to_file(written.into_iter().map(renamed), None, &file).unwrap();
    assert_eq!(folder::load_mae(dir.path(), &device).unwrap().0.losses(pictures.clone(), &kept), losses);
    let (vit, of_vit) = folder::load_vit(dir.path(), &device).unwrap();
    assert_eq!((of_vit, names_and_shapes(&vit)), (config.vit.clone(), names_and_shapes(&mae.vit)));
    assert_eq!(numbers(vit.states(pictures.clone(), None)), numbers(mae.vit.states(pictures, None)));
    let error = format!("{:#}", folder::load_picture_classifier(dir.path(), &device).unwrap_err());
    assert!(error.contains("model.from"), "{error}");

    let device = Device::flex().autodiff();
    let mae = Mae::new(&config, 3, &device).unwrap();
    check_gradients(&mae, |mae| mae.loss(waves(2, 96, &device), &kept));
}

/// An embedder gives vectors of length 1, read back the same ones; its folder says that it names no class and is found by whoever starts from
/// it; and everything in it learns, and the directions of identities beside it.
#[test]
fn embedders_are_read_back_and_learn_whole() {
    use danlu_models::{Recognizer, VitEmbedder, VitEmbedderConfig};
    let vit = danlu_models::VitConfig { labels: vec![], qkv_bias: false, ..vit_config([3, 8, 12]) };
    let (config, device) = (VitEmbedderConfig { vit, embedding_size: 6 }, Device::flex());
    let embedder = VitEmbedder::new(&config, 3, &device).unwrap();
    assert_eq!(count(&embedder), config.parameters());
    let pictures = waves(2, 288, &device);
    let found = numbers(embedder.embeddings(pictures.clone(), None));
    for vector in found.chunks(6) {
        assert!((vector.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5, "{vector:?}");
    }
    assert!(gap(&found[..6], &found[6..]) > 1e-5, "both pictures have one vector");
    let dir = tempfile::tempdir().unwrap();
    folder::save_picture_embedder(&embedder, &config, dir.path()).unwrap();
    let (read, of_file) = folder::load_picture_embedder(dir.path(), &device).unwrap();
    assert_eq!((of_file, numbers(read.embeddings(pictures.clone(), None))), (config.clone(), found.clone()));
    let (vit, of_vit) = folder::load_vit(dir.path(), &device).unwrap();
    assert_eq!(
        (of_vit, numbers(vit.wholes(pictures.clone(), None))),
        (config.vit.clone(), numbers(embedder.vit.wholes(pictures, None)))
    );
    let error = format!("{:#}", folder::load_picture_classifier(dir.path(), &device).unwrap_err());
    assert!(error.contains("embed alike"), "{error}");
    let file: Value = serde_json::from_slice(&std::fs::read(dir.path().join("config.json")).unwrap()).unwrap();
    assert_eq!((&file["architectures"][0], &file["num_labels"]), (&"ViTForImageClassification".into(), &6.into()));

    let device = Device::flex().autodiff();
    let embedder = VitEmbedder::new(&config, 3, &device).unwrap();
    let model = Recognizer::new(embedder, &config, 3, 3, &device).unwrap();
    check_gradients(&model, |model| (model.cosines(waves(2, 288, &device), None) * 3.0).sin().sum());
}

/// What a network says of every place: the cells of all patches lie row by row, read back it says the same, a new head stands on its encoder,
/// and every parameter gets its gradient.
#[test]
fn networks_for_every_place_are_read_back_and_their_cells_lie_where_they_should() {
    use danlu_models::{DenseConfig, DenseTask, VitConfig, VitDense, names};
    let vit = VitConfig { qkv_bias: false, initializer_range: 0.2, ..vit_config([3, 8, 12]) };
    for (task, stride) in [(DenseTask::Detect, 4), (DenseTask::Segment, 1), (DenseTask::Pose, 2)] {
        let keypoints = if task == DenseTask::Pose { vec!["top".into(), "end".into()] } else { vec![] };
        let config = DenseConfig { vit: vit.clone(), task, keypoints, stride };
        let device = Device::flex();
        let model = VitDense::new(&config, 3, &device).unwrap();
        assert_eq!(count(&model), config.parameters());
        let pictures = waves(2, model.vit.picture().len(), &device);
        let said = model.maps(pictures.clone());
        let ([rows, columns], outputs) = (config.cells(), config.outputs());
        assert_eq!(said.dims(), [2 * rows * columns, outputs]);

        let dir = tempfile::tempdir().unwrap();
        folder::save_dense(&model, &config, dir.path()).unwrap();
        assert_eq!((folder::dense_task(dir.path()).unwrap(), folder::picture_kind(dir.path()).unwrap()), (Some(task), None));
        let (read, found) = folder::load_dense(dir.path(), &device).unwrap();
        assert_eq!(found, config);
        assert_eq!(numbers(read.maps(pictures.clone())), numbers(said.clone()));
        let (encoder, of_encoder) = folder::load_vit(dir.path(), &device).unwrap();
        assert_eq!((of_encoder, names_and_shapes(&encoder)), (vit.clone(), names_and_shapes(&model.vit)));
        let again = VitDense::on(encoder, &config, 3, &device).unwrap();
        assert_eq!(numbers(again.maps(pictures.clone())), numbers(said));
        assert!(folder::load_picture_classifier(dir.path(), &device).is_err());

        // With nothing but biases, each number is that of its place in its patch.
        let (fine, mut biases) = (4 / stride, vec![]);
        let plain = names::fill_some(model, |name, shape| {
            let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32).collect();
            Ok(match name {
                "classifier.weight" => Some(vec![0.0; values.len()]),
                "classifier.bias" => {
                    biases = values.clone();
                    Some(values)
                }
                _ => None,
            })
        });
        let found = numbers(plain.unwrap().maps(pictures));
        for (at, found) in found.into_iter().enumerate() {
            let (cell, output) = (at / outputs % (rows * columns), at % outputs);
            let (row, column) = (cell / columns % fine, cell % columns % fine);
            assert_eq!(found, biases[(row * fine + column) * outputs + output], "cell {cell}");
        }

        let device = Device::flex().autodiff();
        let model = VitDense::new(&config, 3, &device).unwrap();
        check_gradients(&model, |model| (model.maps(waves(2, 288, &device)) * 5.0).sin().mean());
    }
}
