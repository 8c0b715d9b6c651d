//! Which version of a name is meant when none is said: the newest that passed its gate, unless someone decided otherwise.
//!
//! Versions that passed and decisions of people make one history, a stack: a version that passes goes on top, `promote` puts one on top,
//! `rollback` takes the top away. Decisions are kept beside the folders, each with the newest version of its time, so that the history can be
//! played again from what is on the disk; no version is ever deleted by it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::clock::timestamp;
use crate::id::{ModelId, ModelRef};
use crate::record::Record;
use crate::registry::Registry;

/// A file of decisions is a few kilobytes.
const LIMIT: u64 = 16 << 20;

/// What one version of a model is to its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// What the name without a version means.
    Current,
    /// It passed, or had no gate to pass.
    Passed,
    /// It did not pass its gate.
    Candidate,
    /// Someone took it back.
    Withdrawn,
}

impl Standing {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Passed => "passed",
            Self::Candidate => "candidate",
            Self::Withdrawn => "withdrawn",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Decision {
    at: String,
    /// The newest version there was.
    after: u32,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum What {
    Promote(u32),
    /// Of this version.
    Rollback(u32),
}

impl Registry {
    /// The version that `name` means: none when all its versions are candidates, or there is none.
    ///
    /// # Errors
    /// When a record or the file of decisions cannot be read.
    pub fn current(&self, name: &str) -> Result<Option<ModelId>> {
        let current = self.history(name)?.last().copied();
        Ok(current.map(|version| ModelId { name: name.to_owned(), version }))
    }

    /// What each of all models, as [`Self::list`] gives them, is to its name.
    ///
    /// # Errors
    /// When a file of decisions cannot be read.
    pub fn standings(&self, all: &[Record]) -> Result<Vec<Standing>> {
        let names: BTreeSet<&str> = all.iter().map(|record| record.name.as_str()).collect();
        let histories: BTreeMap<&str, (Vec<u32>, Vec<Decision>)> = names
            .into_iter()
            .map(|name| {
                let decisions = self.decisions(name)?;
                Ok::<_, anyhow::Error>((name, (stack(&passed(all, name), &decisions), decisions)))
            })
            .collect::<Result<_>>()?;
        let one = |record: &Record| {
            let Some((stack, decisions)) = histories.get(record.name.as_str()) else { return Standing::Candidate };
            let version = record.version;
            if stack.last() == Some(&version) {
                Standing::Current
            } else if stack.contains(&version) {
                Standing::Passed
            } else if decisions.iter().any(|decision| decision.what == What::Rollback(version)) {
                Standing::Withdrawn
            } else {
                Standing::Candidate
            }
        };
        Ok(all.iter().map(one).collect())
    }

    /// Makes a version the current one of its name, whatever the gate said.
    ///
    /// # Errors
    /// When no version is named, there is no such version, or the decision cannot be written.
    pub fn promote(&self, wanted: &ModelRef) -> Result<ModelId> {
        let Some(version) = wanted.version else {
            bail!("say which version of {} is to be the current one: {}@1", wanted.name, wanted.name)
        };
        let id = self.resolve(wanted)?;
        if self.current(&id.name)?.as_ref() != Some(&id) {
            self.decide(&id.name, What::Promote(version))?;
        }
        Ok(id)
    }

    /// Makes the version before the current one the current one again, and gives both: the one taken back, and the one that is current now.
    ///
    /// # Errors
    /// When there is no version before it, or the decision cannot be written.
    pub fn rollback(&self, name: &str) -> Result<(ModelId, ModelId)> {
        let id = |version: u32| ModelId { name: name.to_owned(), version };
        match self.history(name)?[..] {
            [.., before, current] => {
                self.decide(name, What::Rollback(current))?;
                Ok((id(current), id(before)))
            }
            [only] => bail!("{} is the only version that passed, so there is none to go back to", id(only)),
            [] => bail!("no version of {name} is the current one, so there is none to take back"),
        }
    }

    fn decide(&self, name: &str, what: What) -> Result<()> {
        let _lock = self.lock()?;
        let mut decisions = self.decisions(name)?;
        let after = self.ids()?.iter().filter(|id| id.name == name).map(|id| id.version).max().unwrap_or(0);
        decisions.push(Decision { at: timestamp(), after, what });
        danlu_files::write_atomic_bytes(&self.decisions_file(name), &serde_json::to_vec_pretty(&decisions)?)
    }

    /// The versions of a name that were current, the last of which is.
    fn history(&self, name: &str) -> Result<Vec<u32>> {
        Ok(stack(&passed(&self.list()?, name), &self.decisions(name)?))
    }

    fn decisions(&self, name: &str) -> Result<Vec<Decision>> {
        let path = self.decisions_file(name);
        if !path.is_file() {
            return Ok(vec![]);
        }
        let text = danlu_files::read_text_bounded(&path, LIMIT)?;
        serde_json::from_str(&text).with_context(|| {
            format!("{} is damaged; without it the newest version that passed its gate is the current one", path.display())
        })
    }

    fn decisions_file(&self, name: &str) -> PathBuf {
        self.models().join(format!("{name}.decisions.json"))
    }
}

/// The versions of a name, ascending, and whether each passed its gate or had none to pass.
fn passed(all: &[Record], name: &str) -> Vec<(u32, bool)> {
    let versions = all.iter().filter(|record| record.name == name);
    versions.map(|record| (record.version, record.lineage.gate.as_ref().is_none_or(|gate| gate.passed))).collect()
}

/// The versions that were current, the last of which is; versions that are gone are left out.
fn stack(versions: &[(u32, bool)], decisions: &[Decision]) -> Vec<u32> {
    let mut stack: Vec<u32> = Vec::new();
    let mut left = decisions.iter().peekable();
    let mut decide = |stack: &mut Vec<u32>, upto: u32| {
        while let Some(decision) = left.next_if(|decision| decision.after <= upto) {
            match decision.what {
                What::Promote(version) => stack.push(version),
                What::Rollback(version) => {
                    if let Some(top) = stack.iter().rposition(|one| *one == version) {
                        stack.remove(top);
                    }
                }
            }
        }
    };
    for &(version, passed) in versions {
        decide(&mut stack, version.saturating_sub(1));
        if passed {
            stack.push(version);
        }
    }
    decide(&mut stack, u32::MAX);
    // A version that was promoted twice, or is gone, is not one to go back to.
    let there = |version: &u32| versions.iter().any(|(known, _)| known == version);
    stack.retain(there);
    let mut distinct: Vec<u32> = Vec::new();
    for version in stack {
        distinct.retain(|one| *one != version);
        distinct.push(version);
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(after: u32, what: What) -> Decision {
        Decision { at: String::new(), after, what }
    }

    #[test]
    fn the_history_is_a_stack() {
        let check = |versions: &[(u32, bool)], decisions: &[Decision], expected: &[u32]| {
            assert_eq!(stack(versions, decisions), expected, "{versions:?} {decisions:?}");
        };
        let all = [(1, true), (2, false), (3, true)];
        check(&[], &[], &[]);
        check(&all, &[], &[1, 3]);
        check(&all, &[decision(2, What::Promote(2))], &[1, 2, 3]);
        check(&all, &[decision(3, What::Promote(2))], &[1, 3, 2]);
        check(&all, &[decision(3, What::Rollback(3))], &[1]);
        check(&all, &[decision(3, What::Rollback(3)), decision(3, What::Promote(3))], &[1, 3]);
        check(&all, &[decision(3, What::Promote(1))], &[3, 1]);
        // One that passes after a rollback is current, and what was taken back stays so.
        check(&[(1, true), (3, true), (4, true)], &[decision(3, What::Rollback(3))], &[1, 4]);
        // Removed since.
        check(&[(1, true), (3, true)], &[decision(3, What::Promote(2))], &[1, 3]);
        check(&[(7, false)], &[decision(6, What::Rollback(5))], &[]);
    }
}
