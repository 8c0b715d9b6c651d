"""Compares danlu's measures of answers with their public definitions: SQuAD's evaluate-v1.1.py, rouge_score and sacreBLEU.

    cargo build --release -p danlu-eval --example answers
    python tests/peers/answer_scores.py target/release/examples/answers

Needs rouge-score and sacrebleu. SQuAD's script is no package; its two functions are below, word for word.
"""

import collections
import json
import random
import re
import string
import subprocess
import sys

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu, corpus_chrf, sentence_chrf

WORDS = ("the a an choose Tools Options click OK. dialog \"Insert\" it's don't 1. 2) 3.5% the, cell-range A1:B2 — 在 文本 中 选择 单元格 ，打开 "
         "naïve Ärger ÉTÉ theatre another _id x² Ctrl+Shift+F11 … ' '").split(" ")


def normalize_answer(s):
    def remove_articles(text):
        return re.sub(r"\b(a|an|the)\b", " ", text)

    def white_space_fix(text):
        return " ".join(text.split())

    def remove_punc(text):
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    def lower(text):
        return text.lower()

    return white_space_fix(remove_articles(remove_punc(lower(s))))


def f1_score(prediction, ground_truth):
    prediction_tokens = normalize_answer(prediction).split()
    ground_truth_tokens = normalize_answer(ground_truth).split()
    common = collections.Counter(prediction_tokens) & collections.Counter(ground_truth_tokens)
    num_same = sum(common.values())
    if num_same == 0:
        return 0
    precision = 1.0 * num_same / len(prediction_tokens)
    recall = 1.0 * num_same / len(ground_truth_tokens)
    return (2 * precision * recall) / (precision + recall)


def main(binary):
    draw = random.Random(7)
    some = lambda: " ".join(draw.choice(WORDS) for _ in range(draw.randrange(0, 30)))
    pairs = []
    for _ in range(2000):
        expected = some()
        words = expected.split(" ")
        # Half of the answers share most of their words with what is expected.
        near = " ".join(draw.choice(WORDS) if draw.random() < 0.3 else word for word in words if draw.random() < 0.9)
        pairs.append((near if draw.random() < 0.5 else some(), expected))
    lines = "".join(json.dumps(pair) + "\n" for pair in pairs)
    ours = [json.loads(line) for line in subprocess.run([binary], input=lines, capture_output=True, text=True, check=True).stdout.splitlines()]
    answers, references = [answer for answer, _ in pairs], [[expected for _, expected in pairs]]
    of_all = {
        "corpus_bleu_13a": corpus_bleu(answers, references).score,
        "corpus_bleu_zh": corpus_bleu(answers, references, tokenize="zh").score,
        "corpus_chrf": corpus_chrf(answers, references).score,
    }
    found = ours.pop()
    failed = False
    for name, theirs in of_all.items():
        print(f"{name}: {found[name]:.6f}, sacreBLEU {theirs:.6f}")
        failed |= abs(found[name] - theirs) > 1e-6
    rouge = RougeScorer(["rougeL"], use_stemmer=False)
    theirs = [{
        "exact_match": float(normalize_answer(answer) == normalize_answer(expected)),
        "token_f1": f1_score(answer, expected),
        "rouge_l": rouge.score(expected, answer)["rougeL"].fmeasure,
        "chrf": sentence_chrf(answer, [expected]).score / 100,
    } for answer, expected in pairs]
    for name in theirs[0]:
        gaps = [abs(a[name] - b[name]) for a, b in zip(ours, theirs)]
        worst = max(range(len(pairs)), key=lambda i: gaps[i])
        print(f"{name}: {len(pairs)} pairs, largest difference {gaps[worst]:.1e}, mean {sum(b[name] for b in theirs) / len(theirs):.3f}")
        if gaps[worst] > 1e-9 or len(ours) != len(pairs):
            failed = True
            print("  ", pairs[worst], ours[worst], theirs[worst])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
