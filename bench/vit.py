"""Pictures per second, accuracy and peak memory of training a Vision Transformer: `danlu train recipes/2020-vit.toml` against PyTorch, interleaved.

    python bench/vit.py --danlu target/release/danlu --data FOLDER_OF_IDX_FILES [--epochs 0.5] [--rounds 3] [--keep 0.5] [--out FILE.jsonl]

Both train the same layers on the same pictures, moved and mirrored, of which as many patches are seen, in batches of one size, by AdamW with one
rate on one schedule and the same label smoothing, in 32-bit floats on two threads, and name the same 10,000 test pictures. (The recipe's Muon is
left out, since PyTorch's is another; `--optimizer muon` runs it on danlu's side alone.) danlu runs as its users run it; the time is that of the
steps, waiting for batches included, without the measures, the checkpoint and the export. PyTorch has the whole data as a tensor in memory and
changes a batch at a time; its attention is `scaled_dot_product_attention`. danlu's last layer finishes the token of the whole alone, and so does
PyTorch's here. Every round runs each as a process of its own, one after another. Raw rows go to --out; the summary is the median over rounds of the
ratio within each round. `--epochs 16` gives the accuracies to compare; half of one is enough for speed.

Needs torch and numpy. `--who danlu torch torch-compile` chooses.
"""

import argparse
import json
import math
import pathlib
import sys
import tempfile
import time

from lenet import idx, run
from turns import compare, median, seeded, take_turns

HERE = pathlib.Path(__file__).resolve().parent
LAYERS, HIDDEN, HEADS, INNER, PATCH = 6, 64, 4, 128, 4
BATCH, RATE, BETAS, EPSILON, CLIP, DECAY, WARMUP, SHIFT, SMOOTHING = 128, 0.003, (0.9, 0.99), 1e-10, 1.0, 0.05, 0.03, 1, 0.05


def danlu(args):
    with tempfile.TemporaryDirectory() as home:
        given = [f'data.sources=["{args.data}"]', "name=bench", f"seed={args.seed}", f"budget.epochs={args.epochs}", "eval.every=1000000",
                 "checkpoint.every=1000000", f"batch.examples={BATCH}", f"batch.micro_tokens={BATCH}", f"optimizer.kind={args.optimizer}",
                 f"optimizer.rate={RATE}", f"optimizer.warmup={WARMUP}", f"optimizer.weight_decay={DECAY}", f"image.shift={SHIFT}",
                 f"image.smoothing={SMOOTHING}", f"model.layers={LAYERS}", f"model.hidden={HIDDEN}", f"model.heads={HEADS}",
                 f"model.intermediate={INNER}", f"vit.patch={PATCH}", f"vit.keep={args.keep}"]
        command = [args.danlu, "train", str(HERE.parent / "recipes/2020-vit.toml"), "--json",
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
    command = [sys.executable, __file__, "--one", way, "--data", args.data, "--epochs", str(args.epochs), "--keep", str(args.keep),
               "--seed", str(args.seed), "--device", args.device, "--danlu", args.danlu]
    printed, memory = run(command, OMP_NUM_THREADS="2")
    return dict(json.loads(printed.splitlines()[-1]), peak_mb=memory)


def torch_one(args, way):
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(2)
    torch.manual_seed(args.seed)
    # Even the CPU, set as the default, makes each small operation slower.
    if args.device != "cpu":
        torch.set_default_device(args.device)
    folder = pathlib.Path(args.data)
    pictures = lambda part: torch.tensor(idx(folder, f"{part}-images-idx3-ubyte")).float() / 255
    labels = lambda part: torch.tensor(idx(folder, f"{part}-labels-idx1-ubyte")).long()
    train, train_labels, test, test_labels = pictures("train"), labels("train"), pictures("t10k"), labels("t10k")
    mean, deviation = train.mean(), train.std()
    train, test = (train - mean) / deviation, (test - mean) / deviation
    black = float(-mean / deviation)
    side = 28 // PATCH
    patches, values = side * side, PATCH * PATCH
    kept_count = min(max(round(patches * args.keep), 1), patches)

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.after = nn.LayerNorm(HIDDEN, eps=1e-12), nn.LayerNorm(HIDDEN, eps=1e-12)
            self.qkv, self.out = nn.Linear(HIDDEN, 3 * HIDDEN), nn.Linear(HIDDEN, HIDDEN)
            self.wide, self.narrow = nn.Linear(HIDDEN, INNER), nn.Linear(INNER, HIDDEN)

        def forward(self, x, last):
            count, tokens, _ = x.shape
            q, k, v = self.qkv(self.before(x)).view(count, tokens, 3, HEADS, HIDDEN // HEADS).permute(2, 0, 3, 1, 4)
            if last:
                q, x = q[:, :, :1], x[:, :1]
            seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = x + self.out(seen)
            return x + self.narrow(F.gelu(self.wide(self.after(x))))

    class Vit(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch = nn.Linear(values, HIDDEN)
            self.whole = nn.Parameter(0.02 * torch.randn(1, 1, HIDDEN))
            self.places = nn.Parameter(positions(side, HIDDEN))
            self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
            self.norm, self.head = nn.LayerNorm(HIDDEN, eps=1e-12), nn.Linear(HIDDEN, 10)

        def forward(self, x, kept):
            count = len(x)
            x = x.view(count, side, PATCH, side, PATCH).transpose(2, 3).reshape(count, patches, values)
            places = self.places[1:].expand(count, -1, -1)
            if kept is not None:
                rows = torch.arange(count).unsqueeze(1)
                x, places = x[rows, kept], places[rows, kept]
            whole = (self.whole + self.places[:1]).expand(count, -1, -1)
            x = torch.cat([whole, self.patch(x) + places], 1)
            for i, layer in enumerate(self.layers):
                x = layer(x, i == LAYERS - 1)
            return self.head(self.norm(x[:, 0]))

    def positions(side, width):
        quarter = width // 4
        frequency = 10_000.0 ** (-torch.arange(quarter) / quarter)
        place = torch.arange(side * side)
        across, down = (at.unsqueeze(1) * frequency for at in (place % side, place // side))
        return torch.cat([torch.zeros(1, width), torch.cat([across.sin(), across.cos(), down.sin(), down.cos()], 1)])

    model = Vit()
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.02) if layer is model.head else nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    step_model = torch.compile(model) if way == "torch-compile" else model
    decayed = [p for p in model.parameters() if p.dim() == 2 and p is not model.places]
    chosen = {id(p) for p in decayed}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    groups = [dict(params=decayed, weight_decay=DECAY), dict(params=rest, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=EPSILON, fused=True)
    total = round(args.epochs * len(train) / BATCH)
    warmup = max(WARMUP * total, 5)

    def share(step):
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    rows, columns = torch.arange(28).view(1, 28, 1), torch.arange(28).view(1, 1, 28)

    def changed(batch):
        """Each moved by up to SHIFT and half of them mirrored, in one indexing of the padded batch."""
        count = len(batch)
        padded = F.pad(batch, (SHIFT,) * 4, value=black)
        down, right = torch.randint(0, 2 * SHIFT + 1, (2, count, 1, 1))
        mirrored = torch.rand(count, 1, 1) < 0.5
        across = torch.where(mirrored, 27 - columns, columns) + right
        return padded[torch.arange(count).view(-1, 1, 1), rows + down, across]

    order, at, begin, begun_at, loss = torch.randperm(len(train)), 0, None, 0, None
    for step in range(total):
        if step == 20 + 1:
            begin, begun_at = time.perf_counter(), step
        if at + BATCH > len(train):
            order, at = torch.randperm(len(train)), 0
        chosen = order[at : at + BATCH]
        at += BATCH
        kept = torch.rand(BATCH, patches).argsort(1)[:, :kept_count] if kept_count < patches else None
        loss = F.cross_entropy(step_model(changed(train[chosen]), kept), train_labels[chosen], label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
    seconds = time.perf_counter() - begin
    with torch.no_grad():
        right = sum((model(x, None).argmax(1) == y).sum().item() for x, y in zip(test.split(500), test_labels.split(500)))
    accuracy = right / len(test)
    around = 1.96 * math.sqrt(accuracy * (1 - accuracy) / len(test))
    print(json.dumps(dict(pictures_per_s=BATCH * (total - begun_at) / seconds, accuracy=accuracy, low=accuracy - around,
                          high=accuracy + around, steps=total, loss=loss.item())))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--danlu", default="target/release/danlu")
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", type=float, default=0.5)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--optimizer", choices=["adamw", "muon"], default="adamw", help="of danlu; PyTorch runs AdamW")
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
                f"peak {median(rows, 'peak_mb'):,.0f} MB")

    about = {"epochs": args.epochs, "keep": args.keep, "optimizer": args.optimizer}
    compare(take_turns(args.who, args.rounds, seeded(args, danlu, torch_run), about, args.out), "pictures_per_s", described)


if __name__ == "__main__":
    main()
