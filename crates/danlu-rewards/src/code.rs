//! Code that passes tests.

use std::fs;

use anyhow::{Context, Result, ensure};
use danlu_data::prompts::Reference;

use crate::sandbox::{self, Limits};
use crate::{Answer, CodeSpec, End, Reward};

/// Can be fooled by code that looks for its own tests in its file; the tests of a question should not be such that this is easier than
/// to solve it.
pub struct Code {
    spec: CodeSpec,
    limits: Limits,
}

impl Code {
    /// # Errors
    /// When there is no command, or this system cannot run one under limits.
    pub fn new(spec: &CodeSpec) -> Result<Self> {
        ensure!(!spec.command.is_empty(), "`rewards.code.command` is empty; name what runs a program");
        sandbox::holds()?;
        let limits = Limits { seconds: spec.seconds, memory: spec.memory << 20, output: (spec.output << 10) as usize };
        Ok(Self { spec: spec.clone(), limits })
    }

    fn passes(&self, code: &str, test: &str) -> Result<bool> {
        let folder = tempfile::tempdir().context("there is no place for a program's file")?;
        // A word that the model cannot have known; what it is changes no score.
        let nonce = folder.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let program = format!("{code}\n{test}\n{}\n", self.spec.proof.replace("{nonce}", &nonce));
        let file = folder.path().join(format!("program.{}", self.spec.extension));
        fs::write(&file, program).with_context(|| format!("cannot write {}", file.display()))?;
        let file = file.display().to_string();
        let command: Vec<String> = self.spec.command.iter().map(|part| part.replace("{file}", &file)).collect();
        let outcome = sandbox::run(&command, folder.path(), &self.limits)?;
        let proven = self.spec.proof.is_empty() || String::from_utf8_lossy(&outcome.stdout).trim_end().ends_with(&nonce);
        Ok(outcome.end == End::Exit(0) && proven)
    }
}

impl Reward for Code {
    fn name(&self) -> &'static str {
        "code"
    }

    fn score(&self, answer: &Answer) -> Result<f64> {
        let code = fenced(answer.text).unwrap_or(answer.text);
        let tests = &answer.reference.tests;
        let passed = tests.iter().map(|test| self.passes(code, test)).collect::<Result<Vec<bool>>>()?;
        Ok(passed.iter().filter(|passed| **passed).count() as f64 / tests.len().max(1) as f64)
    }

    fn accepts(&self, reference: &Reference) -> Result<()> {
        ensure!(!reference.tests.is_empty(), "the question comes without `tests`");
        Ok(())
    }
}

/// What stands in the last fenced block of a text, if it has one that ends.
pub fn fenced(text: &str) -> Option<&str> {
    let (before, _) = text.rsplit_once("```")?;
    let (_, block) = before.rsplit_once("```")?;
    // The line of the fence may name the language.
    Some(block.split_once('\n').map_or(block, |(_, body)| body))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn score(text: &str, tests: &[&str], spec: &CodeSpec) -> f64 {
        let reference = Reference { tests: tests.iter().map(|test| test.to_string()).collect(), ..Reference::default() };
        Code::new(spec).unwrap().score(&Answer { text, tokens: 1, ended: true, reference: &reference }).unwrap()
    }

    /// `sh` is everywhere; the same rule runs Python.
    fn shell() -> CodeSpec {
        CodeSpec {
            command: ["sh", "{file}"].map(str::to_owned).to_vec(),
            extension: "sh".into(),
            proof: "echo; echo {nonce}".into(),
            seconds: 2.0,
            memory: 256,
            ..CodeSpec::default()
        }
    }

    #[test]
    fn the_share_of_tests_that_pass_is_the_score() {
        let double = "Here:\n```sh\ndouble() { echo $(($1 * 2)); }\n```\nDone.";
        let tests = ["[ \"$(double 3)\" = 6 ] || exit 1", "[ \"$(double 0)\" = 0 ] || exit 1"];
        assert_eq!(score(double, &tests, &shell()), 1.0);
        let wrong = "double() { echo 0; }";
        assert_eq!(score(wrong, &tests, &shell()), 0.5);
        assert_eq!(score("", &tests, &shell()), 0.0);
    }

    #[test]
    fn leaving_before_the_tests_does_not_pass_them() {
        assert_eq!(score("exit 0", &["exit 1"], &shell()), 0.0);
        assert_eq!(score("exit 0", &["exit 1"], &CodeSpec { proof: String::new(), ..shell() }), 1.0);
    }

    #[test]
    fn the_last_whole_block_is_the_code() {
        assert_eq!(fenced("a ```py\nx\n``` b"), Some("x\n"));
        assert_eq!(fenced("```\n1\n```\n```json\n2\n```"), Some("2\n"));
        assert_eq!(fenced("```py\nx"), None);
        assert_eq!(fenced("x"), None);
    }
}
