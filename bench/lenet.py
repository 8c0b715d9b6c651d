"""Pictures per second, accuracy and peak memory of training LeNet: `danlu train recipes/1998-lenet5.toml` against PyTorch, interleaved.

    python bench/lenet.py --danlu target/release/danlu --data FOLDER_OF_IDX_FILES [--form 1998|modern] [--epochs 2] [--rounds 3] [--out FILE.jsonl]

Both train the same layers on the same pictures, changed the same way (moved and mirrored), in batches of one size by AdamW with the same rates
on the same schedule, in 32-bit floats on two threads, and name the same 10,000 test pictures. danlu runs as its users run it; the time is that
of the steps, waiting for batches included, without the measures, the checkpoint and the export. PyTorch has the whole data as a tensor in
memory and changes a batch at a time, which is the fastest way that is ordinary. Every round runs each as a process of its own, one after
another. Raw rows go to --out; the summary is the median over rounds of the ratio within each round. `--epochs` of the recipe (40 and 12) gives the
accuracies to compare; two are enough for speed.

Needs torch and numpy. `--who danlu torch torch-channels-last torch-compile` chooses.
"""

import argparse
import gzip
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from turns import compare, median, seeded, take_turns

HERE = pathlib.Path(__file__).resolve().parent
RECIPES = {"1998": "1998-lenet5.toml", "modern": "1998-lenet5-modern.toml"}
# What the recipes say, which danlu is given again.
SETTINGS = {
    "1998": dict(channels=[6, 16], hidden=[120, 84], rate=0.004, warmup=0.02, weight_decay=0.02, shift=1, smoothing=0.0),
    "modern": dict(channels=[24, 48, 96], hidden=[128], rate=0.003, warmup=0.05, weight_decay=0.05, shift=1, smoothing=0.05),
}
BATCH, BETAS, EPSILON, CLIP = 128, (0.9, 0.99), 1e-10, 1.0


def run(command, **environment):
    """What it printed, and the most memory it had, in MB."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{printed}")
    return printed, usage.ru_maxrss / 1024


def trained(args, recipe, task, *given):
    """The name, the log and the peak memory in MB of a recipe's run in danlu's home, on two threads, of which nothing but the steps is of interest."""
    name = f"bench-{task}-{time.time_ns()}"
    given = [f"name={name}", f"seed={args.seed}", f"budget.steps={args.steps}", "eval.every=1000000", "sample.every=0", "checkpoint.every=1000000", *given]
    command = [args.danlu, "--threads", "2", "train", str(HERE.parent / "recipes" / recipe), "--run", name, "--json",
               *(part for one in given for part in ("--set", one))]
    _, memory = run(command, DANLU_HOME=str(args.home))
    rows = [json.loads(line) for line in (args.home / "runs" / name / "metrics.jsonl").read_text().splitlines()]
    return name, rows, memory


def danlu(args):
    settings = SETTINGS[args.form]
    with tempfile.TemporaryDirectory() as home:
        given = [f'data.sources=["{args.data}"]', "name=bench", f"seed={args.seed}", f"budget.epochs={args.epochs}", "eval.every=1000000",
                 "checkpoint.every=1000000", f"batch.examples={BATCH}", f"batch.micro_tokens={BATCH}", f"optimizer.rate={settings['rate']}",
                 f"optimizer.warmup={settings['warmup']}", f"optimizer.weight_decay={settings['weight_decay']}",
                 f"image.shift={settings['shift']}", f"image.smoothing={settings['smoothing']}",
                 f"lenet.channels={settings['channels']}", f"lenet.hidden={settings['hidden']}"]
        command = [args.danlu, "train", str(HERE.parent / "recipes" / RECIPES[args.form]), "--json",
                   *(part for one in given for part in ("--set", one))]
        _, memory = run(command, DANLU_HOME=home)
        rows = [json.loads(line) for line in (pathlib.Path(home) / "runs/bench/metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "train"]
    final = next(row for row in rows if row["kind"] == "final")
    # The first steps make buffers and wake threads.
    first, last = steps[20], steps[-1]
    pictures = BATCH * (last["step"] - first["step"])
    return dict(pictures_per_s=pictures / (last["elapsed"] - first["elapsed"]), accuracy=final["accuracy"], low=final["low"],
                high=final["high"], steps=last["step"], loss=last["loss"], peak_mb=memory)


def torch_run(args, way):
    command = [sys.executable, __file__, "--one", way, "--data", args.data, "--form", args.form, "--epochs", str(args.epochs),
               "--seed", str(args.seed), "--device", args.device, "--danlu", args.danlu]
    printed, memory = run(command, OMP_NUM_THREADS="2")
    return dict(json.loads(printed.splitlines()[-1]), peak_mb=memory)


def idx(folder, name):
    import numpy

    found = [path for path in (folder / name, folder / (name + ".gz")) if path.exists()]
    with (gzip.open if found[0].suffix == ".gz" else open)(found[0], "rb") as file:
        data = file.read()
    dimensions = data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions)]
    return numpy.frombuffer(data, numpy.uint8, offset=4 + 4 * dimensions).reshape(shape)


def torch_one(args, way):
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(2)
    torch.manual_seed(args.seed)
    # Even the CPU, set as the default, makes each small operation slower.
    if args.device != "cpu":
        torch.set_default_device(args.device)
    settings, folder = SETTINGS[args.form], pathlib.Path(args.data)
    pictures = lambda part: torch.tensor(idx(folder, f"{part}-images-idx3-ubyte")).unsqueeze(1).float() / 255
    labels = lambda part: torch.tensor(idx(folder, f"{part}-labels-idx1-ubyte")).long()
    train, train_labels, test, test_labels = pictures("train"), labels("train"), pictures("t10k"), labels("t10k")
    mean, deviation = train.mean(), train.std()
    train, test = (train - mean) / deviation, (test - mean) / deviation
    black = float(-mean / deviation)

    layers, before, side = [], 1, 28
    for stage, channels in enumerate(settings["channels"]):
        if args.form == "1998":
            padding = 2 if stage == 0 else 0
            layers += [nn.Conv2d(before, channels, 5, padding=padding), nn.Tanh(), nn.AvgPool2d(2)]
            side = (side + 2 * padding - 4) // 2
        else:
            kernel = 5 if stage == 0 else 3
            layers += [nn.Conv2d(before, channels, kernel, padding=kernel // 2), nn.GroupNorm(1, channels), nn.ReLU(), nn.MaxPool2d(2)]
            side //= 2
        before = channels
    layers.append(nn.Flatten())
    width = before * side * side
    for hidden in settings["hidden"]:
        layers += [nn.Linear(width, hidden), nn.Tanh() if args.form == "1998" else nn.ReLU()]
        width = hidden
    layers.append(nn.Linear(width, 10))
    for layer in layers:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            gain = 3.0 if args.form == "1998" or layer is layers[-1] else 6.0
            bound = math.sqrt(gain / layer.weight[0].numel())
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)
    model = nn.Sequential(*layers)
    if way == "torch-channels-last":
        model = model.to(memory_format=torch.channels_last)
    step_model = torch.compile(model) if way == "torch-compile" else model

    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    groups = [dict(params=decayed, weight_decay=settings["weight_decay"]), dict(params=rest, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=settings["rate"], betas=BETAS, eps=EPSILON, fused=True)
    total = round(args.epochs * len(train) / BATCH)
    warmup = max(settings["warmup"] * total, 5)

    def share(step):
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    shift = settings["shift"]
    rows, columns = torch.arange(28).view(1, 28, 1), torch.arange(28).view(1, 1, 28)

    def changed(batch):
        """Each moved by up to `shift` and half of them mirrored, in one indexing of the padded batch."""
        count = len(batch)
        padded = F.pad(batch, (shift,) * 4, value=black)[:, 0]
        down, right = torch.randint(0, 2 * shift + 1, (2, count, 1, 1))
        mirrored = torch.rand(count, 1, 1) < 0.5
        across = torch.where(mirrored, 27 - columns, columns) + right
        return padded[torch.arange(count).view(-1, 1, 1), rows + down, across].unsqueeze(1)

    order, at, begin, begun_at, loss = torch.randperm(len(train)), 0, None, 0, None
    for step in range(total):
        if step == 20 + 1:
            begin, begun_at = time.perf_counter(), step
        if at + BATCH > len(train):
            order, at = torch.randperm(len(train)), 0
        chosen = order[at : at + BATCH]
        at += BATCH
        x = changed(train[chosen])
        if way == "torch-channels-last":
            x = x.contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(step_model(x), train_labels[chosen], label_smoothing=settings["smoothing"])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
    seconds = time.perf_counter() - begin
    with torch.no_grad():
        right = sum((model(x).argmax(1) == y).sum().item() for x, y in zip(test.split(500), test_labels.split(500)))
    accuracy = right / len(test)
    around = 1.96 * math.sqrt(accuracy * (1 - accuracy) / len(test))
    print(json.dumps(dict(pictures_per_s=BATCH * (total - begun_at) / seconds, accuracy=accuracy, low=accuracy - around,
                          high=accuracy + around, steps=total, loss=loss.item())))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--danlu", default="target/release/danlu")
    parser.add_argument("--data", required=True)
    parser.add_argument("--form", choices=list(RECIPES), default="1998")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--who", nargs="*", default=["danlu", "torch"])
    parser.add_argument("--device", default="cpu", help="where PyTorch trains; beside another than the CPU its speed says nothing")
    parser.add_argument("--out")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return torch_one(args, args.one)

    def described(who, rows):
        return (f"{who:20} {median(rows, 'pictures_per_s'):8,.0f} pictures/s, accuracy {median(rows, 'accuracy'):.4f}, "
                f"peak {median(rows, 'peak_mb'):6,.0f} MB")

    compare(take_turns(args.who, args.rounds, seeded(args, danlu, torch_run), {"form": args.form, "epochs": args.epochs}, args.out), "pictures_per_s", described)


if __name__ == "__main__":
    main()
