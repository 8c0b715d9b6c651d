//! From the shapes that labelled packages have to records with labels.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::read;

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

/// Records in JSON, each the text of `fields` with what `label` says of it. Those that say one of `except`, or nothing, are passed over.
pub(super) fn records(
    fields: &[String],
    label: &str,
    except: &[String],
    file: &mut dyn Read,
    each: &mut dyn FnMut(Value) -> Result<()>,
) -> Result<()> {
    read::records(file, &mut |record| {
        let text = read::join_fields(&record, fields);
        match record[label].as_str().map(str::trim) {
            Some(said) if !said.is_empty() && !text.trim().is_empty() && !except.iter().any(|other| other == said) => {
                each(json!({ "text": text, "label": said }))
            }
            _ => Ok(()),
        }
    })
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
        let json = r#"{"a":{"t":"x","u":"y","of":"Arts"},"b":{"t":"z","of":"None"},"c":{"t":"z"},"d":{"of":"Arts"}}"#;
        let mut topics = vec![];
        records(&["t".to_owned(), "u".to_owned()], "of", &["None".to_owned()], &mut json.as_bytes(), &mut |record| {
            topics.push(record);
            Ok(())
        })
        .unwrap();
        assert_eq!(topics, [json!({"text": "x\ny", "label": "Arts"})]);
        let other = lines(&labels, "a/neg.txt", &mut "x".as_bytes(), &mut |_| Ok(()));
        assert!(other.unwrap_err().to_string().contains("neg.txt"));
    }
}
