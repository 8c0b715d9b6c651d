//! What an answer is worth: rules that score what a model writes, each in a file of its own, and their weighted sum.
//!
//! A rule that can be satisfied without doing what it stands for will be, once a model is trained on it. So each rule says in its
//! documentation what it can be fooled by, and what stands against that.

mod code;
mod exact;
mod format;
mod length;
mod number;
mod pattern;
mod sandbox;
mod schema;
mod spec;

use anyhow::{Context, Result, ensure};
use danlu_data::prompts::Reference;
use rayon::prelude::*;

pub use number::last_number;
pub use sandbox::{End, Limits, Outcome, holds, run};
pub use spec::{
    ArithmeticSpec, CodeSpec, ExactSpec, FormatSpec, LearnedSpec, LengthSpec, PatternSpec, RewardsSpec, SchemaSpec, ScoreForm,
};

/// What a model wrote, and what is known about the question.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Without the token that ends it.
    pub text: &'a str,
    pub tokens: usize,
    /// False when it was cut off.
    pub ended: bool,
    pub reference: &'a Reference,
}

/// A rule. Its score does not depend on anything but the answer.
pub trait Reward: Send + Sync {
    /// As in recipes and logs.
    fn name(&self) -> &'static str;

    /// From 0 for wrong to 1 for right, or from -1 to 0 for a penalty.
    ///
    /// # Errors
    /// When the answer cannot be judged, which says nothing about it: a program that is missing, a reference without what the rule needs.
    fn score(&self, answer: &Answer) -> Result<f64>;

    /// Whether a question has what the rule needs.
    ///
    /// # Errors
    /// Says what is missing.
    fn accepts(&self, _: &Reference) -> Result<()> {
        Ok(())
    }
}

/// Rules with their weights.
pub struct Rewards {
    rules: Vec<(f64, Box<dyn Reward>)>,
}

/// What one answer got.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The sum of the rules' scores times their weights.
    pub total: f64,
    /// Of each rule, before its weight, in the order of [`Rewards::names`].
    pub each: Vec<f64>,
}

impl Rewards {
    /// The rules that a recipe asks for. `most` is the most tokens that an answer can have. A trained reward model is no rule: what has tensors
    /// scores by it, and it may be all there is.
    ///
    /// # Errors
    /// When there is no reward, or a rule cannot be made: a pattern that is none, a schema that cannot be read.
    pub fn new(spec: &RewardsSpec, most: usize) -> Result<Self> {
        let mut rules: Vec<(f64, Box<dyn Reward>)> = vec![];
        if let Some(spec) = &spec.exact {
            rules.push((spec.weight, Box::new(exact::Exact { spec: spec.clone() })));
        }
        if let Some(spec) = &spec.arithmetic {
            rules.push((spec.weight, Box::new(number::Arithmetic { tolerance: spec.tolerance })));
        }
        if let Some(spec) = &spec.regex {
            rules.push((spec.weight, Box::new(pattern::Pattern::new(&spec.pattern)?)));
        }
        if let Some(spec) = &spec.format {
            rules.push((spec.weight, Box::new(format::Format::new(&spec.pattern)?)));
        }
        if let Some(spec) = &spec.schema {
            rules.push((spec.weight, Box::new(schema::Schema::new(spec.file.as_deref())?)));
        }
        if let Some(spec) = &spec.code {
            rules.push((spec.weight, Box::new(code::Code::new(spec)?)));
        }
        if let Some(spec) = &spec.length {
            rules.push((spec.weight, Box::new(length::Length::new(spec, most)?)));
        }
        ensure!(
            !rules.is_empty() || spec.model.is_some(),
            "there is no reward; give at least one, for example [rewards.arithmetic] (`danlu help recipe` lists them)"
        );
        Ok(Self { rules })
    }

    /// The rules, as in logs.
    pub fn names(&self) -> Vec<&'static str> {
        self.rules.iter().map(|(_, rule)| rule.name()).collect()
    }

    /// Whether a question has what every rule needs.
    ///
    /// # Errors
    /// Names the rule and what is missing.
    pub fn accepts(&self, reference: &Reference) -> Result<()> {
        self.rules.iter().try_for_each(|(_, rule)| {
            rule.accepts(reference).with_context(|| format!("the reward {:?} cannot judge answers to it", rule.name()))
        })
    }

    /// Scores many answers on all threads, in their order.
    ///
    /// # Errors
    /// The first rule that cannot judge an answer.
    pub fn score(&self, answers: &[Answer]) -> Result<Vec<Score>> {
        answers.par_iter().map(|answer| self.one(answer)).collect()
    }

    fn one(&self, answer: &Answer) -> Result<Score> {
        let each = self.rules.iter().map(|(_, rule)| {
            let score = rule.score(answer).with_context(|| format!("the reward {:?} cannot judge an answer", rule.name()))?;
            ensure!(score.is_finite(), "the reward {:?} is {score}", rule.name());
            Ok(score)
        });
        let each: Vec<f64> = each.collect::<Result<_>>()?;
        let total = each.iter().zip(&self.rules).map(|(score, (weight, _))| score * weight).sum();
        Ok(Score { total, each })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_weighed_and_summed() {
        let spec = RewardsSpec {
            exact: Some(ExactSpec::default()),
            length: Some(LengthSpec { weight: 0.5, from: Some(2), ..LengthSpec::default() }),
            ..RewardsSpec::default()
        };
        let rewards = Rewards::new(&spec, 4).unwrap();
        assert_eq!(rewards.names(), ["exact", "length"]);
        let reference = Reference { answer: Some("7".into()), ..Reference::default() };
        let answer = |text, tokens| Answer { text, tokens, ended: true, reference: &reference };
        let scores = rewards.score(&[answer("7", 1), answer("7", 3), answer("8", 4)]).unwrap();
        assert_eq!(scores.iter().map(|score| score.total).collect::<Vec<_>>(), [1.0, 0.75, -0.5]);
        assert_eq!(scores[1].each, [1.0, -0.5]);
    }

    #[test]
    fn a_score_as_a_probability_is_bounded_and_in_order() {
        let of = |score| ScoreForm::Probability.worth(score, 1.0);
        assert!((of(1.0) - 0.5).abs() < 1e-12 && of(3.0) > of(2.0) && of(-900.0) >= 0.0 && of(900.0) <= 1.0);
        assert!((of(3.0) + of(-1.0) - 1.0).abs() < 1e-12, "as likely to win as the other is to lose");
        assert_eq!(ScoreForm::Raw.worth(-7.5, 1.0), -8.5);
        // A reward model may be all there is, and no rule then is.
        let alone = RewardsSpec { model: Some(LearnedSpec::default()), ..RewardsSpec::default() };
        assert!(Rewards::new(&alone, 8).unwrap().names().is_empty());
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(Rewards::new(&RewardsSpec::default(), 8).err().unwrap().to_string().contains("[rewards.arithmetic]"));
        let spec = RewardsSpec { exact: Some(ExactSpec::default()), ..RewardsSpec::default() };
        let error = Rewards::new(&spec, 8).unwrap().accepts(&Reference::default()).unwrap_err();
        assert!(format!("{error:#}").contains("`answer`"), "{error:#}");
    }
}
