//! `[rewards]`: what answers are scored by.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an answer is worth: the sum of the rules that are given, each times its weight. A rule is given by its table, which may be empty:
/// `[rewards.arithmetic]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RewardsSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<ExactSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arithmetic: Option<ArithmeticSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<PatternSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<FormatSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<SchemaSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<CodeSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<LengthSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<LearnedSpec>,
}

/// 1 when the answer is the reference's, word for word; spaces at both ends do not count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExactSpec {
    /// How much it counts.
    #[schemars(range(min = -1000.0, max = 1000.0))]
    pub weight: f64,
    /// Whether upper and lower case are told apart.
    pub case: bool,
}

/// 1 when the last number of the answer is that of the reference, however it is written (1,234.50, -3, 3/4, 2e6, \frac{1}{2}, １２). Other
/// numbers before it do not count, so listing many gains nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ArithmeticSpec {
    /// How much it counts.
    #[schemars(range(min = -1000.0, max = 1000.0))]
    pub weight: f64,
    /// How far the number may be from the reference's, as a share of it.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub tolerance: f64,
}

/// 1 when the pattern is found somewhere in the answer. `{answer}` in it stands for the reference's. A pattern that any one of many guesses
/// matches teaches guessing: tie it to a place, as in "#### {answer}$", or add `[rewards.length]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PatternSpec {
    /// How much it counts.
    #[schemars(range(min = -1000.0, max = 1000.0))]
    pub weight: f64,
    /// A regular expression in the syntax of Rust's regex.
    pub pattern: String,
}

/// 1 when the whole answer has a form, whatever it says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FormatSpec {
    /// How much it counts; less than the rule that says what is right, or the form is all that is learned.
    #[schemars(range(min = -1000.0, max = 1000.0))]
    pub weight: f64,
    /// A regular expression that the whole answer matches, line ends included.
    pub pattern: String,
}

/// 1 when the answer is JSON that a JSON schema accepts, by itself or in one fenced block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SchemaSpec {
    /// How much it counts.
    #[schemars(range(min = -1000.0, max = 1000.0))]
    pub weight: f64,
    /// The schema's file. Without one each question brings its own as `schema`.
    pub file: Option<String>,
}

/// The share of the question's `tests` that the answer's code passes, run in a child process with limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CodeSpec {
    /// How much it counts.
    #[schemars(range(min = -1000.0, max = 1000.0))]
    pub weight: f64,
    /// What runs a program; `{file}` is the program's file, which ends as `extension` says.
    pub command: Vec<String>,
    /// How the program's file ends.
    pub extension: String,
    /// Added after the tests; `{nonce}` is a word that must be the last line of the output, so that a program which ends before the tests
    /// has not passed them. Empty: the exit code alone decides.
    pub proof: String,
    /// Seconds for each test, of the clock and of the processor.
    #[schemars(range(min = 0.05, max = 3600.0))]
    pub seconds: f64,
    /// Megabytes of memory.
    #[schemars(range(min = 8, max = 1_000_000))]
    pub memory: u64,
    /// Kilobytes of output, and of any file that is written.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub output: u64,
}

/// From 0 for an answer of up to `from` tokens down to -1 for one of `to` (the soft punishment of DAPO, Yu 2025), and -1 for one that was cut off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LengthSpec {
    /// How much it counts.
    #[schemars(range(min = -1000.0, max = 1000.0))]
    pub weight: f64,
    /// Tokens that cost nothing. Automatic: three quarters of `to`.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub from: Option<usize>,
    /// Tokens that cost all. Automatic: the most that an answer can have.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub to: Option<usize>,
}

/// What a trained reward model says of the answer (`recipes/reward.toml` makes one). It must read with the tokenizer and the chat template of
/// the model that answers. A model that is trained on a reward model's word comes to write what that was never shown and likes all the same (Gao
/// 2022): give a rule beside it, keep `rl.kl` above 0, and read the samples. An answer that was cut off is judged as if it ended there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LearnedSpec {
    /// How much it counts.
    #[schemars(range(min = -1000.0, max = 1000.0))]
    pub weight: f64,
    /// The reward model: registered, as NAME or NAME@VERSION, or a folder.
    pub from: String,
    /// BLAKE3 of the weights that `from` must have. Automatic: of those it has when the run begins, so that a run that goes on is judged by the
    /// same model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// What a score counts as.
    pub form: ScoreForm,
    /// The score of a middling answer: what counts one half as a probability, and nothing as it is.
    #[schemars(range(min = -1e6, max = 1e6))]
    pub middle: f64,
}

/// What a reward model's score counts as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreForm {
    /// The probability that people prefer the answer to a middling one, by the model that scores are learned with (Bradley 1952): from 0 to 1,
    /// as the rules are, so that no single answer outweighs all others.
    #[default]
    Probability,
    /// As it is, without bounds.
    Raw,
}

impl ScoreForm {
    /// The worth of a score.
    pub fn worth(self, score: f64, middle: f64) -> f64 {
        let above = score - middle;
        match self {
            Self::Probability => 1.0 / (1.0 + (-above).exp()),
            Self::Raw => above,
        }
    }
}

impl RewardsSpec {
    /// Every rule with its defaults, for the reference of keys.
    pub fn all() -> Self {
        RewardsSpec {
            exact: Some(ExactSpec::default()),
            arithmetic: Some(ArithmeticSpec::default()),
            regex: Some(PatternSpec::default()),
            format: Some(FormatSpec::default()),
            schema: Some(SchemaSpec::default()),
            code: Some(CodeSpec::default()),
            length: Some(LengthSpec::default()),
            model: Some(LearnedSpec::default()),
        }
    }
}

impl Default for ExactSpec {
    fn default() -> Self {
        ExactSpec { weight: 1.0, case: true }
    }
}

impl Default for ArithmeticSpec {
    fn default() -> Self {
        ArithmeticSpec { weight: 1.0, tolerance: 1e-6 }
    }
}

impl Default for PatternSpec {
    fn default() -> Self {
        PatternSpec { weight: 1.0, pattern: r"{answer}\s*$".into() }
    }
}

impl Default for FormatSpec {
    fn default() -> Self {
        FormatSpec { weight: 0.2, pattern: r"<think>.*</think>\s*\S.*".into() }
    }
}

impl Default for SchemaSpec {
    fn default() -> Self {
        SchemaSpec { weight: 1.0, file: None }
    }
}

impl Default for CodeSpec {
    fn default() -> Self {
        let command = ["python3", "-I", "{file}"].map(str::to_owned).to_vec();
        let proof = "print('\\n{nonce}')".into();
        CodeSpec { weight: 1.0, command, extension: "py".into(), proof, seconds: 5.0, memory: 512, output: 64 }
    }
}

impl Default for LengthSpec {
    fn default() -> Self {
        LengthSpec { weight: 1.0, from: None, to: None }
    }
}

impl Default for LearnedSpec {
    fn default() -> Self {
        LearnedSpec { weight: 1.0, from: String::new(), hash: None, form: ScoreForm::default(), middle: 0.0 }
    }
}
