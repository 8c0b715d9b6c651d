"""Words per second, peak memory and quality of word vectors: `danlu train recipes/2013-word2vec.toml` against gensim, interleaved.

    danlu train recipes/2013-word2vec.toml --set budget.steps=1 --run first      # once: gets the text and makes it into words
    python bench/word2vec.py --danlu target/release/danlu [--rounds 3] [--epochs 40] [--form skip-gram] [--out bench/results/FILE.jsonl]

Both learn from the same words of the same documents (danlu's own, words outside its vocabulary left out for gensim as danlu leaves them out),
with the same channels, window, negative words, subsampling, rates and epochs, on two threads. gensim reads a file of lines, its fastest way
(`gensim`), or lists in memory (`gensim-lists`). Words are counted alike: those of the vocabulary, before subsampling. danlu runs as its users run
it, with its measures, checkpoint and export in the peak of its memory; its seconds are those of its steps, gensim's those of `train`. Each run is
a process of its own, one after another, so that a change in the machine's speed meets all alike. What danlu's `embed analogies` says of either
vectors is their quality: few and easy questions, the same for both. Raw rows go to --out; the summary is the median over rounds of the ratio
within each round.

Needs gensim and numpy.
"""

import argparse
import glob
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from turns import compare, median, take_turns

HERE = pathlib.Path(__file__).resolve().parent
RECIPE = HERE.parent / "recipes/2013-word2vec.toml"


def run(command, **environment):
    """What it printed, and the most memory it had, in MB."""
    child = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{printed}")
    return printed, usage.ru_maxrss / 1024


def read_words(folder):
    """The documents of a token set's training split, as lists of the words of its vocabulary."""
    import numpy as np

    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    names = {id: word for word, id in tokenizer["model"]["vocab"].items()}
    special = {token["id"] for token in tokenizer["added_tokens"]}
    end = json.loads((folder / "manifest.json").read_text())["end_of_text"]
    document, tokens = [], 0
    for path in sorted(glob.glob(str(folder / "train-*.tokens"))):
        # A header of 128 bytes, in which the bytes of an id stand at 12, then the ids.
        width = int(np.fromfile(path, dtype=np.uint8, count=128)[12:16].view("<u4")[0])
        for id in np.fromfile(path, dtype={2: "<u2", 4: "<u4"}[width], offset=128).tolist():
            tokens += 1
            if id == end:
                yield document, tokens
                document, tokens = [], 1
            elif id not in special:
                document.append(names[id])
    yield document, tokens


def token_set(home, source):
    """The newest one of whole words."""
    found = [pathlib.Path(path) for path in glob.glob(str(home / "data" / source / "tokens-*"))]
    words = [path for path in found if json.loads((path / "tokenizer.json").read_text())["model"]["type"] == "WordLevel"]
    if not words:
        sys.exit(f"{home / 'data' / source} has no tokens of whole words; run danlu on it once, as this file's head says")
    return max(words, key=lambda path: path.stat().st_mtime)


def gensim(args):
    """A process of its own: trains, writes the vectors, prints one row."""
    from gensim.models import Word2Vec

    settings = dict(vector_size=args.channels, window=args.window, negative=args.negative, sample=args.subsample, sg=int(args.form == "skip-gram"),
                    min_count=1, workers=2, alpha=args.rate, min_alpha=args.rate * 0.004, seed=args.seed, hs=0, cbow_mean=1)
    if args.lists:
        lines = [line.split() for line in open(args.lines, encoding="utf-8")]
        data = dict(corpus_iterable=lines)
    else:
        data = dict(corpus_file=args.lines)
    model = Word2Vec(**settings)
    model.build_vocab(**data)
    begun = time.perf_counter()
    model.train(**data, total_words=model.corpus_total_words, total_examples=model.corpus_count, epochs=args.epochs)
    seconds = time.perf_counter() - begun
    model.wv.save_word2vec_format(args.vectors, binary=True)
    print(json.dumps(dict(seconds=seconds, words=model.corpus_total_words)))


def settings_of(args):
    return ["--channels", args.channels, "--window", args.window, "--negative", args.negative, "--subsample", args.subsample, "--form", args.form,
            "--rate", args.rate, "--epochs", args.epochs]


def theirs(args, lists, seed):
    with tempfile.TemporaryDirectory() as scratch:
        vectors = pathlib.Path(scratch) / "vectors.bin"
        command = [sys.executable, __file__, "--child", "--lines", args.lines, "--vectors", vectors, "--seed", seed + 1, *settings_of(args)]
        printed, memory = run(command + (["--lists"] if lists else []), OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
        row = json.loads(printed.splitlines()[-1])
        return dict(words_per_s=args.words * args.epochs / row["seconds"], seconds=row["seconds"], peak_mb=memory, **quality(args, vectors))


def ours(args, seed):
    name = f"bench-word2vec-{os.getpid()}-{seed}-{time.time_ns()}"
    given = [f"data.sources=[\"{args.source}\"]", f"model.hidden={args.channels}", f"word2vec.window={args.window}", f"word2vec.negative={args.negative}",
             f"word2vec.subsample={args.subsample}", f"word2vec.form={args.form}", "word2vec.vectors=binary", f"optimizer.rate={args.rate}",
             f"budget.epochs={float(args.epochs)}", f"seed={seed}"]
    command = [args.danlu, "--threads", "2", "train", RECIPE, "--run", name, "--json", *(part for one in given for part in ("--set", one))]
    _, memory = run(command, DANLU_HOME=str(args.home))
    rows = [json.loads(line) for line in (args.home / "runs" / name / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "train"]
    seconds = sum(row["seconds"] for row in steps)
    # The run sees some tokens more or less than whole epochs; those that are words of the vocabulary count.
    words = steps[-1]["tokens"] * args.words / args.tokens
    registered = json.loads((args.home / "runs" / name / "run.json").read_text())["model"]
    folder = args.home / "models" / (registered if isinstance(registered, str) else f"{registered['name']}@{registered['version']}")
    final = [row for row in rows if row["kind"] == "final"][-1]
    return dict(words_per_s=words / seconds, seconds=seconds, peak_mb=memory, nats=final["nats_per_prediction"], **quality(args, folder / "vectors.bin"))


def quality(args, vectors):
    printed, _ = run([args.danlu, "embed", "analogies", "--vectors", vectors, "--json"], DANLU_HOME=str(args.home))
    score = json.loads(printed)
    near = {}
    for word in args.near:
        printed, _ = run([args.danlu, "embed", "near", word, "--vectors", vectors, "--count", "5", "--json"], DANLU_HOME=str(args.home))
        near[word] = [one["word"] for one in json.loads(printed)]
    return dict(analogies=score["right"] / max(score["asked"], 1), asked=score["asked"],
                sections={one["section"]: [one["right"], one["asked"]] for one in score["sections"]}, near=near)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--danlu")
    parser.add_argument("--home", type=pathlib.Path, default=pathlib.Path(os.environ.get("DANLU_HOME", "~/.danlu")).expanduser())
    parser.add_argument("--source", default="wiki-leads")
    parser.add_argument("--channels", type=int, default=100)
    parser.add_argument("--window", type=int, default=5)
    parser.add_argument("--negative", type=int, default=5)
    parser.add_argument("--subsample", type=float, default=1e-3)
    parser.add_argument("--form", choices=["skip-gram", "cbow"], default="skip-gram")
    parser.add_argument("--rate", type=float, help="the peak; without it 0.025, of cbow 0.05")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--near", nargs="*", default=["france", "river", "king", "album"])
    parser.add_argument("--who", nargs="*", default=["danlu", "gensim", "gensim-lists"])
    parser.add_argument("--out")
    for hidden in ["--lines", "--vectors"]:
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--lists", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.rate = args.rate or {"skip-gram": 0.025, "cbow": 0.05}[args.form]
    if args.child:
        return gensim(args)
    if not args.danlu:
        parser.error("--danlu is needed")

    folder = token_set(args.home, args.source)
    with tempfile.TemporaryDirectory() as scratch:
        args.lines, args.words, args.tokens = pathlib.Path(scratch) / "words.txt", 0, 0
        with open(args.lines, "w", encoding="utf-8") as lines:
            for document, tokens in read_words(folder):
                args.words += len(document)
                args.tokens += tokens
                # gensim leaves out what is beyond 10,000 words of a line.
                for at in range(0, len(document), 1000):
                    lines.write(" ".join(document[at:at + 1000]) + "\n")
        print(f"{args.words:,} words of {args.tokens:,} tokens in {folder}", flush=True)
        everyone = {"danlu": lambda round_: ours(args, round_), "gensim": lambda round_: theirs(args, False, round_),
                    "gensim-lists": lambda round_: theirs(args, True, round_)}
        about = {"form": args.form, "channels": args.channels, "window": args.window, "negative": args.negative, "subsample": args.subsample,
                 "epochs": args.epochs}
        found = take_turns(args.who, args.rounds, lambda who, round_: everyone[who](round_), about, args.out)

    def described(who, rows):
        scores = [row["analogies"] for row in rows]
        return (f"{who:14} {median(rows, 'words_per_s'):10,.0f} words/s, peak {median(rows, 'peak_mb'):6,.0f} MB, "
                f"analogies {median(rows, 'analogies'):.3f} ({min(scores):.3f} to {max(scores):.3f})")

    compare(found, "words_per_s", described)


if __name__ == "__main__":
    main()
