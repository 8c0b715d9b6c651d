//! Analogies: what is to Rome as Paris is to France? Answered by vectors of words
//! ([Mikolov, Yih and Zweig 2013](https://aclanthology.org/N13-1090/)).

use anyhow::{Result, bail, ensure};
use danlu_models::WordVectors;

/// Questions made for this program, since Google's are a download of their own: capitals, opposite sexes, plurals, tenses, comparatives,
/// nationalities; each two pairs of a relation ask a question. They are few and easy ones, so that their score says whether one set of vectors
/// is better than another on the same words, and cannot be compared with what papers report on Google's 19,544.
const BUILT_IN: &str = include_str!("analogies.txt");

/// Questions in sections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Analogies {
    sections: Vec<Section>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Section {
    name: String,
    /// What is to the third as the second is to the first, and the answer.
    questions: Vec<[String; 4]>,
}

/// How many of the questions that vectors have all four words for they answer right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnalogyScore {
    pub section: String,
    pub right: usize,
    /// Whose words are all known.
    pub asked: usize,
    /// In the section.
    pub questions: usize,
}

impl Analogies {
    /// The program's own questions.
    ///
    /// # Errors
    /// When they are damaged.
    pub fn built_in() -> Result<Self> {
        Self::parse(BUILT_IN)
    }

    /// Questions as Google's file has them: `: name` begins a section, and four words are a question with its answer. Two words are a pair of
    /// the section's relation, each two of which ask a question.
    ///
    /// # Errors
    /// Names the first line that is neither.
    pub fn parse(text: &str) -> Result<Self> {
        let mut sections: Vec<Section> = vec![];
        let mut pairs: Vec<[String; 2]> = vec![];
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if let Some(name) = line.strip_prefix(':') {
                close(&mut sections, &mut pairs);
                sections.push(Section { name: name.trim().into(), questions: vec![] });
                continue;
            }
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some(section) = sections.last_mut() else {
                bail!("line {}: a section begins with a line like \": capitals\"", number + 1)
            };
            let words: Vec<String> = line.split_whitespace().map(str::to_lowercase).collect();
            match <[String; 4]>::try_from(words) {
                Ok(question) => section.questions.push(question),
                Err(words) => match <[String; 2]>::try_from(words) {
                    Ok(pair) => pairs.push(pair),
                    Err(words) => bail!("line {} has {} words; a question has four, a pair two", number + 1, words.len()),
                },
            }
        }
        close(&mut sections, &mut pairs);
        ensure!(sections.iter().any(|section| !section.questions.is_empty()), "there is no question");
        Ok(Self { sections })
    }

    /// What vectors answer, section by section; the answer is the nearest word that is not in the question (3CosAdd).
    pub fn score(&self, vectors: &WordVectors) -> Vec<AnalogyScore> {
        let one = |section: &Section| {
            let known = section.questions.iter().filter_map(|question| {
                let [a, b, c, d] = question.each_ref().map(|word| vectors.place(word));
                Some(([a?, b?, c?], d?))
            });
            let (asked, answers): (Vec<_>, Vec<_>) = known.unzip();
            let right = vectors.complete(&asked).iter().zip(&answers).filter(|(found, answer)| **found == Some(**answer)).count();
            AnalogyScore { section: section.name.clone(), right, asked: asked.len(), questions: section.questions.len() }
        };
        self.sections.iter().map(one).collect()
    }
}

/// Turns the pairs of the last section into its questions.
fn close(sections: &mut [Section], pairs: &mut Vec<[String; 2]>) {
    let pairs = std::mem::take(pairs);
    let Some(section) = sections.last_mut() else { return };
    for (i, [a, b]) in pairs.iter().enumerate() {
        for (_, [c, d]) in pairs.iter().enumerate().filter(|(j, _)| *j != i) {
            section.questions.push([a, b, c, d].map(String::clone));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_googles_lines_or_pairs() {
        let text = "# made for a test\n: capitals\nAthens Greece Rome Italy\n\n: sexes\nking queen\nman woman\nboy girl\n";
        let analogies = Analogies::parse(text).unwrap();
        let sizes: Vec<usize> = analogies.sections.iter().map(|section| section.questions.len()).collect();
        assert_eq!(sizes, [1, 6]);
        assert_eq!(analogies.sections[0].questions[0], ["athens", "greece", "rome", "italy"]);
        assert_eq!(analogies.sections[1].questions[1], ["king", "queen", "boy", "girl"]);
        for (text, part) in [("a b c d\n", "line 1"), (": x\na b c\n", "line 2 has 3 words"), (": x\n", "no question")] {
            let error = Analogies::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error:?} lacks {part:?}");
        }
    }

    #[test]
    fn what_is_unknown_is_not_asked() {
        let words = ["man", "woman", "king", "queen"].map(str::to_string).to_vec();
        let vectors = WordVectors::new(words, vec![1.0, 1.0, 1.0, -1.0, 3.0, 1.0, 3.0, -1.0], 2).unwrap();
        let analogies = Analogies::parse(": sexes\nman woman king queen\nking woman man queen\nman woman boy girl\n").unwrap();
        let expected = AnalogyScore { section: "sexes".into(), right: 2, asked: 2, questions: 3 };
        assert_eq!(analogies.score(&vectors), [expected]);
    }

    #[test]
    fn the_built_in_questions_have_no_word_twice_in_a_section() {
        let analogies = Analogies::built_in().unwrap();
        assert!(analogies.sections.len() >= 6);
        for section in &analogies.sections {
            assert!(section.questions.len() >= 56, "{} has {} questions", section.name, section.questions.len());
            for question in &section.questions {
                let distinct: std::collections::HashSet<&String> = question.iter().collect();
                assert_eq!(distinct.len(), 4, "{}: {question:?}", section.name);
            }
        }
    }
}
