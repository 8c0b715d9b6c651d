"""Compares danlu's log-likelihoods of answers in context with those of transformers.

    danlu models pull smollm2
    python tests/peers/few_shot.py target/release/danlu ~/.danlu/models/smollm2@1 recipes/questions/2020-gpt3.toml

danlu asks the file's tasks and writes every question with the log-likelihoods of its answers. Here some of them, evenly taken, are put through
transformers one answer at a time, without any cache: the sum over the answer's tokens of the log-probability that the whole text's forward
pass gives them, and whether each is the likeliest. The bound is 1e-3 nats.

danlu reads the floats of model.safetensors for this: a folder that also has a model.gguf is read without it, since products in blocks of a few
bits are other numbers. What is the likeliest is compared where the first and the second are further apart than the bound.

Needs torch, transformers and safetensors.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BOUND = 1e-3


def asked(program, folder, tasks):
    """What danlu asked, from a folder without blocks."""
    with tempfile.TemporaryDirectory() as room:
        plain, out = pathlib.Path(room, "model"), pathlib.Path(room, "questions.jsonl")
        plain.mkdir()
        for path in folder.iterdir():
            if path.suffix != ".gguf":
                plain.joinpath(path.name).symlink_to(path.resolve())
        done = subprocess.run([str(program), "eval", str(plain), "--few-shot", str(tasks), "--questions", str(out)])
        if done.returncode:
            sys.exit(done.returncode)
        return [json.loads(line) for line in open(out, encoding="utf8")]


def likelihood(model, prompt, answer):
    ids = torch.tensor([prompt + answer])
    with torch.no_grad():
        logits = model(ids).logits[0, len(prompt) - 1 : -1].double()
    found = torch.log_softmax(logits, -1)
    log_prob = found.gather(1, torch.tensor(answer)[:, None]).sum().item()
    greedy = bool((logits.argmax(-1) == torch.tensor(answer)).all())
    two = logits.topk(2, -1).values
    return log_prob, greedy, (two[:, 0] - two[:, 1]).min().item() > BOUND


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("tasks", type=pathlib.Path)
    parser.add_argument("--questions", type=int, default=60, help="how many are compared")
    arguments = parser.parse_args()
    rows = asked(arguments.program, arguments.folder, arguments.tasks)
    tokenizer = AutoTokenizer.from_pretrained(arguments.folder)
    model = AutoModelForCausalLM.from_pretrained(arguments.folder).float().eval()
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    worst, compared, wrong = 0.0, 0, []
    for row in rows[:: max(1, len(rows) // arguments.questions)]:
        prompt = row["begin"] + encode(row["prompt"])
        for answer, log_prob, greedy in zip(row["answers"], row["log_probs"], row["greedy"]):
            expected, likeliest, sure = likelihood(model, prompt, encode(answer))
            worst, compared = max(worst, abs(expected - log_prob)), compared + 1
            if sure and likeliest != greedy:
                wrong.append((row["task"], row["shots"], answer))
    print(f"{compared} answers: the largest difference of log-likelihoods is {worst:.2e} nats, bound {BOUND}; {len(wrong)} greedy ones differ {wrong[:3]}")
    sys.exit(worst > BOUND or bool(wrong))


if __name__ == "__main__":
    main()
