use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};
use serde::{Deserialize, Serialize};

/// One version of one model, written `name@version`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelId {
    pub name: String,
    pub version: u32,
}

/// What a person types: `name@version`, or `name` for its newest version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRef {
    pub name: String,
    pub version: Option<u32>,
}

/// Checks that a name is safe as a folder's name: 1 to 100 letters (of any script), digits, `.`, `_` and `-`, the first a letter or digit.
///
/// # Errors
/// When it is not, with what is allowed.
pub fn check_name(name: &str) -> Result<()> {
    let first = name.chars().next().is_some_and(|c| c.is_alphanumeric());
    let rest = name.chars().all(|c| c.is_alphanumeric() || "._-".contains(c));
    if !first || !rest || name.len() > 100 || name.ends_with('.') {
        bail!(
            "{name:?} cannot be a name: use 1 to 100 letters, digits, '.', '_' and '-', beginning with a letter or digit and not ending with '.'"
        );
    }
    Ok(())
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl FromStr for ModelRef {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => {
                let number = version.parse::<u32>().ok().filter(|&v| v > 0 && version == v.to_string());
                (
                    name,
                    Some(number.with_context(|| {
                        format!("{version:?} is not a version of a model; write {name}@1, or {name} for the newest")
                    })?),
                )
            }
            None => (text, None),
        };
        check_name(name)?;
        Ok(Self { name: name.to_string(), version })
    }
}

impl FromStr for ModelId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let ModelRef { name, version } = text.parse()?;
        let version = version.with_context(|| format!("{text:?} names no version; write {text}@1"))?;
        Ok(Self { name, version })
    }
}

impl TryFrom<String> for ModelId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ModelId> for String {
    fn from(id: ModelId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_their_folder() {
        for bad in [
            "",
            "..",
            ".hidden",
            "a/b",
            "../a",
            "a\\b",
            "a b",
            "a@1@2",
            "a@0",
            "a@01",
            "a@-1",
            "a@",
            "a:b",
            "a.",
            "-a",
            &"a".repeat(101),
        ] {
            assert!(bad.parse::<ModelRef>().is_err(), "{bad:?} was taken");
        }
        for good in ["a", "丹炉@1", "gpt-2.1_b", "9", "a@1", "smollm2@4294967295"] {
            assert_eq!(good.parse::<ModelRef>().unwrap().to_string(), good);
        }
    }

    #[test]
    fn an_id_needs_its_version() {
        assert_eq!("a@2".parse::<ModelId>().unwrap(), ModelId { name: "a".into(), version: 2 });
        assert!("a".parse::<ModelId>().unwrap_err().to_string().contains("a@1"));
    }
}
