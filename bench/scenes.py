"""Seeing and recognizing: `danlu train recipes/2020-vit-detect.toml`, `-segment`, `-pose` and `-faces` against PyTorch, on the same pictures.

    cargo build --release --workspace --examples --bins
    python bench/scenes.py --task detect --danlu target/release/danlu --home HOME [--rounds 2] [--optimizer adamw] [--out FILE.jsonl]

HOME has the catalogue's stamps, and for `faces` its emoji, as danlu leaves them there. Both sides train the same layers with the same losses on the same
pictures in the same order, which danlu's example `pictures` writes for PyTorch, in as many batches of one size, in 32-bit floats on two threads; PyTorch by AdamW at --rate or by its Muon (`torch.optim.Muon` for the matrices of the layers, AdamW for the rest) at the recipe's rates. Both are
asked the same held-out pictures: danlu measures itself, and PyTorch's guesses are measured by pycocotools (average precision of boxes), scikit-learn
(area under the ROC curve) and the definitions of mean IoU and PCK, with 95 % intervals by resampling pictures where that is cheap. Every run is a
process of its own, one after another. danlu's seconds are those of its steps. Raw rows go to --out; the summary is the median over rounds of the
ratio within each round.

Needs torch and numpy, for `detect` pycocotools, for `faces` scikit-learn. `--who torch --pictures FOLDER` trains PyTorch alone on what the example
wrote, and `--device cuda` does it on a graphics card, where its speed says nothing.
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time
import tomllib

from lenet import run, trained
from turns import compare, median, seeded, take_turns

HERE = pathlib.Path(__file__).resolve().parent
MEASURES = dict(detect="average_precision", segment="mean_iou", pose="pck", faces="roc_area")
BETAS, EPSILON, CLIP, SKIPPED = (0.9, 0.99), 1e-10, 1.0, 20
# As danlu's objectives have them.
NEAR, ALPHA, FARTHEST, SURE, LEAST, SAME, MOST = 1.5, 0.25, 8.0, 0.01, 0.05, 0.6, 100


def recipe_of(task):
    return HERE.parent / f"recipes/2020-vit-{task}.toml"


def danlu(args):
    _, rows, memory = trained(args, recipe_of(args.task).name, args.task)
    steps = [row for row in rows if row["kind"] == "train"]
    final = next(row for row in rows if row["kind"] == "final")
    first, last = steps[min(SKIPPED, len(steps) - 2)], steps[-1]
    rate = (last["tokens"] - first["tokens"]) / (last["elapsed"] - first["elapsed"])
    measure = MEASURES[args.task]
    others = {key: final[key] for key in ("at_50", "at_50_of_any_class", "pck_at_10", "pixel_accuracy") if key in final}
    return dict(pictures_per_s=rate, peak_mb=memory, **{measure: final[measure]}, low=final["low"], high=final["high"], **others)


def theirs(args, _):
    command = [sys.executable, __file__, "--one", "torch", "--task", args.task, "--pictures", str(args.pictures), "--seed", str(args.seed),
               "--steps", str(args.steps), "--rate", str(args.rate), "--optimizer", args.optimizer, "--device", args.device]
    printed, memory = run(command, OMP_NUM_THREADS="2")
    return dict(json.loads(printed.splitlines()[-1]), peak_mb=memory)


def pictures(folder, name, about):
    import numpy as np

    return np.memmap(folder / f"{name}.pixels", dtype=np.uint8, mode="r").reshape(-1, *about["shape"])


def lines(folder, name):
    return [json.loads(line) for line in open(folder / f"{name}.jsonl", encoding="utf8")]


def child(args):
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(2)
    torch.manual_seed(args.seed)
    # Even the CPU, set as the default, makes each small operation slower.
    if args.device != "cpu":
        torch.set_default_device(args.device)
    recipe, folder = tomllib.loads(recipe_of(args.task).read_text()), pathlib.Path(args.pictures)
    about = json.loads((folder / "about.json").read_text())
    learned, asked = (pictures(folder, name, about) for name in ("learned", "asked"))
    channels, height, width = about["shape"]
    model_spec, patch, batch = recipe["model"], recipe["vit"]["patch"], recipe["batch"]["examples"]
    hidden, heads, inner, depth = (model_spec[key] for key in ("hidden", "heads", "intermediate", "layers"))
    rows, columns = height // patch, width // patch
    patches, values = rows * columns, channels * patch * patch
    stride = dict(detect=patch // 2, pose=patch // 2, segment=1, faces=patch)[args.task]
    fine = patch // stride
    across, down = columns * fine, rows * fine
    classes = len(about.get("classes", []))
    outputs = dict(detect=classes + 5, segment=classes + 1, pose=4, faces=0)[args.task]
    some = torch.tensor(asked[:256]).double()
    mean, deviation = some.mean((0, 2, 3)).float().view(1, 3, 1, 1), some.std((0, 2, 3), correction=0).float().view(1, 3, 1, 1)
    scaled = lambda pixels: (torch.tensor(np.ascontiguousarray(pixels)).float() - mean) / deviation

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.after = nn.LayerNorm(hidden, eps=1e-12), nn.LayerNorm(hidden, eps=1e-12)
            # Apart, as danlu's and `transformers`' are: Muon and the initial weights are of each.
            self.query, self.key, self.value, self.out = (nn.Linear(hidden, hidden) for _ in range(4))
            self.wide, self.narrow = nn.Linear(hidden, inner), nn.Linear(inner, hidden)

        def forward(self, x):
            y = self.before(x)
            q, k, v = (part(y).unflatten(2, (heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
            x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            return x + self.narrow(F.gelu(self.wide(self.after(x))))

    class Vit(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch = nn.Linear(values, hidden)
            self.whole = nn.Parameter(0.02 * torch.randn(1, 1, hidden))
            self.places = nn.Parameter(positions())
            self.layers = nn.ModuleList(Layer() for _ in range(depth))
            self.norm = nn.LayerNorm(hidden, eps=1e-12)
            if args.task == "faces":
                size = recipe["embed"]["size"]
                self.classifier = nn.Linear(hidden, size)
                self.centers = nn.Parameter(torch.randn(about["identities"], size) / math.sqrt(size))
            else:
                self.dense, self.classifier = nn.Linear(hidden, hidden), nn.Linear(hidden, outputs * fine * fine)

        def forward(self, x, kept=None):
            count = len(x)
            x = x.view(count, channels, rows, patch, columns, patch).permute(0, 2, 4, 1, 3, 5).reshape(count, patches, values)
            places = self.places[1:].expand(count, -1, -1)
            if kept is not None:
                one = torch.arange(count).unsqueeze(1)
                x, places = x[one, kept], places[one, kept]
            x = torch.cat([(self.whole + self.places[:1]).expand(count, -1, -1), self.patch(x) + places], 1)
            for layer in self.layers:
                x = layer(x)
            x = self.norm(x)
            if args.task == "faces":
                return F.normalize(self.classifier(x[:, 0]), dim=1)
            said = self.classifier(F.gelu(self.dense(x[:, 1:])))
            return said.view(count, rows, columns, fine, fine, outputs).permute(0, 1, 3, 2, 4, 5).reshape(count, down * across, outputs)

    def positions():
        quarter = hidden // 4
        frequency = 10_000.0 ** (-torch.arange(quarter) / quarter)
        place = torch.arange(patches)
        right, below = (at.unsqueeze(1) * frequency for at in (place % columns, place // columns))
        return torch.cat([torch.zeros(1, hidden), torch.cat([right.sin(), right.cos(), below.sin(), below.cos()], 1)])

    model = Vit()
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            dense_head = layer is model.classifier and args.task != "faces"
            nn.init.normal_(layer.weight, 0.0, 0.02) if dense_head else nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    if args.task == "detect":
        model.classifier.bias.data.view(-1, outputs)[:, :classes] = math.log(SURE / (1 - SURE))
    spec = recipe["optimizer"]
    matrices = [p for p in model.layers.parameters() if p.dim() == 2] if args.optimizer == "muon" else []
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    decayed = [p for p in others if p.dim() == 2 and p is not model.places]
    kept_whole = [p for p in others if p.dim() != 2 or p is model.places]
    groups = [dict(params=decayed, weight_decay=spec["weight_decay"]), dict(params=kept_whole, weight_decay=0.0)]
    optimizers = [torch.optim.AdamW(groups, lr=args.rate, betas=BETAS, eps=EPSILON, fused=True)]
    if matrices:
        optimizers.append(torch.optim.Muon(matrices, lr=spec["muon_rate"], weight_decay=spec["weight_decay"], adjust_lr_fn="match_rms_adamw"))
    warmup = max(spec["warmup"] * args.steps, 5)

    def share(step):
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(args.steps - warmup, 1)))

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, share) for optimizer in optimizers]
    cell = torch.arange(down * across)
    middle = torch.stack([(cell % across + 0.5) * stride, (cell // across + 0.5) * stride])
    truth = truths(args.task, folder, learned.shape[0], height * width)
    things = torch.tensor(truth) if isinstance(truth, np.ndarray) and args.task != "segment" else None

    def detect_loss(said, things):
        """Of the things of each picture, `[pictures, things, class and box]` with class -1 for none, each cell near a middle learns the smallest."""
        kind, (left, top, wide, high) = things[..., 0], things[..., 1:].unbind(-1)
        x, y = middle
        from_left, from_top = x - left.unsqueeze(-1), y - top.unsqueeze(-1)
        to_right, to_end = wide.unsqueeze(-1) - from_left, high.unsqueeze(-1) - from_top
        sides = torch.stack([from_left, from_top, to_right, to_end], -1)
        near = ((from_left - to_right).abs() <= 2 * NEAR * stride) & ((from_top - to_end).abs() <= 2 * NEAR * stride)
        has = (sides > 0).all(-1) & near & (kind >= 0).unsqueeze(-1)
        area = torch.where(has, (wide * high).unsqueeze(-1), torch.inf)
        smallest, thing = area.min(1)
        taken = smallest.isfinite()
        targets = taken.sum().clamp(min=1)
        kind = torch.where(taken, kind.long().gather(1, thing), classes)
        one_hot = F.one_hot(kind, classes + 1)[..., :classes].float()
        logits = said[..., :classes]
        p = logits.sigmoid()
        focal = ALPHA * one_hot * (1 - p) ** 2 * F.logsigmoid(logits) + (1 - ALPHA) * (1 - one_hot) * p**2 * F.logsigmoid(-logits)
        focal = -focal.sum() / targets
        true = sides.gather(1, thing[:, None, :, None].expand(-1, 1, -1, 4))[:, 0][taken] / stride
        guess = said[..., classes : classes + 4][taken].clamp(-FARTHEST, FARTHEST).exp()
        size = lambda s: (s[:, 0] + s[:, 2]) * (s[:, 1] + s[:, 3])
        both, hull = size(torch.minimum(true, guess)), size(torch.maximum(true, guess))
        either = size(true) + size(guess) - both
        ratio = lambda a, b: torch.minimum(a, b) / torch.maximum(a, b)
        nearness = (ratio(true[:, 0], true[:, 2]) * ratio(true[:, 1], true[:, 3])).sqrt()
        boxes = (2 - both / either - either / hull).mean()
        return focal + boxes + F.binary_cross_entropy_with_logits(said[..., classes + 4][taken], nearness)

    def loss_of(at):
        x = scaled(learned[at : at + batch])
        if args.task == "faces":
            embed, count = recipe["embed"], len(x)
            keep = recipe["vit"].get("keep", 1.0)
            kept = torch.rand(count, patches).argsort(1)[:, : max(round(patches * keep), 1)] if keep < 1 else None
            cosines = model(x, kept) @ F.normalize(model.centers, dim=1).T
            label = things[at : at + batch]
            own = cosines.gather(1, label.unsqueeze(1))
            margin = embed["margin"]
            turned = own * math.cos(margin) - (1 - own**2).clamp(min=1e-6).sqrt() * math.sin(margin)
            harder = torch.where(own < -math.cos(margin), own - margin * math.sin(margin), turned)
            return F.cross_entropy(embed["scale"] * cosines.scatter(1, label.unsqueeze(1), harder), label)
        said = model(x)
        if args.task == "detect":
            return detect_loss(said, things[at : at + batch])
        if args.task == "segment":
            return F.cross_entropy(said.flatten(0, 1), torch.tensor(truth[at : at + batch]).long().flatten())
        # The cell of each point among all cells.
        where = things[at : at + batch]
        place = (where[..., :2] / stride).floor().clamp(min=0)
        target = place[..., 1].clamp(max=down - 1) * across + place[..., 0].clamp(max=across - 1)
        target = torch.where(where[..., 2] > 0, target, -100).long()
        return F.cross_entropy(said.transpose(1, 2).flatten(0, 1), target.flatten(), ignore_index=-100)

    begin, begun_at = time.perf_counter(), 0
    for step in range(args.steps):
        if step == SKIPPED + 1:
            begin, begun_at = time.perf_counter(), step
        loss = loss_of(step * batch)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        for optimizer, schedule in zip(optimizers, schedules):
            optimizer.step()
            schedule.step()
    loss = loss.item()
    seconds = time.perf_counter() - begin
    model.eval()
    with torch.no_grad():
        said = np.concatenate([model(scaled(asked[at : at + 64])).cpu().numpy() for at in range(0, len(asked), 64)])
    shape = dict(height=height, width=width, stride=stride, across=across, classes=classes)
    measured = dict(detect=boxes_measured, segment=pixels_measured, pose=points_measured, faces=pairs_measured)[args.task](folder, said, shape)
    print(json.dumps(dict(optimizer=args.optimizer, rate=args.rate, pictures_per_s=batch * (args.steps - begun_at) / seconds, loss=loss, **measured)))


def truths(task, folder, count, pixels):
    """What is learned, as arrays: labels; the classes of pixels; classes and boxes with -1 where there are fewer; the points of the one thing."""
    import numpy as np

    if task == "segment":
        return np.memmap(folder / "learned.classes", dtype=np.uint8, mode="r").reshape(-1, pixels)
    rows = lines(folder, "learned")
    if task == "faces":
        return np.array(rows)
    if task == "pose":
        return np.array([row[0]["points"] if row else [[0, 0, 0]] * 4 for row in rows], dtype=np.float32)
    boxes = np.full((count, max(map(len, rows)), 5), -1, dtype=np.float32)
    for place, row in enumerate(rows):
        for i, thing in enumerate(row):
            boxes[place, i] = [thing["class"], *thing["bbox"]]
    return boxes


def resampled(rows, value):
    """A 95 % interval of `value(rows)` by resampling rows."""
    import numpy as np

    random = np.random.default_rng(0)
    found = [value(rows[random.integers(0, len(rows), len(rows))]) for _ in range(1000)]
    low, high = np.percentile(found, [2.5, 97.5])
    return dict(low=float(low), high=float(high))


def boxes_measured(folder, said, shape):
    import contextlib
    import io

    import numpy as np
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    classes, stride, across = shape["classes"], shape["stride"], shape["across"]
    likely = lambda x: 1 / (1 + np.exp(-x))
    found = []
    for picture, values in enumerate(said):
        cell = np.arange(len(values))
        x, y = (cell % across + 0.5) * stride, (cell // across + 0.5) * stride
        sides = np.exp(np.clip(values[:, classes : classes + 4], -FARTHEST, FARTHEST)) * stride
        box = np.stack([np.maximum(x - sides[:, 0], 0), np.maximum(y - sides[:, 1], 0),
                        np.minimum(x + sides[:, 2], shape["width"]), np.minimum(y + sides[:, 3], shape["height"])], 1)
        chance = likely(values[:, :classes])
        score = np.sqrt(chance * likely(values[:, classes + 4 : classes + 5]))
        at, kind = np.nonzero(chance >= LEAST)
        order = np.argsort(-score[at, kind], kind="stable")[:1000]
        at, kind = at[order], kind[order]
        kept, left = [], np.arange(len(order))
        while len(left) and len(kept) < MOST:
            first, left = left[0], left[1:]
            kept.append(first)
            left = left[(kind[left] != kind[first]) | (overlaps(box[at[first]], box[at[left]]) <= SAME)]
        for place in kept:
            left, top, right, end = map(float, box[at[place]])
            found.append(dict(image_id=picture + 1, category_id=int(kind[place]) + 1, score=float(score[at[place], kind[place]]),
                              bbox=[left, top, right - left, end - top]))
    asked = lines(folder, "asked")
    annotations = [dict(image_id=i + 1, category_id=thing["class"] + 1, bbox=thing["bbox"], area=thing["bbox"][2] * thing["bbox"][3], iscrowd=0)
                   for i, things in enumerate(asked) for thing in things]
    for number, annotation in enumerate(annotations):
        annotation["id"] = number + 1
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dict(images=[dict(id=i + 1, **{key: shape[key] for key in ("height", "width")}) for i in range(len(asked))],
                            annotations=annotations, categories=[dict(id=i + 1) for i in range(classes)])
        coco.createIndex()
        results = {}
        for name, use in (("average_precision", 1), ("of_any_class", 0)):
            evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
            evaluation.params.useCats = use
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            results[name] = evaluation.stats
    return dict(average_precision=float(results["average_precision"][0]), at_50=float(results["average_precision"][1]),
                at_50_of_any_class=float(results["of_any_class"][1]))


def overlaps(one, others):
    """Intersection over union of a box with others, by their left, top, right and bottom."""
    import numpy as np

    wide, high = (np.minimum(one[i + 2], others[:, i + 2]) - np.maximum(one[i], others[:, i]) for i in (0, 1))
    both = np.maximum(wide, 0) * np.maximum(high, 0)
    area = lambda box: (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])
    return both / (area(one) + area(others) - both)


def pixels_measured(folder, said, shape):
    import numpy as np

    kinds = said.shape[-1]
    seen = said.argmax(-1)
    true = np.fromfile(folder / "asked.classes", dtype=np.uint8).reshape(seen.shape).astype(np.int64)
    each = np.stack([np.bincount(t * kinds + s, minlength=kinds * kinds) for t, s in zip(true, seen)]).reshape(-1, kinds, kinds)

    def mean_iou(confusions):
        all = confusions.sum(0)
        right, either = np.diag(all), all.sum(0) + all.sum(1) - np.diag(all)
        return float((right[either > 0] / either[either > 0]).mean())

    return dict(mean_iou=mean_iou(each), **resampled(each, mean_iou), pixel_accuracy=float((seen == true).mean()))


def points_measured(folder, said, shape):
    import numpy as np

    across, stride = shape["across"], shape["stride"]
    counts = np.zeros((len(said), 2, 2))
    for picture, (values, things) in enumerate(zip(said, lines(folder, "asked"))):
        if not things:
            continue
        maps = values.reshape(-1, across, values.shape[-1])
        reference = max(things[0]["bbox"][2:])
        for point, (x, y, known) in enumerate(things[0]["points"]):
            if not known:
                continue
            one = maps[..., point]
            row, column = np.unravel_index(one.argmax(), one.shape)
            top, left = max(row - 1, 0), max(column - 1, 0)
            weight = np.exp(one[top : row + 2, left : column + 2] - one.max())
            down, right = np.mgrid[top : top + weight.shape[0], left : left + weight.shape[1]] + 0.5
            off = math.hypot((weight * right).sum() / weight.sum() * stride - x, (weight * down).sum() / weight.sum() * stride - y)
            for i, within in enumerate((0.2, 0.1)):
                counts[picture, i] += [off <= within * reference, 1]
    share = lambda rows: float(rows[:, 0].sum() / rows[:, 1].sum())
    return dict(pck=share(counts[:, 0]), **resampled(counts[:, 0], share), pck_at_10=share(counts[:, 1]))


def pairs_measured(folder, said, _):
    import numpy as np
    from sklearn.metrics import roc_auc_score

    first, second, same = map(np.array, zip(*lines(folder, "asked")))
    rows = np.stack([(said[first] * said[second]).sum(1), same], 1)
    area = lambda rows: float(roc_auc_score(rows[:, 1], rows[:, 0]))
    return dict(roc_area=area(rows), **resampled(rows, area))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", choices=MEASURES, required=True)
    parser.add_argument("--danlu", default="target/release/danlu")
    parser.add_argument("--example", default="target/release/examples/pictures")
    parser.add_argument("--home", type=pathlib.Path, help="danlu's, where the catalogue's pictures are")
    parser.add_argument("--pictures", type=pathlib.Path, help="what the example `pictures` wrote; written now if there is nothing")
    parser.add_argument("--steps", type=int, default=0, help="batches; 0: as many as the recipe's epochs are, 2,500 for faces")
    parser.add_argument("--optimizer", choices=["adamw", "muon"], default="adamw", help="of PyTorch; danlu runs its recipe's Muon")
    parser.add_argument("--rate", type=float, default=0.003, help="of PyTorch's AdamW")
    parser.add_argument("--device", default="cpu", help="where PyTorch trains")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--who", nargs="*", default=["danlu", "torch"])
    parser.add_argument("--out")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return child(args)
    recipe = tomllib.loads(recipe_of(args.task).read_text())
    batch = recipe["batch"]["examples"]
    args.steps = args.steps or (round(recipe["budget"]["epochs"] * 10_000 / batch) if "epochs" in recipe["budget"] else 2500)
    with tempfile.TemporaryDirectory() as room:
        args.pictures = args.pictures or pathlib.Path(room)
        if "torch" in args.who and not (args.pictures / "about.json").exists():
            stamps = args.home / "cache" / recipe["data"]["sources"][0] / "files"
            subprocess.run([args.example, recipe_of(args.task), stamps, str(args.steps * batch), args.pictures], check=True)

        def described(who, rows):
            measure = MEASURES[args.task]
            all = " ".join(f"{row[measure]:.3f}" for row in rows)
            return f"{who:6} {median(rows, 'pictures_per_s'):8,.0f} pictures/s, {measure} {median(rows, measure):.3f} ({all}), peak {median(rows, 'peak_mb'):,.0f} MB"

        about = {"task": args.task, "steps": args.steps, "device": args.device}
        compare(take_turns(args.who, args.rounds, seeded(args, danlu, theirs), about, args.out), "pictures_per_s", described)


if __name__ == "__main__":
    main()
