//! Reads pairs of an answer and the one expected, a JSON list a line, and writes what each measure says of them, and in the last line what
//! BLEU and chrF say of all; see `tests/peers/answer_scores.py`.

use std::io::{BufRead, Write};

use danlu_eval::answers::{Bleu, Chrf, Words, chrf, exact_match, rouge_l, token_f1};

fn main() -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let mut pairs: Vec<(String, String)> = vec![];
    for line in std::io::stdin().lock().lines() {
        let (answer, expected): (String, String) = serde_json::from_str(&line?)?;
        let scores = serde_json::json!({
            "exact_match": exact_match(&answer, &expected),
            "token_f1": token_f1(&answer, &expected),
            "rouge_l": rouge_l(&answer, &expected),
            "chrf": chrf(&answer, &expected),
        });
        writeln!(out, "{scores}")?;
        pairs.push((answer, expected));
    }
    let bleu = |words: Words| pairs.iter().map(|(answer, expected)| Bleu::of(answer, expected, words)).sum::<Bleu>().score();
    let chrf = pairs.iter().map(|(answer, expected)| Chrf::of(answer, expected)).sum::<Chrf>().score();
    let all = serde_json::json!({
        "corpus_bleu_13a": bleu(Words::Western), "corpus_bleu_zh": bleu(Words::Chinese), "corpus_chrf": chrf
    });
    writeln!(out, "{all}")?;
    Ok(())
}
