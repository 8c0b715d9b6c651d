//! A tiny model on made-up text, for tests of the trainer.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Result;
use burn::module::Module;
use burn::tensor::Device;
use danlu_eval::{Document, Limits, Measure, measure};
use danlu_models::{Batch, Decoder};
use danlu_train::auto::resolve;
use danlu_train::{Event, Facts, Loss, Objective, Plan, Recipe, Run, Sample, Shown, Trained, train};

pub const VOCABULARY: usize = 64;
pub const DATA: &str = "made-up text 1";

/// Rows of a sequence in which a token mostly follows from the one before.
pub struct Toy {
    pub row_len: usize,
    pub micro_rows: usize,
    /// Rows whose position is divisible by this carry loss on half their tokens only; 0 for none.
    pub sparse: u64,
    /// From this row on the targets are replaced by noise.
    pub broken: Option<u64>,
    /// How long a piece takes to be made.
    pub slow: Duration,
}

impl Toy {
    pub fn new(plan: &Plan) -> Self {
        Toy { row_len: plan.row_len, micro_rows: plan.micro_rows, sparse: 3, broken: None, slow: Duration::ZERO }
    }

    fn row(&self, position: u64, ids: &mut Vec<u32>, targets: &mut Vec<u32>) {
        let mut state = position.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut token = (random() % VOCABULARY as u64) as u32;
        for at in 0..self.row_len {
            ids.push(token);
            token = if random() % 8 == 0 { (random() % VOCABULARY as u64) as u32 } else { (token * 5 + 3) % VOCABULARY as u32 };
            let masked = self.sparse > 0 && position.is_multiple_of(self.sparse) && at % 2 == 0;
            targets.push(if masked { danlu_ops::IGNORE } else { token });
        }
    }
}

impl Objective for Toy {
    type Model = Decoder;
    type Batch = Batch;

    fn batch(&self, position: u64) -> Result<Batch> {
        std::thread::sleep(self.slow);
        let (mut ids, mut targets) = (vec![], vec![]);
        (0..self.micro_rows as u64).for_each(|row| self.row(position + row, &mut ids, &mut targets));
        if self.broken.is_some_and(|from| position >= from) {
            // Confidently wrong: the loss of a trained model jumps.
            targets.iter_mut().for_each(|target| *target = 1);
        }
        Ok(Batch::new(ids, targets, self.micro_rows, self.row_len, vec![]))
    }

    fn targets(&self, batch: &Batch) -> usize {
        batch.targets.iter().filter(|&&target| target != danlu_ops::IGNORE).count()
    }

    fn loss(&self, model: &Decoder, batch: &Batch) -> Loss {
        model.loss(batch).into()
    }

    fn show(&self, batch: &Batch) -> Result<Shown> {
        let row = batch.ids.iter().zip(batch.targets.iter()).take(self.row_len);
        let tokens = row.map(|(&id, &target)| (id, id.to_string(), target != danlu_ops::IGNORE)).collect();
        Ok(Shown { text: "made-up".into(), tokens, starts: vec![0] })
    }

    fn held_out_tokens(&self) -> u64 {
        4 * self.row_len as u64
    }

    fn measure(&self, model: &Decoder, _: u64) -> Result<Measure> {
        let model = model.valid();
        let documents = (1 << 40..(1 << 40) + 4).map(|position| {
            let (mut ids, mut targets) = (vec![], vec![]);
            self.row(position, &mut ids, &mut targets);
            Document { bytes: ids.len() as u64, tokens: ids.into() }
        });
        measure(|batch| model.token_nll(batch), model.context(), documents, Limits::default())
    }

    fn samples(&self, _: &Decoder, _: u64) -> Result<Vec<Sample>> {
        Ok(vec![])
    }
}

pub fn plan(settings: &[&str]) -> Plan {
    let text = "name = 'toy'\n[model]\nlayers = 2\nhidden = 32\nheads = 2\ncontext = 16\n[batch]\ntokens = 128\nmicro_tokens = 32\n\
                [budget]\nsteps = 24\n[checkpoint]\nevery = 3\nkeep = 2\n";
    let settings: Vec<String> = settings.iter().map(|s| s.to_string()).collect();
    let recipe = Recipe::from_toml(text, "toy", &settings).unwrap();
    resolve(&recipe, &Facts { vocabulary: VOCABULARY, train_tokens: 100_000, gemm_rate: 1e11 }).unwrap().0
}

pub fn fresh(plan: &Plan) -> Result<Decoder> {
    // A vocabulary this small is for tests alone, so that the resolved recipe would be refused.
    let mut recipe = plan.recipe.clone();
    recipe.tokenizer.vocabulary = None;
    let (_, config) = resolve(&recipe, &plan.facts)?;
    Decoder::new(&config, plan.recipe.seed, &device())
}

pub fn device() -> Device {
    Device::flex().autodiff()
}

pub fn run<O: Objective<Model = Decoder>>(
    folder: &Path,
    plan: &Plan,
    objective: &O,
    stop: &AtomicBool,
    mut watch: impl FnMut(&Event),
) -> Result<Trained<Decoder>> {
    let device = device();
    let run = Run { folder, plan, objective, device: &device, data: DATA, stop };
    train(&run, || fresh(plan), &mut watch)
}
