//! Features: numbers about a text that stand beside what a model makes of it. What depends on data is learned from training texts alone and
//! kept with the model.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::record::Example;
use crate::usual::{standardized, usual};

/// Which features to make.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeatureSpec {
    /// Lengths, and shares of kinds of characters.
    pub counts: bool,
    /// Runs of characters, from the shortest to the longest.
    pub ngrams: Option<(usize, usize)>,
    /// The most frequent ones that are kept.
    pub ngram_limit: usize,
    pub lexicon: Option<Lexicon>,
    /// Names of the user's own numbers.
    pub columns: Vec<String>,
}

/// Words that say something about a text, in groups.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lexicon {
    pub groups: Vec<String>,
    /// Each with the place of its group.
    pub words: Vec<(String, usize)>,
}

/// Features as they were fitted, to be kept with the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "File", into = "File")]
pub struct Features {
    file: File,
    places: HashMap<String, u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The numbers with one value for each text, by name, and their mean and deviation in training.
    numbers: Vec<(String, f64, f64)>,
    counts: bool,
    lexicon: Option<Lexicon>,
    columns: usize,
    ngrams: Option<(usize, usize)>,
    /// Each with the weight of its rarity.
    vocabulary: Vec<(String, f64)>,
}

const MAX_LEXICON: u64 = 64 << 20;
/// The longest run of characters, and the most of them.
const LONGEST_RUN: usize = 8;
const MOST_RUNS: usize = 1 << 22;
/// An n-gram of one text alone says nothing about others.
const LEAST_TEXTS: u32 = 2;

const COUNTS: [&str; 9] = [
    "log of characters",
    "log of words",
    "characters in a word",
    "share of digits",
    "share of capitals",
    "share of punctuation",
    "share of different characters",
    "log of exclamation marks",
    "log of question marks",
];

impl Lexicon {
    /// Reads a file with a word in each line, and behind a tab the name of its group.
    ///
    /// # Errors
    /// When the file cannot be read or holds no word.
    pub fn load(path: &Path) -> Result<Self> {
        let text = danlu_files::read_text_bounded(path, MAX_LEXICON)?;
        let mut lexicon = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (word, group) = line.split_once('\t').unwrap_or((line, "lexicon"));
            let group = group.trim();
            let place = lexicon.groups.iter().position(|known| known == group).unwrap_or_else(|| {
                lexicon.groups.push(group.to_owned());
                lexicon.groups.len() - 1
            });
            lexicon.words.push((word.trim().to_lowercase(), place));
        }
        ensure!(!lexicon.words.is_empty(), "{} holds no word", path.display());
        Ok(lexicon)
    }

    fn hits(&self, text: &str) -> Vec<f64> {
        let mut hits = vec![0.0; self.groups.len()];
        for (word, group) in &self.words {
            hits[*group] += text.matches(word.as_str()).count() as f64;
        }
        hits.into_iter().map(|count: f64| count.ln_1p()).collect()
    }
}

impl Features {
    /// Learns from the training texts what the features need to know: which n-grams there are and how rare each is, and what is usual for
    /// the numbers.
    ///
    /// # Errors
    /// When the specification's numbers make no sense, or nothing is asked for.
    pub fn fit(spec: &FeatureSpec, train: &[&Example]) -> Result<Self> {
        ensure!(!train.is_empty(), "there is no text to fit features on");
        let mut file = File {
            numbers: vec![],
            counts: spec.counts,
            lexicon: spec.lexicon.clone(),
            columns: spec.columns.len(),
            ngrams: spec.ngrams,
            vocabulary: vec![],
        };
        if let Some((low, high)) = spec.ngrams {
            ensure!(
                (1..=LONGEST_RUN).contains(&low) && (low..=LONGEST_RUN).contains(&high),
                "n-grams from {low} to {high} characters; they may have from 1 to {LONGEST_RUN}, the shorter first"
            );
            ensure!(
                (1..=MOST_RUNS).contains(&spec.ngram_limit),
                "{} n-grams; there may be from 1 to {MOST_RUNS}",
                spec.ngram_limit
            );
            file.vocabulary = vocabulary(train, (low, high), spec.ngram_limit);
            ensure!(!file.vocabulary.is_empty(), "no n-gram is in two training texts; give more texts or shorter n-grams");
        }
        let mut names: Vec<String> = if spec.counts { COUNTS.map(str::to_owned).to_vec() } else { vec![] };
        names.extend(spec.lexicon.iter().flat_map(|lexicon| lexicon.groups.iter().map(|group| format!("hits of {group}"))));
        names.extend(spec.columns.iter().cloned());
        let rows: Vec<Vec<f64>> = train.iter().map(|example| numbers(&file, example)).collect();
        let usual = usual(rows.iter(), names.len());
        file.numbers = names.into_iter().zip(usual).map(|(name, (mean, deviation))| (name, mean, deviation)).collect();
        let features = Self::try_from(file)?;
        ensure!(
            !features.is_empty(),
            "no feature is asked for; give `features.counts`, `features.ngrams`, `features.lexicon` or `features.columns`"
        );
        Ok(features)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.file.numbers.len() + self.file.vocabulary.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of them are numbers with one value for each text; the user's own are the last of these.
    pub fn numbers(&self) -> usize {
        self.file.numbers.len()
    }

    /// The user's own numbers that every example must bring.
    pub fn columns(&self) -> usize {
        self.file.columns
    }

    /// What each is called: the numbers, then the n-grams.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let numbers = self.file.numbers.iter().map(|(name, ..)| name.as_str());
        numbers.chain(self.file.vocabulary.iter().map(|(gram, _)| gram.as_str()))
    }

    /// The features of a text that are not zero, by place: standardized numbers, and n-grams by frequency and rarity, of length one together
    /// (Spärck Jones 1972, as `TfidfVectorizer` computes it).
    pub fn of(&self, example: &Example) -> Vec<(u32, f32)> {
        let mut row = vec![];
        for (i, (value, (_, mean, deviation))) in numbers(&self.file, example).into_iter().zip(&self.file.numbers).enumerate() {
            row.push((i as u32, standardized(value, (*mean, *deviation))));
        }
        let Some(range) = self.file.ngrams else { return row };
        let mut counts: HashMap<u32, f64> = HashMap::new();
        for_each_gram(&text(example), range, |gram| {
            if let Some(&place) = self.places.get(gram) {
                *counts.entry(place).or_default() += 1.0;
            }
        });
        let mut found: Vec<(u32, f64)> =
            counts.into_iter().map(|(place, count)| (place, count * self.file.vocabulary[place as usize].1)).collect();
        found.sort_unstable_by_key(|(place, _)| *place);
        let length = found.iter().map(|(_, value)| value * value).sum::<f64>().sqrt();
        let first = self.file.numbers.len() as u32;
        row.extend(found.into_iter().map(|(place, value)| (first + place, (value / length) as f32)));
        row
    }

    /// Reads what [`Features::save`] wrote.
    ///
    /// # Errors
    /// When the file is missing, too large or damaged.
    pub fn load(path: &Path) -> Result<Self> {
        let text = danlu_files::read_text_bounded(path, 1 << 30)?;
        serde_json::from_str(&text).with_context(|| format!("{} does not describe features", path.display()))
    }

    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        danlu_files::write_atomic_bytes(path, &serde_json::to_vec(self)?)
    }
}

impl TryFrom<File> for Features {
    type Error = anyhow::Error;

    fn try_from(file: File) -> Result<Self> {
        ensure!(file.vocabulary.len() <= MOST_RUNS, "{} n-grams are more than there may be", file.vocabulary.len());
        if let Some((low, high)) = file.ngrams {
            ensure!(low >= 1 && low <= high && high <= LONGEST_RUN, "n-grams from {low} to {high} characters");
        }
        let known = usize::from(file.counts) * COUNTS.len()
            + file.columns
            + file.lexicon.as_ref().map_or(0, |lexicon| lexicon.groups.len());
        ensure!(
            file.numbers.len() == known || file.numbers.is_empty(),
            "there are {} numbers where {known} belong",
            file.numbers.len()
        );
        let groups = file.lexicon.as_ref().map_or(0, |lexicon| lexicon.groups.len());
        ensure!(
            file.lexicon.iter().flat_map(|lexicon| &lexicon.words).all(|(_, group)| *group < groups),
            "a word of the lexicon has a group that is not there"
        );
        let places = file.vocabulary.iter().enumerate().map(|(i, (gram, _))| (gram.clone(), i as u32)).collect();
        Ok(Self { file, places })
    }
}

impl From<Features> for File {
    fn from(features: Features) -> Self {
        features.file
    }
}

/// The numbers with one value for each text: counts, hits of a lexicon, the user's own.
fn numbers(file: &File, example: &Example) -> Vec<f64> {
    let text = text(example);
    let mut numbers = if file.counts { counts(example) } else { vec![] };
    if let Some(lexicon) = &file.lexicon {
        numbers.extend(lexicon.hits(&text));
    }
    numbers.extend((0..file.columns).map(|i| example.numbers.get(i).copied().unwrap_or(0.0)));
    numbers
}

fn counts(example: &Example) -> Vec<f64> {
    let whole = match &example.pair {
        Some(pair) => format!("{} {pair}", example.text),
        None => example.text.clone(),
    };
    let characters = whole.chars().filter(|c| !c.is_whitespace()).count() as f64;
    let words = whole.split_whitespace().count() as f64;
    let of = |wanted: fn(char) -> bool| whole.chars().filter(|c| wanted(*c)).count() as f64;
    let different = whole.chars().filter(|c| !c.is_whitespace()).collect::<std::collections::HashSet<_>>().len() as f64;
    let share = |count: f64| count / characters.max(1.0);
    vec![
        characters.ln_1p(),
        words.ln_1p(),
        characters / words.max(1.0),
        share(of(char::is_numeric)),
        share(of(char::is_uppercase)),
        share(of(|c| !c.is_alphanumeric() && !c.is_whitespace())),
        share(different),
        of(|c| matches!(c, '!' | '！')).ln_1p(),
        of(|c| matches!(c, '?' | '？')).ln_1p(),
    ]
}

/// What n-grams and the lexicon read: in small letters, with one space where there are several.
fn text(example: &Example) -> String {
    let one = |text: &str| {
        let mut plain = String::with_capacity(text.len());
        let mut after_space = false;
        for c in text.to_lowercase().chars() {
            if !(c.is_whitespace() && after_space) {
                plain.push(if c.is_whitespace() { ' ' } else { c });
            }
            after_space = c.is_whitespace();
        }
        plain
    };
    match &example.pair {
        Some(pair) => format!("{}\u{1f}{}", one(&example.text), one(pair)),
        None => one(&example.text),
    }
}

fn for_each_gram(text: &str, (low, high): (usize, usize), mut each: impl FnMut(&str)) {
    let mut places: Vec<usize> = text.char_indices().map(|(i, _)| i).collect();
    places.push(text.len());
    for n in low..=high {
        for run in places.windows(n + 1) {
            each(&text[run[0]..run[n]]);
        }
    }
}

/// The most frequent n-grams that are in two texts at least, with their rarity, in the order of their letters.
fn vocabulary(train: &[&Example], range: (usize, usize), limit: usize) -> Vec<(String, f64)> {
    // Of each its occurrences, the texts it is in, and the last of those.
    let mut counts: HashMap<String, (u64, u32, usize)> = HashMap::new();
    for (i, example) in train.iter().enumerate() {
        for_each_gram(&text(example), range, |gram| match counts.get_mut(gram) {
            Some((all, texts, last)) => {
                *all += 1;
                *texts += u32::from(*last != i);
                *last = i;
            }
            None => drop(counts.insert(gram.to_owned(), (1, 1, i))),
        });
    }
    let mut known: Vec<(String, u64, u32)> = counts
        .into_iter()
        .filter(|(_, (_, texts, _))| *texts >= LEAST_TEXTS)
        .map(|(gram, (all, texts, _))| (gram, all, texts))
        .collect();
    known.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    known.truncate(limit);
    known.sort_unstable();
    let all = train.len() as f64;
    known.into_iter().map(|(gram, _, texts)| (gram, ((1.0 + all) / (1.0 + f64::from(texts))).ln() + 1.0)).collect()
}
