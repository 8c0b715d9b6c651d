"""Pictures per second and peak memory of training a GAN: `danlu train recipes/2015-dcgan.toml` against PyTorch, interleaved.

    python bench/dcgan.py --danlu target/release/danlu --data FOLDER_OF_IDX_FILES [--form dcgan|gan] [--steps 400] [--rounds 3] [--out FILE.jsonl]

Both train the same two networks (same layers, initial deviations, batch and noise sizes) on the same pictures by Adam with the same rates, in 32-bit
floats on two threads. danlu runs as its users run it; the time is that of the steps, waiting for batches included, without measures, sheets,
checkpoint and export. It moves both networks by one backward pass (simultaneous descent). `torch` does the very same: one forward pass of the
generator, the discriminator on real pictures, on drawn ones cut off from the generator, and through fixed weights for the generator.
`torch-alternating` is the usual loop, the discriminator's step and then the generator's through the discriminator of then, which costs one more
product per weight. A picture here is a real one with the one that is drawn beside it. Every round runs each as a process of its own, one after
another. Raw rows go to --out; the summary is the median over rounds of the ratio within each round.

With `--judge FOLDER`, that of a model of recipes/1998-lenet5.toml, what both draw is compared with test pictures by the Fréchet distance of that
network's features, 2,048 of each: danlu's as it reports it, PyTorch's as computed here. The norms of both have the statistics of 1,024 drawn.

Needs torch, numpy, and for the judge safetensors and scipy. `--who danlu torch torch-alternating torch-channels-last` chooses.
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
RECIPES = {"dcgan": "2015-dcgan.toml", "gan": "2014-gan.toml"}
# What the recipes say, which danlu is given again.
SETTINGS = {"dcgan": dict(widths=[64, 32], latent=64, rate=0.0005), "gan": dict(widths=[256, 512], latent=100, rate=0.0002)}
BATCH, BETAS, EPSILON, SKIPPED = 128, (0.5, 0.999), 1e-8, 20
SCORED, SETTLED = 2048, 1024


def danlu(args):
    settings = SETTINGS[args.form]
    with tempfile.TemporaryDirectory() as home:
        given = [f'data.sources=["{args.data}"]', "name=bench", f"seed={args.seed}", f"budget.steps={args.steps}", "eval.every=1000000",
                 f"gan.scored={SCORED if args.judge else 256}", "sample.every=0", "checkpoint.every=1000000", f"batch.examples={BATCH}", f"optimizer.rate={settings['rate']}",
                 "optimizer.schedule=constant", f"gan.widths={settings['widths']}", f"gan.latent={settings['latent']}", f"gan.judge={args.judge}"]
        command = [args.danlu, "train", str(HERE.parent / "recipes" / RECIPES[args.form]), "--json",
                   *(part for one in given for part in ("--set", one))]
        _, memory = run(command, DANLU_HOME=home)
        rows = [json.loads(line) for line in (pathlib.Path(home) / "runs/bench/metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "train"]
    # The first steps make buffers and wake threads.
    first, last = steps[SKIPPED], steps[-1]
    pictures = BATCH * (last["step"] - first["step"])
    return dict(pictures_per_s=pictures / (last["elapsed"] - first["elapsed"]), steps=last["step"],
                discriminator_loss=last["discriminator_loss"], generator_loss=last["generator_loss"], peak_mb=memory,
                **({"frechet": next(row for row in rows if row["kind"] == "final")["frechet_distance"]} if args.judge else {}))


def torch_run(args, way):
    command = [sys.executable, __file__, "--one", way, "--data", args.data, "--form", args.form, "--steps", str(args.steps),
               "--seed", str(args.seed), "--device", args.device, "--danlu", args.danlu, "--judge", args.judge]
    printed, memory = run(command, OMP_NUM_THREADS="2")
    return dict(json.loads(printed.splitlines()[-1]), peak_mb=memory)


def networks(form):
    from torch import nn

    widths, latent = SETTINGS[form]["widths"], SETTINGS[form]["latent"]
    if form == "gan":
        sizes = [latent, *widths, 784]
        generator, judge = [], [nn.Flatten()]
        for read, give in zip(sizes, sizes[1:]):
            generator += [nn.Linear(read, give), nn.Tanh() if give == 784 else nn.ReLU()]
        sizes = [784, *reversed(widths), 1]
        for i, (read, give) in enumerate(zip(sizes, sizes[1:])):
            judge += [nn.Linear(read, give)] + ([nn.LeakyReLU(0.2)] if i + 2 < len(sizes) else [])
        generator.append(nn.Unflatten(1, (1, 28, 28)))
        for layers in (generator, judge):
            linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
            for layer in linear:
                bound = math.sqrt((3.0 if layer is linear[-1] else 6.0) / layer.in_features)
                nn.init.uniform_(layer.weight, -bound, bound)
                nn.init.zeros_(layer.bias)
    else:
        large, small = widths
        generator = [nn.Linear(latent, large * 49), nn.Unflatten(1, (large, 7, 7)), nn.BatchNorm2d(large), nn.ReLU(),
                     nn.ConvTranspose2d(large, small, 4, 2, 1), nn.BatchNorm2d(small), nn.ReLU(),
                     nn.ConvTranspose2d(small, 1, 4, 2, 1), nn.Tanh()]
        judge = [nn.Conv2d(1, small, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(small, large, 4, 2, 1), nn.BatchNorm2d(large),
                 nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(large * 49, 1)]
        for layer in generator + judge:
            if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(layer.weight, 0.0, 0.02)
                nn.init.zeros_(layer.bias)
    return nn.Sequential(*generator), nn.Sequential(*judge)


def torch_one(args, way):
    import torch
    from torch.func import functional_call
    from torch.nn import functional as F

    torch.set_num_threads(2)
    torch.manual_seed(args.seed)
    # Even the CPU, set as the default, makes each small operation slower.
    if args.device != "cpu":
        torch.set_default_device(args.device)
    settings = SETTINGS[args.form]
    train = torch.tensor(idx(pathlib.Path(args.data), "train-images-idx3-ubyte")).unsqueeze(1).float() / 127.5 - 1.0
    generator, judge = networks(args.form)
    if way == "torch-channels-last":
        generator, judge = (model.to(memory_format=torch.channels_last) for model in (generator, judge))
        train = train.contiguous(memory_format=torch.channels_last)
    adam = lambda model: torch.optim.Adam(model.parameters(), lr=settings["rate"], betas=BETAS, eps=EPSILON, fused=True)
    of_generator, of_judge = adam(generator), adam(judge)
    # Both players' losses on scores, as binary cross-entropy has them.
    judging = lambda real, drawn: F.softplus(-real).mean() + F.softplus(drawn).mean()
    drawing = lambda drawn: F.softplus(-drawn).mean()

    order, at, begin = torch.randperm(len(train)), 0, None
    for step in range(args.steps):
        if step == SKIPPED + 1:
            begin = time.perf_counter()
        if at + BATCH > len(train):
            order, at = torch.randperm(len(train)), 0
        real = train[order[at : at + BATCH]]
        at += BATCH
        drawn = generator(torch.randn(BATCH, settings["latent"]))
        if way == "torch-alternating":
            loss = judging(judge(real), judge(drawn.detach()))
            of_judge.zero_grad()
            loss.backward()
            of_judge.step()
            judge.requires_grad_(False)
            own = drawing(judge(drawn))
            judge.requires_grad_(True)
            of_generator.zero_grad()
            own.backward()
            of_generator.step()
        else:
            fixed = {name: value.detach() for name, value in judge.named_parameters()}
            loss, own = judging(judge(real), judge(drawn.detach())), drawing(functional_call(judge, fixed, (drawn,)))
            of_judge.zero_grad()
            of_generator.zero_grad()
            (loss + own).backward()
            of_judge.step()
            of_generator.step()
        shown = loss.item(), own.item()
    seconds = time.perf_counter() - begin
    scores = dict(frechet=frechet_distance(args, generator)) if args.judge else {}
    print(json.dumps(dict(pictures_per_s=BATCH * (args.steps - SKIPPED - 1) / seconds, steps=args.steps, discriminator_loss=shown[0],
                          generator_loss=shown[1], **scores)))


def frechet_distance(args, generator):
    """Between what `generator` draws and test pictures, of the features of LeNet-5's last hidden layer."""
    import numpy
    import torch
    from safetensors.torch import load_file
    from scipy.linalg import sqrtm
    from torch import nn
    from torch.nn import functional as F

    weights = load_file(f"{args.judge}/model.safetensors", device=args.device)
    scale = json.loads(pathlib.Path(args.judge, "preprocessor_config.json").read_text())
    part = lambda name: (weights[f"{name}.weight"], weights[f"{name}.bias"])

    def features(pixels):
        x = (pixels.float() / 255 - scale["image_mean"][0]) / scale["image_std"][0]
        x = F.avg_pool2d(F.conv2d(x, *part("convolutions.0"), padding=2).tanh(), 2)
        x = F.avg_pool2d(F.conv2d(x, *part("convolutions.1")).tanh(), 2).flatten(1)
        return F.linear(F.linear(x, *part("hidden.0")).tanh(), *part("hidden.1")).tanh().double().cpu().numpy()

    with torch.no_grad():
        latent = SETTINGS[args.form]["latent"]
        for layer in generator:
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 1.0
        generator(torch.randn(SETTLED, latent))
        generator.eval()
        drawn = torch.cat([generator(torch.randn(256, latent)) for _ in range(SCORED // 256)])
        test = torch.tensor(idx(pathlib.Path(args.data), "t10k-images-idx3-ubyte")).unsqueeze(1)
        real = test[torch.arange(SCORED) * len(test) // SCORED]
        real, drawn = features(real), features(((drawn + 1) * 127.5).round().clamp(0, 255))
    apart = ((real.mean(0) - drawn.mean(0)) ** 2).sum()
    one, two = numpy.cov(real, rowvar=False), numpy.cov(drawn, rowvar=False)
    return float(apart + numpy.trace(one + two - 2 * sqrtm(one @ two).real))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--danlu", default="target/release/danlu")
    parser.add_argument("--data", required=True)
    parser.add_argument("--form", choices=list(RECIPES), default="dcgan")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--judge", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--who", nargs="*", default=["danlu", "torch", "torch-alternating"])
    parser.add_argument("--device", default="cpu", help="where PyTorch trains; beside another than the CPU its speed says nothing")
    parser.add_argument("--out")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.steps < 2 * SKIPPED:
        parser.error(f"--steps: the first {SKIPPED} are not counted; give at least {2 * SKIPPED}")
    if args.one:
        return torch_one(args, args.one)

    def described(who, rows):
        return (f"{who:20} {median(rows, 'pictures_per_s'):8,.0f} pictures/s, losses {median(rows, 'discriminator_loss'):.3f} and "
                f"{median(rows, 'generator_loss'):.3f}, peak {median(rows, 'peak_mb'):6,.0f} MB"
                + (f", Fréchet distance {median(rows, 'frechet'):.2f}" if args.judge else ""))

    compare(take_turns(args.who, args.rounds, seeded(args, danlu, torch_run), {"form": args.form, "steps": args.steps}, args.out), "pictures_per_s", described)


if __name__ == "__main__":
    main()
