//! How likely a model finds answers to questions, when all that it is taught stands before the question: no weight moves
//! ([Brown et al. 2020](https://arxiv.org/abs/2005.14165)).

use anyhow::{Result, ensure};
use danlu_models::{Decoder, Sequence};

/// A prompt is read this many tokens at a time, so that memory does not grow with its square.
const PREFILL: usize = 512;
/// Tokens that are read together, of several questions.
const TOGETHER: usize = 1024;
/// Rows of logits at once: each is as long as the vocabulary.
const ROWS: usize = 128;

/// A question with the answers that are weighed against each other, all as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Demonstrations and question, at least one token.
    pub prompt: Vec<u32>,
    /// What may follow the prompt, at least one token each.
    pub answers: Vec<Vec<u32>>,
}

/// What a model makes of an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Likelihood {
    /// Of all of its tokens after the prompt, in nats.
    pub log_prob: f64,
    /// It is what the model writes when it takes the likeliest token each time.
    pub greedy: bool,
}

impl Question {
    /// Tokens of the prompt with its longest answer.
    pub fn len(&self) -> usize {
        self.prompt.len() + self.answers.iter().map(Vec::len).max().unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.prompt.is_empty()
    }
}

/// The likelihoods of all answers to each question. What all prompts begin with is read once and its keys and values are shared; what is left
/// of several questions is read together, and answers share the prompt they follow. Give it a decoder without autodiff (`Module::valid`).
///
/// # Errors
/// When a prompt or an answer is empty, a question does not fit into the decoder's context, the decoder has a tuned prompt, or a likelihood is
/// not a number.
pub fn likelihoods(decoder: &Decoder, questions: &[Question]) -> Result<Vec<Vec<Likelihood>>> {
    ensure!(
        decoder.prompt_len() == 0,
        "a model with a tuned prompt reads one text at a time; answers are weighed many at a time"
    );
    for question in questions {
        let whole = !question.prompt.is_empty() && question.answers.iter().all(|answer| !answer.is_empty());
        ensure!(whole, "a question or an answer has no token");
        ensure!(
            question.len() <= decoder.context(),
            "a question has {} tokens with what stands before it, and the model's context {}; give fewer demonstrations or shorter texts",
            question.len(),
            decoder.context()
        );
    }
    let Some(longest) = questions.iter().map(Question::len).max() else { return Ok(vec![]) };
    let common = common_prefix(questions);
    let mut start = Sequence::new(decoder, longest);
    for part in questions[0].prompt[..common].chunks(PREFILL) {
        decoder.step_many(&[part], &mut [&mut start]);
    }
    let mut all = Vec::with_capacity(questions.len());
    let mut rest = questions;
    while !rest.is_empty() {
        let mut tokens = 0;
        let fits = |question: &&Question| {
            tokens += question.prompt.len() - common;
            tokens <= TOGETHER
        };
        let count = rest.iter().take_while(fits).count().clamp(1, ROWS);
        let (now, later) = rest.split_at(count);
        rest = later;
        all.extend(of_group(decoder, &start, common, now)?);
    }
    Ok(all)
}

/// How many tokens all prompts begin with; one of each is left to be read, since logits come from what is read.
fn common_prefix(questions: &[Question]) -> usize {
    let Some((first, others)) = questions.split_first() else { return 0 };
    let alike = |other: &Question| first.prompt.iter().zip(&other.prompt).take_while(|(a, b)| a == b).count();
    let shortest = questions.iter().map(|question| question.prompt.len()).min().unwrap_or(0);
    others.iter().map(alike).min().unwrap_or(first.prompt.len()).min(shortest.saturating_sub(1))
}

fn of_group(decoder: &Decoder, start: &Sequence, common: usize, questions: &[Question]) -> Result<Vec<Vec<Likelihood>>> {
    let vocabulary = decoder.vocabulary();
    let mut read: Vec<Sequence> = questions.iter().map(|_| start.clone()).collect();
    let logits = {
        let parts: Vec<&[u32]> = questions.iter().map(|question| &question.prompt[common..]).collect();
        decoder.step_many(&parts, &mut read.iter_mut().collect::<Vec<_>>())
    };
    // The logits after a prompt are of every answer's first token.
    let mut found: Vec<Vec<Likelihood>> = vec![];
    for (question, row) in questions.iter().zip(logits.chunks_exact(vocabulary)) {
        let normal = Row::new(row)?;
        found.push(question.answers.iter().map(|answer| normal.of(answer[0])).collect());
    }
    // Those that go on do so from the prompt, all but their last token.
    let longer: Vec<(usize, usize)> = questions
        .iter()
        .enumerate()
        .flat_map(|(i, question)| (0..question.answers.len()).map(move |j| (i, j)))
        .filter(|&(i, j)| questions[i].answers[j].len() > 1)
        .collect();
    let mut rest = &longer[..];
    while !rest.is_empty() {
        let mut rows = 0;
        let fits = |&&(i, j): &&(usize, usize)| {
            rows += questions[i].answers[j].len() - 1;
            rows <= ROWS
        };
        let (now, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        rest = later;
        let parts: Vec<&[u32]> =
            now.iter().map(|&(i, j)| questions[i].answers[j].split_last().map_or(&[][..], |(_, most)| most)).collect();
        let wanted: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        let mut going: Vec<Sequence> = now.iter().map(|&(i, _)| read[i].clone()).collect();
        let logits = decoder.step_many_after(&parts, &wanted, &mut going.iter_mut().collect::<Vec<_>>());
        let mut rows = logits.chunks_exact(vocabulary);
        for &(i, j) in now {
            for (&token, row) in questions[i].answers[j][1..].iter().zip(rows.by_ref()) {
                let one = Row::new(row)?.of(token);
                let sum = &mut found[i][j];
                (sum.log_prob, sum.greedy) = (sum.log_prob + one.log_prob, sum.greedy && one.greedy);
            }
        }
    }
    Ok(found)
}

/// The logits of one next token, with what they are compared by.
struct Row<'a> {
    logits: &'a [f32],
    most: f32,
    normalizer: f64,
}

impl<'a> Row<'a> {
    fn new(logits: &'a [f32]) -> Result<Self> {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&x| f64::from(x - most).exp()).sum();
        let normalizer = f64::from(most) + sum.ln();
        ensure!(normalizer.is_finite(), "the model's likelihood of an answer is not a number; its weights are damaged");
        Ok(Self { logits, most, normalizer })
    }

    /// # Panics
    /// When the token is outside the vocabulary; the decoder would have said so before of one in a prompt.
    fn of(&self, token: u32) -> Likelihood {
        let logit = self.logits[token as usize];
        Likelihood { log_prob: f64::from(logit) - self.normalizer, greedy: logit >= self.most }
    }
}

/// Log-probabilities of labels among themselves, after the bias that the prompt alone gives them is taken away: each is divided by what it has
/// where the question says nothing ("N/A", `[MASK]` and nothing at all), on average over those
/// ([Zhao et al. 2021](https://arxiv.org/abs/2102.09690), with the diagonal form that they recommend for labels). Without such questions,
/// they are only made to sum up to one.
pub fn calibrated(log_probs: &[f64], of_nothing: &[Vec<f64>]) -> Vec<f64> {
    let probabilities: Vec<Vec<f64>> = of_nothing.iter().map(|one| normalized(one).into_iter().map(f64::exp).collect()).collect();
    let count = probabilities.len().max(1) as f64;
    let bias = |label: usize| match probabilities.is_empty() {
        true => 0.0,
        false => (probabilities.iter().map(|one| one[label]).sum::<f64>() / count).max(f64::MIN_POSITIVE).ln(),
    };
    let moved: Vec<f64> = normalized(log_probs).into_iter().enumerate().map(|(label, x)| x - bias(label)).collect();
    normalized(&moved)
}

fn normalized(log_probs: &[f64]) -> Vec<f64> {
    let most = log_probs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let normalizer = most + log_probs.iter().map(|x| (x - most).exp()).sum::<f64>().ln();
    log_probs.iter().map(|x| x - normalizer).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use danlu_models::{Batch, DecoderConfig, LlamaConfig};

    use super::*;

    fn decoder() -> Decoder {
        Decoder::new(&DecoderConfig::Qwen3(LlamaConfig::new(61, 32, 2, 8, 64)), 4, &Device::flex()).unwrap()
    }

    /// By one forward pass over the whole text.
    fn plain(decoder: &Decoder, prompt: &[u32], answer: &[u32]) -> f64 {
        let ids = [prompt, answer].concat();
        let mut targets = vec![danlu_ops::IGNORE; ids.len()];
        for (i, &token) in answer.iter().enumerate() {
            targets[prompt.len() + i - 1] = token;
        }
        let length = ids.len();
        decoder.token_nll(&Batch::new(ids, targets, 1, length, vec![])).iter().map(|&nats| -f64::from(nats)).sum()
    }

    #[test]
    fn shared_beginnings_change_nothing() {
        let decoder = decoder();
        let question = |i: u32| Question {
            prompt: [&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11][..], &vec![20 + i % 3; 1 + i as usize % 4]].concat(),
            answers: vec![vec![30], vec![31, 32], vec![30, i % 7, 33, 34]],
        };
        let questions: Vec<Question> = (0..40).map(question).collect();
        assert_eq!(common_prefix(&questions), 11);
        let found = likelihoods(&decoder, &questions).unwrap();
        for (question, found) in questions.iter().zip(&found) {
            for (answer, found) in question.answers.iter().zip(found) {
                let expected = plain(&decoder, &question.prompt, answer);
                assert!((found.log_prob - expected).abs() < 1e-3, "{} is not {expected}", found.log_prob);
            }
        }
        // Alike prompts, a single question, and none.
        assert_eq!(common_prefix(&[question(1), question(1)]), question(1).prompt.len() - 1);
        let one = likelihoods(&decoder, &[question(5)]).unwrap();
        assert!((one[0][2].log_prob - found[5][2].log_prob).abs() < 1e-3);
        assert!(likelihoods(&decoder, &[]).unwrap().is_empty());
    }

    #[test]
    fn what_is_written_greedily_is_known() {
        let decoder = decoder();
        let prompt = vec![5, 6, 7];
        let mut written = vec![];
        for _ in 0..3 {
            let ids = [&prompt[..], &written[..]].concat();
            let mut sequence = Sequence::new(&decoder, 64);
            let logits = decoder.step_many(&[&ids], &mut [&mut sequence]);
            let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            written.push(best as u32);
        }
        let mut other = written.clone();
        other[2] = (other[2] + 1) % 61;
        let answers = vec![written, other];
        let found = likelihoods(&decoder, &[Question { prompt, answers }]).unwrap();
        assert_eq!(found[0].iter().map(|one| one.greedy).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn what_cannot_be_weighed_says_why() {
        let says = |prompt: Vec<u32>, answers: Vec<Vec<u32>>, part: &str| {
            let error = likelihoods(&decoder(), &[Question { prompt, answers }]).unwrap_err().to_string();
            assert!(error.contains(part), "{error:?} lacks {part:?}");
        };
        says(vec![], vec![vec![1]], "no token");
        says(vec![1], vec![vec![1], vec![]], "no token");
        says(vec![1; 60], vec![vec![1; 5]], "65 tokens");
    }

    #[test]
    fn a_prompts_bias_is_taken_away() {
        let log = |probabilities: &[f64]| probabilities.iter().map(|p| p.ln()).collect::<Vec<f64>>();
        // It says the first label three times in four of anything, and seven times in ten of this: so this is the second.
        let found = calibrated(&log(&[0.7, 0.3]), &[log(&[0.8, 0.2]), log(&[0.7, 0.3])]);
        let expected = [0.7 / 0.75, 0.3 / 0.25].map(|x| x / (0.7 / 0.75 + 0.3 / 0.25));
        assert!(found.iter().zip(expected).all(|(found, p)| (found.exp() - p).abs() < 1e-12), "{found:?}");
        // Only the proportions of labels among themselves count.
        let scaled = calibrated(&log(&[0.007, 0.003]), &[log(&[0.08, 0.02]), log(&[0.0007, 0.0003])]);
        assert!(found.iter().zip(scaled).all(|(a, b)| (a - b).abs() < 1e-9));
        assert!((calibrated(&log(&[0.2, 0.2]), &[])[0].exp() - 0.5).abs() < 1e-12);
    }
}
