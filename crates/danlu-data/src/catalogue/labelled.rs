//! From the shapes that labelled packages have to records with labels.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// A text a line, of which all in a file have the label that stands beside the file's name.
pub(super) fn lines(
    labels: &BTreeMap<String, String>,
    name: &str,
    file: &mut dyn Read,
    each: &mut dyn FnMut(Value) -> Result<()>,
) -> Result<()> {
    let own = name.rsplit('/').next().unwrap_or(name);
    let label = labels.get(own).with_context(|| format!("the catalogue has no label for {own}"))?;
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        let text = String::from_utf8_lossy(&line);
        if !text.trim().is_empty() {
            each(json!({ "text": text.trim(), "label": label }))?;
        }
    }
    Ok(())
}

/// `word/tag word/tag`, a sentence or paragraph a line.
pub(super) fn tagged(file: &mut dyn Read, each: &mut dyn FnMut(Value) -> Result<()>) -> Result<()> {
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let pairs: Vec<(&str, &str)> = line.split_whitespace().filter_map(|token| token.rsplit_once('/')).collect();
        // A word without letters is a slip in the file.
        let pairs: Vec<_> = pairs.into_iter().filter(|(word, tag)| !word.is_empty() && !tag.is_empty()).collect();
        if !pairs.is_empty() {
            let (words, tags): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            each(json!({ "tokens": words, "tags": tags }))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_slashes_become_labels() {
        let mut found = vec![];
        let labels = BTreeMap::from([("pos.txt".to_owned(), "good".to_owned())]);
        lines(&labels, "a/pos.txt", &mut "好\n\n 很好 \n".as_bytes(), &mut |record| {
            found.push(record);
            Ok(())
        })
        .unwrap();
        tagged(&mut "迈向/v  充满/v\n\n１／２/m x /y z/\n".as_bytes(), &mut |record| {
            found.push(record);
            Ok(())
        })
        .unwrap();
        assert_eq!(
            found,
            [
                json!({"text": "好", "label": "good"}),
                json!({"text": "很好", "label": "good"}),
                json!({"tokens": ["迈向", "充满"], "tags": ["v", "v"]}),
                json!({"tokens": ["１／２"], "tags": ["m"]}),
            ]
        );
        let other = lines(&labels, "a/neg.txt", &mut "x".as_bytes(), &mut |_| Ok(()));
        assert!(other.unwrap_err().to_string().contains("neg.txt"));
    }
}
