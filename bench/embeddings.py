"""Texts per second of sentence embeddings, and whether they are the same: `danlu serve` against sentence-transformers, interleaved.

    danlu models pull minilm
    python bench/embeddings.py --danlu target/release/danlu --model ~/.danlu/models/minilm@1 --texts FILE [--count 2000] [--rounds 3] [--out FILE.jsonl]

FILE has a text in each line, or JSON with a `text`; `--count` of them are drawn by a seed. Both read the same folder, in 32-bit floats on two
threads. danlu is asked as its users ask it, over HTTP through the openai client, whose time counts too; sentence-transformers is called in process.
Every round runs each as a process of its own; a first call on other texts is not timed, and the time of reading the model is left out. Peak memory is
the process's that computes. The vectors of the first 100 texts are compared number by number.

Needs sentence-transformers and openai. `--per-call` is how many texts a call has: sentence-transformers sorts them and makes batches of 32, its default.
"""

import argparse
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

from turns import compare, median, take_turns


def drawn(args):
    rows = (line.strip() for line in open(args.texts, encoding="utf8"))
    rows = (json.loads(row)["text"] if row.startswith("{") else row for row in rows)
    texts = sorted({row for row in rows if len(row) >= 20})
    random.Random(args.seed).shuffle(texts)
    return texts[: args.count + 64]


def timed(args, embed):
    """Texts per second, and the vectors of the first hundred."""
    texts = drawn(args)
    texts, others = texts[: args.count], texts[args.count :]
    embed(others)
    calls = [texts[at : at + args.per_call] for at in range(0, len(texts), args.per_call)]
    begin = time.perf_counter()
    vectors = [vector for call in calls for vector in embed(call)]
    seconds = time.perf_counter() - begin
    return dict(texts_per_s=len(texts) / seconds, texts=len(texts), vectors=[list(map(float, vector)) for vector in vectors[:100]])


def peak_mb(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) / 1024


def danlu(args):
    import openai

    with tempfile.TemporaryDirectory() as home:
        command = [args.danlu, "serve", args.model, "--port", "0", "--threads", "2"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"DANLU_HOME": home})
        try:
            found = next(found for line in server.stdout if (found := re.search(r"http://[0-9.:]+", line)))
            client = openai.OpenAI(base_url=f"{found.group()}/v1", api_key="none")
            name = client.models.list().data[0].id
            row = timed(args, lambda texts: [one.embedding for one in client.embeddings.create(model=name, input=texts).data])
            return dict(row, peak_mb=peak_mb(server.pid))
        finally:
            server.terminate()
            server.wait()


def theirs(args):
    import torch
    from sentence_transformers import SentenceTransformer, models

    torch.set_num_threads(2)
    words = models.Transformer(args.model)
    parts = [words, models.Pooling(words.get_embedding_dimension(), "mean"), models.Normalize()]
    model = SentenceTransformer(modules=parts, device="cpu")
    row = timed(args, lambda texts: model.encode(texts, show_progress_bar=False))
    print(json.dumps(dict(row, peak_mb=peak_mb(os.getpid()))))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--danlu", default="target/release/danlu")
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts", required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--per-call", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return theirs(args)
    vectors = {}

    def run(who, round_):
        if who == "danlu":
            row = danlu(args)
        else:
            given = [str(part) for name in ("model", "texts", "count", "per_call", "seed") for part in ("--" + name.replace("_", "-"), getattr(args, name))]
            printed = subprocess.run([sys.executable, __file__, "--one", *given], stdout=subprocess.PIPE, check=True, text=True).stdout
            row = json.loads(printed.splitlines()[-1])
        vectors[who] = row.pop("vectors")
        return row

    def described(who, rows):
        return f"{who:22} {median(rows, 'texts_per_s'):8,.1f} texts/s, peak {median(rows, 'peak_mb'):,.0f} MB"

    compare(take_turns(["danlu", "sentence-transformers"], args.rounds, run, {"per_call": args.per_call}, args.out), "texts_per_s", described)
    ours, others = vectors.values()
    worst = max(abs(a - b) for one, other in zip(ours, others, strict=True) for a, b in zip(one, other, strict=True))
    print(f"{len(ours)} texts: at most {worst:.1e} apart")
    assert worst < 1e-4


if __name__ == "__main__":
    main()
