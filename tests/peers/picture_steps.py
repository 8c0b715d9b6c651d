"""Twenty steps of training LeNet-5, or its modern form, on Fashion-MNIST as PyTorch takes them, from the same weights on the same pictures in order.

    danlu train recipes/1998-lenet5.toml --set budget.steps=100         # or 1998-lenet5-modern.toml
    python tests/peers/picture_steps.py target/release/danlu MODEL_FOLDER FOLDER_OF_IDX_FILES

danlu goes on from the model as its users do; PyTorch takes the weights from the folder, the pictures in the order that danlu draws them in, and steps
by AdamW with the recipe's rates, in 64 bits. Losses and lengths of gradients agree within 1e-3. (In 32 bits PyTorch's own steps part from these where
the largest of a window is one of several that differ by rounding alone, and by 0.1 after twenty steps of the modern form.) Needs torch and safetensors.
"""

import gzip
import json
import math
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file
from torch.nn import functional as F

# With the recipe's epsilon a gradient that is nothing but rounding moves its weight as far as any other.
STEPS, BATCH, RATE, BETAS, EPSILON, CLIP, DECAY, SEED, BOUND = 20, 128, 0.004, (0.9, 0.99), 1e-5, 1.0, 0.02, 7, 1e-3
WHOLE = (1 << 64) - 1


def idx(folder, name, header):
    path = pathlib.Path(folder) / name
    data = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(f"{name}.gz").read_bytes())
    return torch.frombuffer(bytearray(data[header:]), dtype=torch.uint8)


def mix(*words):
    """SplitMix64's finalizer over each in turn."""
    state = 0x9E3779B97F4A7C15
    for word in words:
        z = ((state ^ word) + 0x9E3779B97F4A7C15) & WHOLE
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WHOLE
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WHOLE
        state = z ^ (z >> 31)
    return state


def shuffled(position, count, seed):
    """danlu's order: a Feistel network over the positions of an epoch."""
    key, bits, value = mix(seed, position // count, 1), ((count - 1).bit_length() + 1) // 2, position % count
    while True:
        left, right = value >> bits, value & ((1 << bits) - 1)
        for round_ in range(6):
            left, right = right, left ^ (mix(key, right, round_) & ((1 << bits) - 1))
        value = left << bits | right
        if value < count:
            return value


program, model, folder = sys.argv[1:]
modern = json.loads(pathlib.Path(model, "config.json").read_text())["form"] == "modern"
with tempfile.TemporaryDirectory() as home:
    given = [f'data.sources=["{folder}"]', "name=steps", f"seed={SEED}", f"model.from={model}", f"budget.steps={STEPS}", "image.flip=false", "image.shift=0", "image.smoothing=0.0",
             f"optimizer.rate={RATE}", "optimizer.schedule=constant", "optimizer.warmup=0.0", f"optimizer.epsilon={EPSILON}", f"optimizer.weight_decay={DECAY}", f"batch.examples={BATCH}"]
    recipe = pathlib.Path(__file__).resolve().parents[2] / f"recipes/1998-lenet5{'-modern' if modern else ''}.toml"
    command = [program, "train", str(recipe), "--json", *(part for one in given for part in ("--set", one))]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={"DANLU_HOME": home})
    lines = (pathlib.Path(home) / "runs/steps/metrics.jsonl").read_text().splitlines()
    ours = [row for row in map(json.loads, lines) if row["kind"] == "train"]

weights = {name: torch.nn.Parameter(value.double()) for name, value in load_file(f"{model}/model.safetensors").items()}
scale = json.loads(pathlib.Path(model, "preprocessor_config.json").read_text())
pictures = idx(folder, "train-images-idx3-ubyte", 16).view(-1, 1, 28, 28)
pictures = (pictures.double() / 255 - scale["image_mean"][0]) / scale["image_std"][0]
labels = idx(folder, "train-labels-idx1-ubyte", 8).long()
groups = [dict(params=[p for p in weights.values() if p.dim() > 1], weight_decay=DECAY), dict(params=[p for p in weights.values() if p.dim() == 1], weight_decay=0.0)]
optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=EPSILON)
part = lambda name: (weights[f"{name}.weight"], weights[f"{name}.bias"])


def logits(x):
    if modern:
        for i, padding in enumerate((2, 1, 1)):
            x = F.max_pool2d(F.group_norm(F.conv2d(x, *part(f"convolutions.{i}"), padding=padding), 1, *part(f"norms.{i}")).relu(), 2)
        return F.linear(F.linear(x.flatten(1), *part("hidden.0")).relu(), *part("classifier"))
    x = F.avg_pool2d(F.conv2d(x, *part("convolutions.0"), padding=2).tanh(), 2)
    x = F.avg_pool2d(F.conv2d(x, *part("convolutions.1")).tanh(), 2).flatten(1)
    return F.linear(F.linear(F.linear(x, *part("hidden.0")).tanh(), *part("hidden.1")).tanh(), *part("classifier"))


worst = 0.0
for step, row in enumerate(ours):
    chosen = torch.tensor([shuffled(step * BATCH + i, len(labels), SEED) for i in range(BATCH)])
    loss = F.cross_entropy(logits(pictures[chosen]), labels[chosen])
    optimizer.zero_grad()
    loss.backward()
    length = torch.nn.utils.clip_grad_norm_(weights.values(), CLIP)
    optimizer.step()
    apart = max(abs(loss.item() - row["loss"]), abs(length.item() - row["gradient_norm"]) / max(1.0, length.item()))
    print(f"step {step + 1:2}  loss {row['loss']:.6f} and {loss.item():.6f}  gradient {row['gradient_norm']:.5f} and {length.item():.5f}")
    worst = max(worst, apart)
print(f"{len(ours)} steps: at most {worst:.1e} apart")
assert len(ours) == STEPS and math.isfinite(worst) and worst < BOUND
