//! Labels of texts: classes, numbers, or a tag for each word, by a head on any backbone, by features, or by both.

mod measure;
mod rows;

use anyhow::Result;
use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use danlu_data::sampler::shuffled;
use danlu_data::tokenizer::Tokenizer;
use danlu_eval::Measure;
use danlu_models::{Classifier, SparseRows, Task, Texts};
use danlu_ops::Ids;

pub use rows::{ClassifyRow, Target};

use super::frozen::Frozen;
use super::image_classify::device_of;
use super::{Loss, Objective, Report, Sample, Shown};
use crate::auto::Plan;
use crate::recipe::Recipe;

/// Held-out texts whose labels are guessed now and then, for a person to read.
const SAMPLES: usize = 3;
/// Characters of a text in a sample.
const SAMPLE_LENGTH: usize = 60;

/// The objective of classification, regression and tagging.
pub struct Classify {
    train: Vec<ClassifyRow>,
    held_out: Vec<ClassifyRow>,
    labels: Vec<String>,
    task: Task,
    tokenizer: Option<Tokenizer>,
    feature_names: Vec<String>,
    /// What frozen layers make of each text, those of `train` and then of `held_out`.
    frozen: Option<Frozen>,
    rates: Rates,
    /// The weight of predicting the texts themselves.
    auxiliary: f64,
    micro_rows: usize,
    recompute: bool,
    seed: u64,
}

/// Learning rates of what is new, as shares of that of the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    pub head: f64,
    pub features: f64,
}

impl Rates {
    /// Those of a recipe; a head without a rate of its own moves as the model does.
    pub fn of(recipe: &Recipe) -> Self {
        let rate = recipe.optimizer.rate.unwrap_or(1.0).max(1e-12);
        Self { head: recipe.classify.head_rate.unwrap_or(rate) / rate, features: recipe.features.rate / rate }
    }

    /// What the rate of the parameter of this name is multiplied by.
    pub fn factor(&self, name: &str) -> f64 {
        if name.starts_with("features.") {
            self.features
        } else if is_new(name) {
            self.head
        } else {
            1.0
        }
    }
}

/// Rows of one piece.
#[derive(Debug, Clone)]
pub struct ClassifyBatch {
    /// Places among the training rows.
    rows: Vec<usize>,
    given: Given,
}

/// What a classifier reads of some rows, and what is to be said of them.
#[derive(Debug, Clone)]
struct Given {
    texts: Option<Texts>,
    features: Option<SparseRows>,
    targets: Targets,
}

#[derive(Debug, Clone)]
enum Targets {
    /// Of each row or token; [`danlu_ops::IGNORE`] where nothing is to be said.
    Classes(Ids),
    Numbers(Vec<f32>),
}

/// What an objective of labels is made of.
pub struct ClassifyData {
    pub train: Vec<ClassifyRow>,
    pub held_out: Vec<ClassifyRow>,
    /// In the order of the outputs.
    pub labels: Vec<String>,
    pub task: Task,
    /// Without one there is no text to read, only features.
    pub tokenizer: Option<Tokenizer>,
    pub feature_names: Vec<String>,
}

impl Classify {
    /// With `frozen`, the layers of the model do not change while it is trained.
    ///
    /// # Errors
    /// When there is nothing to learn: no text, one label for all, a label without a text; or a held-out label that training never shows.
    pub fn new(plan: &Plan, data: ClassifyData, frozen: bool, rates: Rates) -> Result<Self> {
        rows::check(&data)?;
        let ClassifyData { train, held_out, labels, task, tokenizer, feature_names } = data;
        let places = train.len() + held_out.len();
        Ok(Self {
            frozen: (frozen && tokenizer.is_some()).then(|| Frozen::new(places)),
            train,
            held_out,
            labels,
            task,
            tokenizer,
            feature_names,
            rates,
            auxiliary: plan.recipe.classify.auxiliary,
            micro_rows: plan.micro_rows,
            recompute: plan.recipe.batch.recompute,
            seed: plan.recipe.seed,
        })
    }

    /// The training row at a position of the run.
    pub fn row(&self, position: u64) -> usize {
        shuffled(position, self.train.len() as u64, self.seed) as usize
    }

    fn given(&self, rows: &[&ClassifyRow]) -> Given {
        let texts: Option<Vec<_>> = rows.iter().map(|row| row.text.as_ref()).collect();
        let tags = |row: &&ClassifyRow| row.text.as_ref().map_or(vec![], |text| text.tags.clone());
        Given {
            targets: match self.task {
                Task::Tags => Targets::Classes(rows.iter().flat_map(tags).collect()),
                Task::Classes => Targets::Classes(rows.iter().map(|row| row.target.class()).collect()),
                Task::Number => Targets::Numbers(rows.iter().map(|row| row.target.number()).collect()),
            },
            texts: texts.map(|texts| Texts::new(texts.into_iter().map(|text| (&text.ids[..], &text.kinds[..])))),
            features: (!self.feature_names.is_empty()).then(|| {
                let mut all = SparseRows::default();
                rows.iter().for_each(|row| all.push(&row.features));
                all
            }),
        }
    }

    /// The logits of rows; `places` says where what frozen layers make of them is remembered.
    fn logits(&self, model: &Classifier, given: &Given, places: &[usize]) -> Tensor<2> {
        let states = match (&self.frozen, &given.texts) {
            (_, None) => None,
            (None, Some(texts)) => model.states(texts, self.recompute),
            (Some(frozen), Some(_)) => frozen.states(places, &device_of(model), |place| {
                let row = self.train.get(place).unwrap_or_else(|| &self.held_out[place - self.train.len()]);
                self.given(&[row]).texts.and_then(|texts| model.valid().states(&texts, false))
            }),
        };
        model.head(states, given.features.as_ref())
    }

    fn cost(&self, logits: Tensor<2>, targets: &Targets) -> Tensor<1> {
        match targets {
            // The logits are what a head of ones gives back, and the loss on a head is there already.
            Targets::Classes(targets) => {
                let ones = Tensor::eye(logits.dims()[1], &logits.device());
                danlu_ops::linear_cross_entropy(logits, ones, targets)
            }
            Targets::Numbers(targets) => {
                let count = targets.len();
                let targets = Tensor::<2>::from_data(TensorData::new(targets.clone(), [count, 1]), &logits.device());
                (logits - targets).powi_scalar(2).mean()
            }
        }
    }

    fn report(&self, logits: &Tensor<2>, targets: &Targets) -> Report {
        let Targets::Classes(targets) = targets else { return vec![] };
        let guesses = guesses(logits.clone());
        let counted = targets.iter().zip(guesses).filter(|(target, _)| **target != danlu_ops::IGNORE);
        let (mut right, mut all) = (0, 0);
        counted.for_each(|(target, guess)| {
            all += 1;
            right += usize::from(*target as usize == guess);
        });
        vec![("accuracy", right as f64 / all.max(1) as f64)]
    }

    /// The places of held-out rows, behind those of the training rows.
    fn place(&self, held_out: usize) -> usize {
        self.train.len() + held_out
    }
}

fn numbers(x: Tensor<2>) -> Vec<f32> {
    x.inner().into_data().iter::<f32>().collect()
}

/// The output that is largest in each row.
fn guesses(logits: Tensor<2>) -> Vec<usize> {
    let width = logits.dims()[1];
    let best = |row: &[f32]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(place, _)| place);
    numbers(logits).chunks(width).map(best).collect()
}

impl Objective for Classify {
    type Model = Classifier;
    type Batch = ClassifyBatch;

    fn batch(&self, position: u64) -> Result<ClassifyBatch> {
        let rows: Vec<usize> = (position..position + self.micro_rows as u64).map(|position| self.row(position)).collect();
        let given = self.given(&rows.iter().map(|&row| &self.train[row]).collect::<Vec<_>>());
        Ok(ClassifyBatch { rows, given })
    }

    fn targets(&self, batch: &ClassifyBatch) -> usize {
        match &batch.given.targets {
            Targets::Classes(targets) => targets.iter().filter(|&&target| target != danlu_ops::IGNORE).count(),
            Targets::Numbers(targets) => targets.len(),
        }
    }

    fn loss(&self, model: &Classifier, batch: &ClassifyBatch) -> Loss {
        let given = &batch.given;
        let both = given.texts.as_ref().filter(|_| self.auxiliary > 0.0 && self.frozen.is_none());
        if let Some((states, language)) = both.and_then(|texts| model.states_and_language_loss(texts, self.recompute)) {
            let logits = model.head(Some(states), given.features.as_ref());
            let mut report = self.report(&logits, &given.targets);
            report.push(("language_loss", f64::from(language.clone().into_scalar::<f32>())));
            return Loss { value: self.cost(logits, &given.targets) + language * self.auxiliary, report };
        }
        let logits = self.logits(model, given, &batch.rows);
        let report = self.report(&logits, &given.targets);
        Loss { value: self.cost(logits, &given.targets), report }
    }

    fn rate_factor(&self, name: &str) -> f64 {
        self.rates.factor(name)
    }

    /// The tokens that the head reads are those that carry the loss; features stand there as tokens, by their names.
    fn show(&self, batch: &ClassifyBatch) -> Result<Shown> {
        let row = &self.train[batch.rows[0]];
        let mut shown = Shown { text: format!("{}: ", self.said(row)), tokens: vec![], starts: vec![0] };
        if let (Some(tokenizer), Some(text)) = (&self.tokenizer, &row.text) {
            shown.text.push_str(&tokenizer.decode(&text.ids)?);
            let last = text.ids.len() - 1;
            for (i, &id) in text.ids.iter().enumerate() {
                let carries = match self.task {
                    Task::Tags => text.tags[i] != danlu_ops::IGNORE,
                    _ => i == 0 || i == last,
                };
                shown.tokens.push((id, tokenizer.decode(&[id])?, carries));
            }
        } else {
            shown.text.push_str(&row.source);
        }
        for (place, value) in &row.features {
            shown.tokens.push((*place, format!("{}={value:.3}", self.feature_names[*place as usize]), true));
        }
        Ok(shown)
    }

    fn held_out_tokens(&self) -> u64 {
        self.held_out.iter().map(ClassifyRow::cost).sum()
    }

    fn measure(&self, model: &Classifier, tokens: u64) -> Result<Measure> {
        self.measured(&model.valid(), tokens)
    }

    fn samples(&self, model: &Classifier, _: u64) -> Result<Vec<Sample>> {
        let model = model.valid();
        let every = (self.held_out.len() / SAMPLES).max(1);
        let one = |(i, row): (usize, &ClassifyRow)| {
            let given = self.given(&[row]);
            let logits = self.logits(&model, &given, &[self.place(i)]);
            let prompt: String = row.source.chars().take(SAMPLE_LENGTH).collect();
            let text = match self.task {
                Task::Number => format!(" → {:.2} (is {})", numbers(logits)[0], self.said(row)),
                Task::Classes => format!(" → {} (is {})", self.labels[guesses(logits)[0]], self.said(row)),
                Task::Tags => {
                    let tags = row.text.as_ref().map_or(&[][..], |text| &text.tags);
                    let counted = guesses(logits).into_iter().zip(tags).filter(|(_, tag)| **tag != danlu_ops::IGNORE);
                    let names: Vec<&str> = counted.map(|(guess, _)| self.labels[guess].as_str()).collect();
                    format!(" → {}", names.join(" "))
                }
            };
            Ok(Sample { prompt, text })
        };
        self.held_out.iter().enumerate().step_by(every).take(SAMPLES).map(one).collect()
    }
}

/// Whether a parameter belongs to what a classifier adds to its backbone.
pub fn is_new(name: &str) -> bool {
    ["score.", "classifier.", "head.", "features."].iter().any(|start| name.starts_with(start))
}
