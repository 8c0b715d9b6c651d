"""Tokens per second, peak memory and quality of pretraining an encoder: `danlu train recipes/2018-bert.toml` against `transformers`, interleaved.

    python bench/bert.py --danlu target/release/danlu --home HOME [--steps 300] [--rounds 2] [--out bench/results/FILE.jsonl]

danlu runs as its users run it, and leaves its tokens and its resolved recipe in HOME, which `transformers`' BERT then follows: the same text, shape,
batch, optimizer, rates and schedule, whole words masked by the same shares, in 32-bit floats on two threads. Its rows are cut from the stream of
documents, as `run_mlm.py` cuts them; danlu's know where a document ends. Its attention is `scaled_dot_product_attention`. Both are then measured
here, by `transformers`, on the same held-out rows with the same words masked: danlu's model is loaded from its folder. danlu's seconds are those of
its steps. Every run is a process of its own, one after another. Raw rows go to --out; the summary is the median over rounds of the ratio within each.

Needs torch, transformers and numpy.
"""

import argparse
import json
import math
import pathlib
import sys
import time
import tomllib

from lenet import run, trained
from turns import compare, median, seeded, take_turns

ASKED, MASKED, REPLACED, SKIPPED, MEASURED = 0.15, 0.8, 0.1, 5, 300


def tokens_of(home):
    """The folder of the tokens that this recipe reads: those of WordPiece."""
    found = [path for path in (home / "data/wiki-leads").glob("tokens-*") if '"WordPiece"' in (path / "tokenizer.json").read_text()]
    return max(found, key=lambda path: path.stat().st_mtime)


def danlu(args):
    name, rows, memory = trained(args, "2018-bert.toml", "bert")
    steps = [row for row in rows if row["kind"] == "train"][SKIPPED:]
    args.like = name
    tokens = steps[-1]["tokens"] - steps[0]["tokens"]
    return dict(tokens_per_s=tokens / sum(row["seconds"] for row in steps[1:]), peak_mb=memory, **measured(args, "measure"))


def theirs(args, _):
    return measured(args, "train")


def measured(args, what):
    """What a process of its own finds: it trains, or measures danlu's model."""
    command = [sys.executable, __file__, "--one", what, "--home", str(args.home), "--like", args.like, "--seed", str(args.seed), "--steps", str(args.steps), "--device", args.device]
    printed, memory = run(command, OMP_NUM_THREADS="2")
    row = json.loads(printed.splitlines()[-1])
    return row if what == "measure" else dict(row, peak_mb=memory)


def child(args):
    import numpy as np
    import torch
    from torch.nn import functional as F
    from transformers import BertConfig, BertForMaskedLM

    # Not above: a program's peak memory begins with that of the one that started it, which need not hold torch.
    from nanogpt_run import read_split

    torch.set_num_threads(2)
    torch.manual_seed(args.seed)
    # Even the CPU, set as the default, makes each small operation slower.
    if args.device != "cpu":
        torch.set_default_device(args.device)
    recipe = tomllib.loads((args.home / "runs" / args.like / "recipe.toml").read_text())
    folder, tokens = args.home / "models" / f"{args.like}@1", tokens_of(args.home)
    pieces = json.loads((tokens / "tokenizer.json").read_text())
    vocabulary = pieces["model"]["vocab"]
    special = torch.tensor(sorted(token["id"] for token in pieces["added_tokens"]))
    continues = torch.zeros(len(vocabulary) + len(special), dtype=torch.bool)
    continues[[id for piece, id in vocabulary.items() if piece.startswith("##")]] = True
    mask, context = vocabulary["[MASK]"], recipe["model"]["context"]
    train, held_out = (torch.tensor(read_split(str(tokens), split)[0]) for split in ("train", "held_out"))

    def masked(rows, random):
        """Rows with words taken away, and what stood there."""
        plain = ~torch.isin(rows, special)
        starts = plain & ~continues[rows]
        word = starts.cumsum(1)
        lot = torch.rand(word.shape, generator=random)
        # A word's lot is that of its number in the row.
        chosen = lot.gather(1, word.clamp(max=context - 1))
        asked = plain & (word > 0) & (chosen < ASKED)
        fate = torch.rand(rows.shape, generator=random)
        other = torch.randint(len(vocabulary), rows.shape, generator=random)
        shown = torch.where(asked & (fate < MASKED), mask, torch.where(asked & (fate > 1 - REPLACED), other, rows))
        return shown, torch.where(asked, rows, -100)

    def bits(model):
        model.eval()
        random = torch.Generator(args.device).manual_seed(1)
        rows = held_out[: len(held_out) // context * context].view(-1, context)[:MEASURED]
        total = count = 0.0
        with torch.no_grad():
            for some in rows.split(32):
                shown, targets = masked(some, random)
                logits = model(input_ids=shown).logits
                total += F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum").item()
                count += (targets >= 0).sum().item()
        return total / count / math.log(2)

    if args.one == "measure":
        return print(json.dumps(dict(bits_per_masked_token=bits(BertForMaskedLM.from_pretrained(folder)))))
    config = BertConfig.from_pretrained(folder)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    model = BertForMaskedLM(config)
    spec, rows = recipe["optimizer"], recipe["batch"]["tokens"] // context
    groups = {}
    for name, parameter in model.named_parameters():
        embedding, matrix = "_embeddings." in name, parameter.dim() > 1
        key = (spec["embedding_rate"] if embedding else spec["rate"], 0.0 if embedding or not matrix else spec["weight_decay"])
        groups.setdefault(key, []).append(parameter)
    groups = [dict(params=params, lr=rate, weight_decay=decay) for (rate, decay), params in groups.items()]
    optimizer = torch.optim.AdamW(groups, betas=(spec["beta1"], spec["beta2"]), eps=spec["epsilon"], fused=True)
    warmup = max(spec["warmup"] * args.steps, 5)
    share = lambda step: (step + 1) / (warmup + 1) if step < warmup else 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(args.steps - warmup, 1)))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    stream, random = train[: len(train) // context * context].view(-1, context), torch.Generator(args.device).manual_seed(args.seed)
    order, at, begin = torch.randperm(len(stream)), 0, None
    for step in range(args.steps):
        if step == SKIPPED + 1:
            begin = time.perf_counter()
        if at + rows > len(order):
            order, at = torch.randperm(len(stream)), 0
        shown, targets = masked(stream[order[at : at + rows]], random)
        at += rows
        # As danlu does, the head sees only the words that are asked for.
        states = model.bert(input_ids=shown).last_hidden_state[targets >= 0]
        loss = F.cross_entropy(model.cls(states), targets[targets >= 0])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), spec["clip"])
        optimizer.step()
        schedule.step()
    seconds = time.perf_counter() - begin
    print(json.dumps(dict(tokens_per_s=rows * context * (args.steps - SKIPPED - 1) / seconds, bits_per_masked_token=bits(model))))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--danlu", default="target/release/danlu")
    parser.add_argument("--home", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="where PyTorch computes; beside another than the CPU its speed says nothing")
    parser.add_argument("--out")
    for hidden in ("--one", "--like"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return child(args)

    def described(who, rows):
        return f"{who:14} {median(rows, 'tokens_per_s'):8,.0f} tokens/s, {median(rows, 'bits_per_masked_token'):.3f} bits per masked token, peak {median(rows, 'peak_mb'):,.0f} MB"

    compare(take_turns(["danlu", "transformers"], args.rounds, seeded(args, danlu, theirs), {"steps": args.steps}, args.out), "tokens_per_s", described)


if __name__ == "__main__":
    main()
