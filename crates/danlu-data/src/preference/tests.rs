use serde_json::json;

use super::*;
use crate::source::Source;

/// The record becomes these pairs: prompt's last text, chosen, rejected, margin.
#[track_caller]
fn check_pairs(record: serde_json::Value, expected: &[(&str, &str, &str, Option<f64>)]) {
    let (_, found) = parse::preference(&record).unwrap();
    let Preference::Pairs(found) = found else { panic!("{found:?} is no pair") };
    let found: Vec<_> =
        found.iter().map(|p| (p.prompt.messages.last().unwrap().text(), p.chosen.text(), p.rejected.text(), p.margin)).collect();
    assert_eq!(found, expected);
}

#[track_caller]
fn check_bad(record: serde_json::Value, part: &str) {
    let reason = parse::preference(&record).unwrap_err();
    assert!(reason.contains(part), "{record}: {reason:?} lacks {part:?}");
}

#[test]
fn pairs_in_the_forms_people_have() {
    let expected = [("q", "good", "bad", None)];
    // TRL, text and messages, with the prompt apart and inside.
    check_pairs(json!({"prompt": "q", "chosen": "good", "rejected": "bad"}), &expected);
    let message = |role, content| json!({"role": role, "content": content});
    let (question, good, bad) = (message("user", "q"), message("assistant", "good"), message("assistant", "bad"));
    check_pairs(json!({"prompt": [question], "chosen": [good], "rejected": [bad]}), &expected);
    check_pairs(json!({"chosen": [question, good], "rejected": [question, bad]}), &expected);
    // LLaMA-Factory, ShareGPT and alpaca.
    check_pairs(
        json!({
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        }),
        &expected,
    );
    check_pairs(json!({"instruction": "q", "input": "", "chosen": "good", "rejected": "bad"}), &expected);
    check_pairs(json!({"prompt": "q", "chosen": "good", "rejected": "bad", "margin": 2}), &[("q", "good", "bad", Some(2.0))]);
    check_pairs(
        json!({"prompt": "q", "chosen": "good", "rejected": "bad", "score_chosen": 8.5, "score_rejected": 6}),
        &[("q", "good", "bad", Some(2.5))],
    );
}

#[test]
fn orders_become_pairs() {
    check_pairs(
        json!({"prompt": "q", "ranking": ["a", "b", "c"]}),
        &[("q", "a", "b", None), ("q", "a", "c", None), ("q", "b", "c", None)],
    );
    check_pairs(
        json!({"prompt": "q", "answers": ["a", "b", "c"], "scores": [1, 3, 1]}),
        &[("q", "b", "a", Some(2.0)), ("q", "b", "c", Some(2.0))],
    );
    check_bad(json!({"prompt": "q", "answers": ["a", "b"], "scores": [1, 1]}), "all as good");
    check_bad(json!({"prompt": "q", "answers": ["a", "b"]}), "no `scores`");
    check_bad(json!({"prompt": "q", "ranking": ["a"]}), "2 to 64");
    check_bad(json!({"prompt": "q", "ranking": ["a", "b", "a"]}), "equal");
}

#[test]
fn judgements() {
    let check = |record: serde_json::Value, good: bool| {
        let (_, found) = parse::preference(&record).unwrap();
        let Preference::Judged(found) = found else { panic!("{found:?}") };
        assert_eq!((found.prompt.messages.last().unwrap().text(), found.answer.text(), found.good), ("q", "a", good));
    };
    let messages = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]);
    check(json!({"messages": messages, "label": true}), true);
    check(json!({"messages": messages, "kto_tag": false}), false);
    check(json!({"prompt": "q", "completion": "a", "label": 0}), false);
    check(json!({"instruction": "q", "output": "a", "kto_tag": true}), true);
    check_bad(json!({"messages": messages, "label": "yes"}), "neither true nor false");
    check_bad(json!({"messages": [messages[0]], "label": true}), "does not end with an answer");
    check_bad(json!({"prompt": "q", "completion": " ", "label": true}), "`completion` that is empty");
}

#[test]
fn what_cannot_be_used_is_said() {
    check_bad(json!({"prompt": "q", "chosen": "same", "rejected": " same\n"}), "two answers that are equal");
    check_bad(json!({"prompt": "q", "chosen": "a", "rejected": ""}), "`rejected` that is empty");
    check_bad(json!({"prompt": "q", "chosen": "a"}), "no `rejected`");
    check_bad(json!({"prompt": "", "chosen": "a", "rejected": "b"}), "empty");
    check_bad(json!({"chosen": "a", "rejected": "b"}), "no prompt");
    check_bad(json!({"prompt": "q", "chosen": "a", "rejected": "b", "margin": -1}), "better one");
    check_bad(json!({"text": "a"}), "says nothing about preference");
    check_bad(json!([1]), "no JSON object");
    let user = json!({"role": "user", "content": "a"});
    check_bad(json!({"prompt": "q", "chosen": user, "rejected": "b"}), "not the assistant's");
    let one = |text| json!([{"role": "user", "content": text}, {"role": "assistant", "content": "a"}]);
    check_bad(json!({"chosen": one("p"), "rejected": one("q")}), "differ before their last message");
}

#[test]
fn a_bad_record_is_passed_over_with_its_place_and_too_many_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pairs.jsonl");
    let good = r#"{"prompt": "q", "chosen": "a", "rejected": "b"}"#;
    let equal = r#"{"prompt": "q", "chosen": "a", "rejected": "a"}"#;
    let source = [Source::Path(path.display().to_string())];
    std::fs::write(&path, [good, equal, good].join("\n")).unwrap();
    let found = read(&source).unwrap();
    assert_eq!(pairs(&found.records).len(), 2);
    assert_eq!(judged(&found.records).iter().filter(|judged| judged.good).count(), 2);
    assert!(found.bad[0].origin.ends_with("pairs.jsonl:2") && found.bad[0].reason.contains("equal"), "{:?}", found.bad);
    std::fs::write(&path, equal).unwrap();
    let error = read(&source).unwrap_err().to_string();
    assert!(error.contains("pairs.jsonl:1") && error.contains("equal"), "{error}");
}

#[derive(Clone)]
struct Length(usize);

impl encode::Fits for Length {
    fn longest(&self) -> usize {
        self.0
    }
    fn alike(&self) -> bool {
        self.0 == 3
    }
}

#[test]
fn what_is_too_long_is_left_out_and_counted() {
    let fitted = |lengths: &[usize], most| fit(lengths, most, |&n| Ok(Length(n)));
    let found = fitted(&[5, 9, 3, 8, 2], 7).unwrap();
    assert_eq!((found.places, found.too_long, found.alike), (vec![0, 3, 4], 1, 1));
    let error = fitted(&[9, 12], 7).err().unwrap().to_string();
    assert!(error.contains("2 are longer than the 7 tokens") && error.contains("the shortest has 9"), "{error}");
}
