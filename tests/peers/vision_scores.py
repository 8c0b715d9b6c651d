"""Compares danlu's measures of seeing with pycocotools and scikit-learn, on random guesses of what is in scenes that danlu made, and its masks
of polygons and runs with those of pycocotools.

    cargo build --release --workspace --examples --bins
    target/release/danlu data scenes stamps --count 200 --coco /tmp/scenes
    python tests/peers/vision_scores.py target/release/examples/vision /tmp/scenes

Needs pycocotools and scikit-learn.
"""

import contextlib
import io
import json
import math
import os
import random
import subprocess
import sys
import tempfile

import numpy as np
import pycocotools.mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import jaccard_score, roc_auc_score, roc_curve

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl"]
NAMES_OF_KEYPOINTS = ["AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"]
SIGMAS = [0.04, 0.07, 0.1, 0.13]
FALSE_ACCEPTS = [0.0, 0.001, 0.01, 0.1, 0.5]


def polygon(draw, height, width):
    """A star round a random middle, some of whose corners lie on the edge or are there twice."""
    x, y = draw.uniform(0, width), draw.uniform(0, height)
    corners = []
    for i in range(draw.randrange(3, 12)):
        reach = draw.uniform(2, width / 2)
        angle = 2 * math.pi * i / 12
        corners += [min(max(x + reach * math.cos(angle), 0), width), min(max(y + reach * math.sin(angle), 0), height)]
    return corners + corners[-2:] if draw.random() < 0.2 else corners


def variety(draw, data):
    """Crowds, polygons, runs as numbers, things without known points, areas of every size."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    for one in data["annotations"]:
        height, width = sizes[one["image_id"]]
        kind = draw.random()
        if kind < 0.1:
            one["iscrowd"] = 1
            bitmap = np.asfortranarray(np.array([[draw.random() < 0.6 for _ in range(width)] for _ in range(height)], dtype=np.uint8))
            flat = bitmap.flatten(order="F")
            ends = np.flatnonzero(np.diff(flat)) + 1
            counts = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
            one["segmentation"] = {"size": [height, width], "counts": counts if flat[0] == 0 else [0] + counts}
        elif kind < 0.4:
            shapes = [polygon(draw, height, width) for _ in range(draw.randrange(1, 4))]
            merged = mask_api.merge(mask_api.frPyObjects(shapes, height, width))
            if mask_api.area(merged) > 0:
                one["segmentation"] = shapes
                one["bbox"] = mask_api.toBbox(merged).tolist()
        one["area"] = one["area"] * draw.choice([1, 1, 4, 30])
        if draw.random() < 0.1:
            one["keypoints"] = [0, 0, 0] * (len(one["keypoints"]) // 3)
            one["num_keypoints"] = 0
    return sizes


def guesses(draw, data, coco, sizes):
    """Near most things, some of the wrong class, some where nothing is; scores are often equal."""
    boxes, masks, keypoints = [], [], []
    categories = [category["id"] for category in data["categories"]]

    def add(image, category, box, mask, points):
        height, width = sizes[image]
        score = round(draw.random(), draw.choice([1, 3]))
        common = {"image_id": image, "category_id": category if draw.random() < 0.9 else draw.choice(categories), "score": score}
        noise = draw.choice([0.5, 2, 8])
        x, y, wide, high = [value + draw.gauss(0, noise) for value in box]
        boxes.append(common | {"bbox": [x, y, max(wide, 1), max(high, 1)]})
        moved = np.asfortranarray(np.roll(mask, (draw.randrange(-3, 4), draw.randrange(-3, 4)), axis=(0, 1)))
        runs = mask_api.encode(moved)
        masks.append(common | {"segmentation": {"size": [height, width], "counts": runs["counts"].decode()}})
        points = [value + (draw.gauss(0, noise) if i % 3 < 2 else 0) for i, value in enumerate(points)]
        keypoints.append(common | {"keypoints": points})

    for one in data["annotations"]:
        mask = coco.annToMask(one)
        points = one["keypoints"] if one["num_keypoints"] else [value for _ in range(4) for value in (one["bbox"][0], one["bbox"][1], 2)]
        for _ in range(draw.choice([0, 1, 1, 2, 12])):
            add(one["image_id"], one["category_id"], one["bbox"], mask, points)
    for image, (height, width) in sizes.items():
        for _ in range(draw.randrange(3)):
            mask = np.zeros((height, width), dtype=np.uint8)
            mask[: draw.randrange(1, height), : draw.randrange(1, width)] = 1
            add(image, draw.choice(categories), [5, 5, 30, 20], mask, [draw.uniform(0, width) for _ in range(12)])
    return boxes, masks, keypoints


def official(coco, found, kind):
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco, coco.loadRes([dict(one) for one in found]), kind)
        if kind == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.array(SIGMAS)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    classes = [float(np.mean(precision[:, :, k])) for k in range(precision.shape[2])]
    return list(map(float, evaluation.stats)), classes


def main(binary, folder):
    draw = random.Random(11)
    with open(os.path.join(folder, "instances.json")) as file:
        data = json.load(file)
    sizes = variety(draw, data)
    with tempfile.TemporaryDirectory() as changed:
        os.symlink(os.path.abspath(os.path.join(folder, "images")), os.path.join(changed, "images"))
        path = os.path.join(changed, "instances.json")
        with open(path, "w") as file:
            json.dump(data, file)
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(path)
        boxes, masks, keypoints = guesses(draw, data, coco, sizes)
        points = {one["id"]: [value + draw.gauss(0, 3) for value in one["keypoints"]] for one in data["annotations"]}
        labels = [(draw.randrange(5), draw.randrange(6)) for _ in range(3000)]
        labels = [(a, a if draw.random() < 0.5 else b) for a, b in labels]
        pairs = [(round(draw.gauss(0.4 if same else 0.0, 0.3), draw.choice([1, 6])), same) for same in (draw.random() < 0.4 for _ in range(5000))]
        asked = {
            "boxes": boxes, "masks": masks, "keypoints": keypoints, "sigmas": SIGMAS, "points": points, "share": 0.2,
            "labels": labels, "classes": 7, "pairs": pairs, "false_accepts": FALSE_ACCEPTS,
        }
        ran = subprocess.run([binary, changed], input=json.dumps(asked), capture_output=True, text=True)
    if ran.returncode:
        sys.exit(ran.stderr)
    ours = json.loads(ran.stdout)
    failed = False

    def compare(name, mine, theirs):
        nonlocal failed
        # What pycocotools calls -1 there is nothing of.
        mine = -1.0 if mine is None else mine
        same = abs(mine - theirs) <= 1e-9
        failed |= not same
        print(f"{name}: {mine:.9f}, theirs {theirs:.9f}{'' if same else '  DIFFERENT'}")

    print(f"{len(data['images'])} pictures, {len(data['annotations'])} things, {len(boxes)} guesses; set aside: {ours['set_aside']}")
    different = 0
    for one in data["annotations"]:
        theirs = coco.annToRLE(one)
        if not isinstance(theirs["counts"], (str, bytes)):
            theirs = mask_api.frPyObjects(theirs, *theirs["size"])
        counts = theirs["counts"]
        different += ours["masks"][str(one["id"])] != (counts if isinstance(counts, str) else counts.decode())
    print(f"masks: {different} of {len(data['annotations'])} different")
    failed |= different > 0 or ours["set_aside"] != []

    for kind, found, names in [("bbox", boxes, NAMES), ("segm", masks, NAMES), ("keypoints", keypoints, NAMES_OF_KEYPOINTS)]:
        stats, classes = official(coco, found, kind)
        for name, theirs in zip(names, stats):
            compare(f"{kind} {name}", ours["scores"][kind][name], theirs)
        for i, theirs in enumerate(classes):
            compare(f"{kind} AP of class {i}", ours["scores"][kind]["classes"][i], theirs)

    right = known = 0
    for one in data["annotations"]:
        guess = points[one["id"]]
        for i in range(0, len(guess), 3):
            if one["keypoints"][i + 2]:
                known += 1
                distance = np.hypot(guess[i] - one["keypoints"][i], guess[i + 1] - one["keypoints"][i + 1])
                right += distance <= 0.2 * max(one["bbox"][2], one["bbox"][3])
    compare("PCK@0.2", ours["pck"], right / known)

    true, guessed = zip(*labels)
    for i, theirs in enumerate(jaccard_score(true, guessed, average=None, labels=range(6))):
        compare(f"IoU of class {i}", ours["iou"][i], float(theirs))
    compare("mIoU", ours["mean_iou"], float(jaccard_score(true, guessed, average="macro")))

    scores, same = zip(*pairs)
    compare("AUC", ours["auc"], float(roc_auc_score(same, scores)))
    far, tar, _ = roc_curve(same, scores, drop_intermediate=False)
    # Where the line of the curve meets the line on which both errors are equal, by halving.
    along = np.concatenate([[0], np.cumsum(np.hypot(np.diff(far), np.diff(tar)))])
    low, high = 0.0, float(along[-1])
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.interp(middle, along, far) + np.interp(middle, along, tar) < 1 else (low, middle)
    compare("equal error rate", ours["eer"], float(np.interp(low, along, far)))
    for most, mine in zip(FALSE_ACCEPTS, ours["true_accepts"]):
        compare(f"true accepts at {most} false", mine, float(tar[far <= most].max()))
    # Every tenth pair is judged by the threshold that is best for all others: the first of those, halfway to the next.
    scores, same, fold, right = np.array(scores), np.array(same), np.arange(len(scores)) % 10, 0
    for out in range(10):
        others = fold != out
        far, tar, thresholds = roc_curve(same[others], scores[others], drop_intermediate=False)
        best = np.argmax(np.round(tar * same[others].sum() + (1 - far) * (~same[others]).sum()))
        threshold = thresholds[best : best + 2].mean()
        right += ((scores[~others] >= threshold) == same[~others]).sum()
    compare("accuracy by folds", ours["accuracy"], right / len(scores))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
