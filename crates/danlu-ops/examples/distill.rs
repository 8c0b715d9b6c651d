//! The loss of a student and its gradients on a batch from the standard input, for comparison with other implementations:
//!
//!     {"shapes": {"x": [tokens, channels], …}, "x": […], "weight": […], "teacher_x": […], "teacher_weight": […], "targets": [… or null],
//!      "divergence": "forward" | "reverse" | β, "temperature": 1.0, "hard": 0.0}

use std::io::Read;

use anyhow::{Context, Result};
use burn::tensor::{Device, Tensor, TensorData};
use danlu_ops::{Distillation, Divergence, IGNORE, Ids, linear_distill};
use serde_json::{Value, json};

fn main() -> Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let input: Value = serde_json::from_str(&text)?;
    let device = Device::flex().autodiff();
    let tensor = |name: &str| -> Result<Tensor<2>> {
        let numbers = |value: &Value| Some(value.as_array()?.iter().filter_map(Value::as_f64).collect::<Vec<f64>>());
        let shape = numbers(&input["shapes"][name]).with_context(|| format!("no shape of {name}"))?;
        let values: Vec<f32> = numbers(&input[name]).with_context(|| format!("no {name}"))?.iter().map(|&x| x as f32).collect();
        Ok(Tensor::from_data(TensorData::new(values, [shape[0] as usize, shape[1] as usize]), &device))
    };
    let targets = input["targets"].as_array().context("no targets")?;
    let targets: Ids = targets.iter().map(|id| id.as_u64().map_or(IGNORE, |id| id as u32)).collect();
    let divergence = match (input["divergence"].as_str(), input["divergence"].as_f64()) {
        (Some("forward"), _) => Divergence::Forward,
        (Some("reverse"), _) => Divergence::Reverse,
        (_, Some(beta)) => Divergence::JensenShannon { beta: beta as f32 },
        _ => anyhow::bail!("`divergence` is forward, reverse or a number"),
    };
    let number = |name: &str| input[name].as_f64().map(|x| x as f32).with_context(|| format!("no {name}"));
    let spec = Distillation { divergence, temperature: number("temperature")?, hard: number("hard")? };
    let (x, weight) = (tensor("x")?.require_grad(), tensor("weight")?.require_grad());
    let found = linear_distill(x.clone(), weight.clone(), [tensor("teacher_x")?, tensor("teacher_weight")?], &targets, &spec);
    let mut gradients = found.loss.backward();
    let [loss, nll, soft] = [found.loss, found.nll, found.soft].map(|x| x.inner().into_scalar::<f32>());
    let [dx, dw] =
        [x, weight].map(|leaf| leaf.grad_remove(&mut gradients).map(|g| g.into_data().iter::<f32>().collect::<Vec<_>>()));
    println!("{}", json!({"loss": loss, "nll": nll, "soft": soft, "dx": dx, "dw": dw}));
    Ok(())
}
