//! Reads pairs of an answer and the one expected, a JSON list a line, and writes what each measure says of them; see
//! `tests/peers/answer_scores.py`.

use std::io::{BufRead, Write};

use danlu_eval::answers::{chrf, exact_match, rouge_l, token_f1};

fn main() -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let (answer, expected): (String, String) = serde_json::from_str(&line?)?;
        let scores = serde_json::json!({
            "exact_match": exact_match(&answer, &expected),
            "token_f1": token_f1(&answer, &expected),
            "rouge_l": rouge_l(&answer, &expected),
            "chrf": chrf(&answer, &expected),
        });
        writeln!(out, "{scores}")?;
    }
    Ok(())
}
