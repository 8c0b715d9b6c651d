//! Transfer learning by the names of parameters, for any module: which part of a model is trained, and how fast each of its layers.

use anyhow::{Result, ensure};
use burn::module::Module;
use danlu_models::{names, names_and_shapes};

use crate::recipe::{Part, TuneSpec};

/// A parameter's name and shape, as [`names_and_shapes`] lists them.
pub type Named = (String, Vec<usize>);

/// Takes what `spec` leaves out of training: it gets no gradient, costs no product for one, and has no state in the optimizer. What `new`
/// names is trained whatever the part: parameters that were drawn and not read from the model the run starts from.
///
/// # Errors
/// When the model has nothing of the part, or fewer layers than are asked for.
pub fn freeze<M: Module>(model: M, spec: &TuneSpec, new: impl Fn(&str) -> bool) -> Result<M> {
    if spec.part == Part::All {
        return Ok(model);
    }
    let mut chosen = chosen(&names_and_shapes(&model), spec, new)?.into_iter();
    // The mapper goes through the parameters in the order of the names.
    Ok(names::freeze(model, |_| !chosen.next().unwrap_or(false)))
}

/// Whether each parameter is trained.
///
/// # Errors
/// As [`freeze`].
pub fn chosen(parameters: &[Named], spec: &TuneSpec, new: impl Fn(&str) -> bool) -> Result<Vec<bool>> {
    let stages = stages(parameters);
    let above = stages.iter().copied().max().unwrap_or(0);
    let layers = above.saturating_sub(1);
    let of_part: Vec<bool> = match spec.part {
        Part::All => vec![true; parameters.len()],
        Part::LastLayers => {
            let wanted = spec.layers.unwrap_or(1);
            ensure!(wanted <= layers, "`tune.layers` is {wanted}; the model has {layers} layers");
            stages.iter().map(|stage| *stage > layers - wanted).collect()
        }
        Part::Head => {
            let head: Vec<bool> =
                stages.iter().zip(parameters).map(|(stage, (name, _))| *stage == above && !is_norm(name)).collect();
            // Without a projection of its own the model multiplies with its embedding, the first matrix there is.
            let tied = parameters.iter().position(|(_, shape)| shape.len() == 2).filter(|_| !head.contains(&true));
            head.into_iter().enumerate().map(|(place, is_head)| is_head || Some(place) == tied).collect()
        }
        Part::Norms => parameters.iter().map(|(name, _)| is_norm(name)).collect(),
        Part::Biases => parameters.iter().map(|(name, _)| name.ends_with("bias")).collect(),
    };
    ensure!(of_part.contains(&true), "`tune.part`: the model has none of {:?}; choose another part", spec.part);
    Ok(of_part.into_iter().zip(parameters).map(|(part, (name, _))| part || new(name)).collect())
}

/// How many numbers a model has, and how many of them are trained: those that [`chosen`] names; or, where an adapter of `beside` numbers stands
/// beside the model and freezes it, these and what is `new`.
///
/// # Errors
/// As [`freeze`].
pub fn counts(parameters: &[Named], spec: &TuneSpec, beside: Option<u64>, new: impl Fn(&str) -> bool) -> Result<(u64, u64)> {
    let size = |(_, shape): &Named| shape.iter().product::<usize>() as u64;
    let trained = match beside {
        Some(_) => parameters.iter().map(|(name, _)| new(name)).collect(),
        None => chosen(parameters, spec, new)?,
    };
    let beside = beside.unwrap_or(0);
    let trained: u64 = parameters.iter().zip(trained).filter(|(_, trained)| *trained).map(|(one, _)| size(one)).sum();
    Ok((parameters.iter().map(size).sum::<u64>() + beside, trained + beside))
}

/// What each parameter's learning rate is multiplied by: one above the layers, and `decay` less for each layer further down, so that a
/// model of n layers has `decay^(n + 1)` at its embeddings ([Clark et al. 2020](https://arxiv.org/abs/2003.10555)).
pub fn rate_factors(parameters: &[Named], decay: f64) -> Vec<f64> {
    let stages = stages(parameters);
    let above = stages.iter().copied().max().unwrap_or(0);
    stages.into_iter().map(|stage| decay.powi((above - stage) as i32)).collect()
}

/// How far up each parameter stands: 0 below the layers, from 1 on the layer it is part of, one more above them. A layer is what has a
/// number in its name ("encoder.layer.3.…"); a second stack of layers counts on from the first.
fn stages(parameters: &[Named]) -> Vec<usize> {
    let layer = |name: &str| {
        let mut end = 0;
        for part in name.split('.') {
            end += part.len() + 1;
            if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
                return Some(name[..end - 1].to_string());
            }
        }
        None
    };
    let layers: Vec<Option<String>> = parameters.iter().map(|(name, _)| layer(name)).collect();
    let last = layers.iter().rposition(Option::is_some);
    let mut seen: Vec<&String> = vec![];
    let mut stages = vec![];
    for (place, layer) in layers.iter().enumerate() {
        let stage = match layer {
            Some(layer) => match seen.iter().position(|known| *known == layer) {
                Some(known) => known + 1,
                None => {
                    seen.push(layer);
                    seen.len()
                }
            },
            None if last.is_some_and(|last| place > last) => seen.len() + 1,
            None => seen.len(),
        };
        stages.push(stage);
    }
    stages
}

/// "input_layernorm", "LayerNorm", "q_norm", "ln_1": the names that architectures give their norms.
fn is_norm(name: &str) -> bool {
    name.split('.').any(|part| part.to_ascii_lowercase().contains("norm") || part.starts_with("ln_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Vec<Named> {
        let shape = |name: &str| if is_norm(name) || name.ends_with("bias") { vec![4] } else { vec![4, 4] };
        names.iter().map(|name| (name.to_string(), shape(name))).collect()
    }

    fn llama() -> Vec<Named> {
        let mut names = vec!["model.embed_tokens.weight".to_string()];
        for i in 0..3 {
            names.extend([format!("model.layers.{i}.input_layernorm.weight"), format!("model.layers.{i}.mlp.up_proj.weight")]);
        }
        names.extend(["model.norm.weight".to_string(), "lm_head.weight".to_string()]);
        named(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn bert() -> Vec<Named> {
        named(&[
            "bert.embeddings.word_embeddings.weight",
            "bert.embeddings.LayerNorm.weight",
            "bert.encoder.layer.0.output.dense.weight",
            "bert.encoder.layer.0.output.dense.bias",
            "bert.encoder.layer.1.output.LayerNorm.bias",
            "bert.encoder.layer.1.output.dense.weight",
            "bert.pooler.dense.weight",
            "classifier.weight",
            "classifier.bias",
        ])
    }

    fn vit() -> Vec<Named> {
        named(&[
            "vit.embeddings.cls_token",
            "vit.encoder.layer.0.layernorm_before.weight",
            "vit.encoder.layer.0.output.dense.weight",
            "vit.encoder.layer.1.layernorm_before.weight",
            "vit.encoder.layer.1.output.dense.weight",
            "vit.layernorm.weight",
            "classifier.weight",
            "classifier.bias",
            "features.weight",
        ])
    }

    #[track_caller]
    fn check(parameters: &[Named], spec: &TuneSpec, expected: &[&str]) {
        let new = |name: &str| name.starts_with("classifier");
        let chosen = chosen(parameters, spec, new).unwrap();
        let found: Vec<&str> =
            parameters.iter().zip(chosen).filter(|(_, yes)| *yes).map(|((name, _), _)| name.as_str()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn each_part_is_what_its_name_says() {
        let of = |part| TuneSpec { part, ..TuneSpec::default() };
        let last = |layers| TuneSpec { layers: Some(layers), ..of(Part::LastLayers) };
        let above = ["model.norm.weight", "lm_head.weight"];
        let top = ["model.layers.2.input_layernorm.weight", "model.layers.2.mlp.up_proj.weight"];
        check(&llama(), &last(1), &[&top[..], &above[..]].concat());
        check(&llama(), &of(Part::Head), &above[1..]);
        let tied: Vec<Named> = llama().into_iter().filter(|(name, _)| name != "lm_head.weight").collect();
        check(&tied, &of(Part::Head), &["model.embed_tokens.weight"]);
        check(&tied, &last(1), &[&top[..], &above[..1]].concat());
        let norms: Vec<String> = (0..3).map(|i| format!("model.layers.{i}.input_layernorm.weight")).collect();
        let norms: Vec<&str> = norms.iter().map(String::as_str).chain(["model.norm.weight"]).collect();
        check(&llama(), &of(Part::Norms), &norms);
        let head = ["bert.pooler.dense.weight", "classifier.weight", "classifier.bias"];
        check(&bert(), &of(Part::Head), &head);
        let biases = ["bert.encoder.layer.0.output.dense.bias", "bert.encoder.layer.1.output.LayerNorm.bias"];
        check(&bert(), &of(Part::Biases), &[&biases[..], &head[1..]].concat());
        let head = ["classifier.weight", "classifier.bias", "features.weight"];
        check(&vit(), &of(Part::Head), &head);
        let top =
            ["vit.encoder.layer.1.layernorm_before.weight", "vit.encoder.layer.1.output.dense.weight", "vit.layernorm.weight"];
        check(&vit(), &last(1), &[&top[..], &head].concat());
        let of_head = |name: &str| name.starts_with("classifier");
        assert_eq!(counts(&bert(), &of(Part::All), None, of_head).unwrap(), (5 * 16 + 4 * 4, 5 * 16 + 4 * 4));
        assert_eq!(counts(&bert(), &of(Part::Head), None, of_head).unwrap(), (5 * 16 + 4 * 4, 16 + 16 + 4));
        assert_eq!(counts(&bert(), &of(Part::All), Some(7), of_head).unwrap(), (5 * 16 + 4 * 4 + 7, 16 + 4 + 7));
        assert!(chosen(&llama(), &of(Part::Biases), |_| false).unwrap_err().to_string().contains("none of"));
        assert!(chosen(&llama(), &last(4), |_| false).unwrap_err().to_string().contains("3 layers"));
    }

    #[test]
    fn rates_fall_from_the_output_down() {
        let factors = |parameters: &[Named]| rate_factors(parameters, 0.5);
        assert_eq!(factors(&llama()), [0.0625, 0.125, 0.125, 0.25, 0.25, 0.5, 0.5, 1.0, 1.0]);
        assert_eq!(factors(&bert()), [0.125, 0.125, 0.25, 0.25, 0.5, 0.5, 1.0, 1.0, 1.0]);
        assert_eq!(rate_factors(&named(&["a.weight", "b.weight"]), 0.5), [1.0, 1.0]);
    }
}
