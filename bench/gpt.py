"""Speed, peak memory and quality of pretraining a decoder and of tuning it for a task: `danlu train recipes/2018-gpt.toml`, and then
`recipes/2018-gpt-task.toml`, against `transformers`, interleaved.

    python bench/gpt.py --danlu target/release/danlu --home HOME [--steps 300] [--rounds 2] [--out bench/results/FILE.jsonl]
    python bench/gpt.py --task topics --from gpt --labelled target/release/examples/labelled --danlu … --home HOME [--steps 765]

danlu runs as its users run it, and leaves its tokens, its labelled texts and its resolved recipe in HOME, which `transformers`' GPT-2 then follows:
the same text, shape, batch, optimizer, rates and schedule, in 32-bit floats on two threads, without dropout. In pretraining its rows are cut from the
stream of documents, as `run_clm.py` cuts them; danlu's know where a document ends. In tuning both start from the model `--from`, of HOME, and see the
same texts between the same delimiters, cut at the same length and held out alike; PyTorch pads those of a batch to the longest of them, danlu lays
them end to end. Both predict the words of the texts too, as much as the recipe says. Attention is `scaled_dot_product_attention`. Both are then
measured here, by `transformers`, on the same held-out documents or texts: danlu's model is loaded from its folder. danlu's seconds are those of its
steps. Every run is a process of its own, one after another. Raw rows go to --out; the summary is the median over rounds of the ratio within each.

What PyTorch does alone needs no danlu: `--one train --like RUN [--device cuda]` follows a run that is in HOME. Needs torch, transformers and numpy.
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

# Of each task its recipe, what an update has so and so many of, what is measured, and how many updates there are where nobody says.
TASKS = {"pretrain": ("2018-gpt.toml", "tokens", "bits_per_byte", 300), "topics": ("2018-gpt-task.toml", "texts", "accuracy", 765)}
SKIPPED = 5
# Without dropout.
DRY = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)


def recipe_of(args):
    return tomllib.loads((args.home / "runs" / args.like / "recipe.toml").read_text())


def of_update(args, recipe):
    """How many tokens or texts an update has."""
    return recipe["batch"]["tokens" if args.task == "pretrain" else "examples"]


def danlu(args):
    file, unit, *_ = TASKS[args.task]
    name, rows, memory = trained(args, file, "gpt", *([f"model.from={args.start}"] if args.task == "topics" else []))
    steps = [row for row in rows if row["kind"] == "train"][SKIPPED + 1 :]
    args.like = name
    recipe = recipe_of(args)
    if args.task == "topics":
        keep_labelled(args, recipe)
    speed = of_update(args, recipe) * len(steps) / sum(row["seconds"] for row in steps)
    return {f"{unit}_per_s": speed, "peak_mb": memory, **measured(args, "measure")}


def keep_labelled(args, recipe):
    """Writes the texts with their labels, and whether they are held out, beside the run."""
    source, share = recipe["data"]["sources"][0], recipe["data"]["held_out"]
    printed, _ = run([args.labelled, str(args.home / "cache" / source / "documents.jsonl.zst"), "1", "1", "1", str(share)])
    rows = [json.loads(line) for line in printed.splitlines()[1:]]
    lines = [json.dumps({key: row[key] for key in ("text", "label", "held_out")}) + "\n" for row in rows]
    (args.home / "runs" / args.like / "labelled.jsonl").write_text("".join(lines))


def theirs(args, _):
    return measured(args, "train")


def measured(args, what):
    """What a process of its own finds: it trains, or measures danlu's model."""
    command = [sys.executable, __file__, "--task", args.task, "--one", what, "--home", str(args.home), "--like", args.like, "--seed", str(args.seed),
               "--steps", str(args.steps), "--device", args.device]
    printed, memory = run(command, OMP_NUM_THREADS="2")
    row = json.loads(printed.splitlines()[-1])
    return row if what == "measure" else dict(row, peak_mb=memory)


def child(args):
    import torch

    torch.set_num_threads(2)
    torch.manual_seed(args.seed)
    print(json.dumps((pretrain if args.task == "pretrain" else topics)(args, recipe_of(args))))


def pretrain(args, recipe):
    import torch
    # Not above: what a process starts is said to have had at least as much memory as it has itself.
    from nanogpt_run import bits_per_byte, read_split
    from torch.nn import functional as F
    from transformers import GPT2Config, GPT2LMHeadModel

    folder, context = args.home / "models" / f"{args.like}@1", recipe["model"]["context"]
    # Those that were made by this model's tokenizer.
    [tokens] = [path.parent for path in (args.home / "data" / recipe["data"]["sources"][0]).glob("tokens-*/tokenizer.json")
                if path.read_bytes() == (folder / "tokenizer.json").read_bytes()]

    class Summed(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, ids, targets):
            logits = self.model(input_ids=ids.to(args.device), use_cache=False).logits
            return F.cross_entropy(logits.flatten(0, 1), targets.to(args.device).flatten(), ignore_index=-1, reduction="sum")

    def quality(model):
        held_out, index, *_ = read_split(str(tokens), "held_out")
        return dict(bits_per_byte=bits_per_byte(Summed(model), held_out, index, context, 1 << 40))

    if args.one == "measure":
        return quality(GPT2LMHeadModel.from_pretrained(folder).to(args.device))
    model = GPT2LMHeadModel(GPT2Config.from_pretrained(folder, **DRY)).to(args.device)
    stream, rows = torch.tensor(read_split(str(tokens), "train")[0]).to(args.device), recipe["batch"]["tokens"] // context

    def losses():
        while True:
            # Every epoch is cut elsewhere, as danlu's are.
            begin = torch.randint(context, ()).item()
            count = (len(stream) - begin - 1) // context
            order = torch.randperm(count)[: count // rows * rows].to(args.device)
            ids, targets = (stream[at : at + count * context].view(-1, context) for at in (begin, begin + 1))
            for some in order.split(rows):
                logits = model(input_ids=ids[some], use_cache=False).logits
                yield F.cross_entropy(logits.flatten(0, 1), targets[some].flatten())

    return {**train(args, recipe, model, losses()), **quality(model)}


def topics(args, recipe):
    import torch
    from tokenizers import Tokenizer
    from torch.nn import functional as F
    from transformers import GPT2ForSequenceClassification

    tuned = args.home / "models" / f"{args.like}@1"
    folder = tuned if args.one == "measure" else tuned.with_name(pathlib.Path(recipe["model"]["from"]).name)
    rows = [json.loads(line) for line in (args.home / "runs" / args.like / "labelled.jsonl").read_text().splitlines()]
    names = sorted({row["label"] for row in rows})
    model = GPT2ForSequenceClassification.from_pretrained(folder, num_labels=len(names), **DRY).to(args.device)
    context, tokenizer = recipe["model"]["context"], Tokenizer.from_file(str(tuned / "tokenizer.json"))
    # It puts the delimiters around a text, and cuts it so that they fit too.
    tokenizer.enable_truncation(context)
    for row in rows:
        row["ids"] = tokenizer.encode(row["text"]).ids

    def tensors(held_out):
        """Of the texts of a side their ids, filled up, and their labels; their lengths stay with the processor, which asks for them."""
        some = [row for row in rows if row["held_out"] == held_out]
        ids = torch.tensor([row["ids"] + [0] * (context - len(row["ids"])) for row in some])
        labels = torch.tensor([names.index(row["label"]) for row in some])
        return ids.to(args.device), labels.to(args.device), torch.tensor([len(row["ids"]) for row in some])

    def read(ids, lengths):
        """What the layers make of each token, and the head of each text's last."""
        states = model.transformer(input_ids=ids[:, : lengths.max()], use_cache=False).last_hidden_state
        return states, model.score(states[torch.arange(len(lengths)), lengths - 1])

    def quality():
        model.eval()
        ids, labels, lengths = tensors(True)
        with torch.no_grad():
            parts = zip(ids.split(64), labels.split(64), lengths.split(64))
            right = sum((read(some, long)[1].argmax(1) == label).sum().item() for some, label, long in parts)
        accuracy = right / len(labels)
        around = 1.96 * math.sqrt(accuracy * (1 - accuracy) / len(labels))
        return dict(accuracy=accuracy, low=accuracy - around, high=accuracy + around, held_out=len(labels))

    if args.one == "measure":
        return quality()
    ids, labels, lengths = tensors(False)
    auxiliary, size = recipe["classify"]["auxiliary"], recipe["batch"]["examples"]

    def losses():
        while True:
            for some in torch.randperm(len(lengths))[: len(lengths) // size * size].split(size):
                there = some.to(args.device)
                texts, long = ids[there], lengths[some]
                states, logits = read(texts, long)
                # The tokens with one after them; each text counts alike.
                row, column = (torch.arange(long.max()) < long.unsqueeze(1) - 1).nonzero(as_tuple=True)
                share = (1 / (len(long) * (long[row] - 1))).to(args.device)
                row, column = row.to(args.device), column.to(args.device)
                words = F.linear(states[row, column], model.transformer.wte.weight)
                language = (F.cross_entropy(words, texts[row, column + 1], reduction="none") * share).sum()
                yield F.cross_entropy(logits, labels[there]) + auxiliary * language

    return {**train(args, recipe, model, losses()), **quality()}


def train(args, recipe, model, losses):
    """Moves the model by the gradients of the next losses, as the recipe says, and measures how fast."""
    import torch

    spec, groups = recipe["optimizer"], {}
    model.train()
    for name, parameter in model.named_parameters():
        embedding = name.endswith(("wte.weight", "wpe.weight"))
        rate = spec["embedding_rate"] if embedding else recipe["classify"]["head_rate"] if name == "score.weight" else spec["rate"]
        groups.setdefault((rate, 0.0 if embedding or parameter.dim() == 1 else spec["weight_decay"]), []).append(parameter)
    groups = [dict(params=params, lr=rate, weight_decay=decay) for (rate, decay), params in groups.items()]
    optimizer = torch.optim.AdamW(groups, betas=(spec["beta1"], spec["beta2"]), eps=spec["epsilon"], fused=True)
    warmup = round(min(max(spec["warmup"] * args.steps, 5), args.steps / 2))
    straight = spec["schedule"] == "wsd"
    start = max(round((1 - spec["decay"]) * args.steps), warmup) if straight else warmup

    def share(step):
        if step < start:
            return min((step + 1) / (warmup + 1), 1.0)
        way = (step - start) / max(args.steps - start, 1)
        return 1 - way if straight else 0.5 * (1 + math.cos(math.pi * way))

    schedule, begin = torch.optim.lr_scheduler.LambdaLR(optimizer, share), None
    for step in range(args.steps):
        if step == SKIPPED + 1:
            begin = time.perf_counter()
        loss = next(losses)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), spec["clip"])
        optimizer.step()
        schedule.step()
    seconds = time.perf_counter() - begin
    return {f"{TASKS[args.task][1]}_per_s": of_update(args, recipe) * (args.steps - SKIPPED - 1) / seconds}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", choices=list(TASKS), default="pretrain")
    parser.add_argument("--danlu", default="target/release/danlu")
    parser.add_argument("--labelled", default="target/release/examples/labelled", help="danlu-data's example, which says what is held out")
    parser.add_argument("--home", type=pathlib.Path, required=True)
    parser.add_argument("--from", dest="start", default="gpt", help="the model of HOME that topics starts from")
    parser.add_argument("--steps", type=int, help="300, and for topics 765, which are three epochs")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="where PyTorch computes; beside another than the CPU its speed says nothing")
    parser.add_argument("--out")
    for hidden in ("--one", "--like"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    args = parser.parse_args()
    _, unit, quality, usual = TASKS[args.task]
    args.steps = args.steps or usual
    if args.steps < SKIPPED + 2:
        parser.error(f"the first {SKIPPED + 1} steps are not timed; give more")
    if args.one:
        return child(args)
    rate = f"{unit}_per_s"

    def described(who, rows):
        said = f"{median(rows, quality):.4f} {quality.replace('_', ' ')}"
        if args.task == "topics":
            said += f" (95 %: {median(rows, 'low'):.4f} to {median(rows, 'high'):.4f})"
        return f"{who:14} {median(rows, rate):8,.0f} {unit}/s, {said}, peak {median(rows, 'peak_mb'):,.0f} MB"

    about = {"task": args.task, "steps": args.steps}
    compare(take_turns(["danlu", "transformers"], args.rounds, seeded(args, danlu, theirs), about, args.out), rate, described)


if __name__ == "__main__":
    main()
