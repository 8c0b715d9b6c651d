//! Words with their vectors: what is near, what completes an analogy, and the files that programs for word vectors exchange.

mod file;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use danlu_ops::kernels::{Mat, MatMut, gemm, gemv};

pub use file::Format;

/// Queries whose products with all words are in memory at once.
const QUERIES: usize = 64;

/// Words and a vector for each, all of one length.
#[derive(Debug, Clone, PartialEq)]
pub struct WordVectors {
    words: Vec<String>,
    places: HashMap<String, usize>,
    /// `[words, channels]`.
    values: Vec<f32>,
    width: usize,
    /// One by the length of each vector; 0 of a vector of zeros, which is near to nothing.
    inverse: Vec<f32>,
}

impl WordVectors {
    /// # Errors
    /// When the numbers are not `width` for each word, one is not finite, or a word is there twice.
    pub fn new(words: Vec<String>, values: Vec<f32>, width: usize) -> Result<Self> {
        ensure!(width > 0 && words.len().checked_mul(width) == Some(values.len()), "there are not {width} numbers for each word");
        let mut places = HashMap::with_capacity(words.len());
        for (place, word) in words.iter().enumerate() {
            ensure!(places.insert(word.clone(), place).is_none(), "the word {word:?} is there twice");
        }
        if let Some(bad) = values.iter().position(|value| !value.is_finite()) {
            anyhow::bail!("the vector of {:?} holds {}, which is no number", words[bad / width], values[bad]);
        }
        let inverse = values.chunks_exact(width).map(inverse_length).collect();
        Ok(Self { words, places, values, width, inverse })
    }

    pub fn len(&self) -> usize {
        self.words.len()
    }

    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Channels of a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The words, the most frequent ones first where a corpus gave them.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Where a word stands: as it is written, else in small letters.
    pub fn place(&self, word: &str) -> Option<usize> {
        self.places.get(word).or_else(|| self.places.get(&word.to_lowercase())).copied()
    }

    /// [`WordVectors::place`] of a word that must be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn find(&self, word: &str) -> Result<usize> {
        self.place(word).with_context(|| format!("the word {word:?} is not among the {} that have vectors", self.len()))
    }

    pub fn vector(&self, place: usize) -> &[f32] {
        &self.values[place * self.width..][..self.width]
    }

    /// A word's vector scaled to length 1.
    pub fn direction(&self, place: usize) -> Vec<f32> {
        self.vector(place).iter().map(|x| x * self.inverse[place]).collect()
    }

    /// The `count` words whose vectors have the largest cosine with `query`, the nearest first, without those in `except`.
    pub fn near(&self, query: &[f32], except: &[usize], count: usize) -> Vec<(usize, f32)> {
        let mut cosines = vec![0.0; self.len()];
        gemv(&mut cosines, &self.values, query, 1);
        let scale = inverse_length(query);
        let mut found: Vec<(usize, f32)> =
            cosines.iter().zip(&self.inverse).map(|(product, inverse)| product * inverse * scale).enumerate().collect();
        found.retain(|(place, _)| !except.contains(place));
        let order = |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if count < found.len() {
            found.select_nth_unstable_by(count, order);
            found.truncate(count);
        }
        found.sort_by(order);
        found
    }

    /// What is to `c` as `b` is to `a`: the direction `b − a + c` of vectors of length 1 (3CosAdd, Mikolov et al. 2013b), to be searched
    /// without the three.
    pub fn analogy(&self, [a, b, c]: [usize; 3]) -> Vec<f32> {
        let [a, b, c] = [a, b, c].map(|place| self.direction(place));
        a.iter().zip(&b).zip(&c).map(|((a, b), c)| b - a + c).collect()
    }

    /// The best word for each analogy, with all words tried; none where there is no fourth word.
    pub fn complete(&self, analogies: &[[usize; 3]]) -> Vec<Option<usize>> {
        let mut best = Vec::with_capacity(analogies.len());
        let table = Mat::new(&self.values, self.width, self.len(), 1, self.width);
        for analogies in analogies.chunks(QUERIES) {
            let queries: Vec<f32> = analogies.iter().flat_map(|analogy| self.analogy(*analogy)).collect();
            let mut products = vec![0.0; analogies.len() * self.len()];
            let queries = Mat::row_major(&queries, analogies.len(), self.width);
            gemm(MatMut::row_major(&mut products, analogies.len(), self.len()), queries, table, false);
            for (analogy, products) in analogies.iter().zip(products.chunks_exact(self.len())) {
                let cosines = products.iter().zip(&self.inverse).map(|(product, inverse)| product * inverse).enumerate();
                let open = cosines.filter(|(place, _)| !analogy.contains(place));
                // Of equal ones the first.
                best.push(open.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(place, _)| place));
            }
        }
        best
    }
}

fn inverse_length(vector: &[f32]) -> f32 {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 { (1.0 / length) as f32 } else { 0.0 }
}
