"""Tokens per second and peak memory of LoRA tuning: `danlu train recipes/lora.toml` against PEFT and transformers, interleaved.

    danlu models pull smollm2
    python bench/lora.py --danlu target/release/danlu --model MODEL_FOLDER --data alpaca_en_demo.json [--rounds 3] [--out bench/results/FILE.jsonl]

Both tune the same model on the same conversations, packed into rows of one length, with the same rank on the same projections, in 32-bit
floats on two threads. danlu runs as its users run it, with what the program does besides (a measure before and after, a checkpoint, the
export); its steps are read from the run's log. Every round runs each as a process of its own, one after another, so that a change in the
machine's speed meets all alike. Raw rows go to --out; the summary is the median over rounds of the ratio within each round.

Needs torch, transformers and peft.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from turns import compare, median, take_turns

HERE = pathlib.Path(__file__).resolve().parent


def run(command, **environment):
    """What it printed, and the most memory it had, in MB."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{printed}")
    return printed, usage.ru_maxrss / 1024


def danlu(args, settings):
    with tempfile.TemporaryDirectory() as home:
        given = [f"data.sources=[\"{args.data}\"]", f"model.from={args.model}", f"model.context={args.length}", "name=bench",
                 f"batch.tokens={args.rows * args.length}", f"batch.micro_tokens={args.rows * args.length}", f"budget.steps={args.steps + 2}",
                 "eval.every=1000", "eval.tokens=500", "eval.final_tokens=500", "sample.tokens=1", "checkpoint.every=1000", *settings]
        command = [args.danlu, "train", str(HERE.parent / "recipes/lora.toml"), "--json", *(part for one in given for part in ("--set", one))]
        _, memory = run(command, DANLU_HOME=home)
        rows = [json.loads(line) for line in (pathlib.Path(home) / "runs/bench/metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "train"][2:]
    seconds = statistics.median(row["seconds"] for row in steps)
    return dict(seconds=seconds, tokens_per_s=args.rows * args.length / seconds, peak_mb=memory, loss=steps[-1]["loss"])


def peft(args, more):
    command = [sys.executable, str(HERE / "peft_step.py"), "--model", args.model, "--data", args.data, "--rows", str(args.rows),
               "--length", str(args.length), "--steps", str(args.steps), *more]
    printed, memory = run(command, OMP_NUM_THREADS="2")
    return dict(json.loads(printed.splitlines()[-1]), peak_mb=memory)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--danlu", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--who", nargs="*", default=["danlu", "peft"])
    parser.add_argument("--out")
    args = parser.parse_args()
    everyone = {
        "danlu": lambda: danlu(args, []),
        "danlu-nf4": lambda: danlu(args, ["adapter.base=nf4"]),
        "danlu-dora": lambda: danlu(args, ["adapter.kind=dora"]),
        "danlu-recompute": lambda: danlu(args, ["batch.recompute=true"]),
        "peft": lambda: peft(args, []),
        "peft-checkpointing": lambda: peft(args, ["--checkpointing"]),
        "peft-dora": lambda: peft(args, ["--dora"]),
    }
    about = {"rows": args.rows, "length": args.length}
    found = take_turns(args.who, args.rounds, lambda who, _: everyone[who](), about, args.out)
    compare(found, "tokens_per_s", lambda who, rows: f"{who:20} {median(rows, 'tokens_per_s'):8,.0f} tokens/s, peak {median(rows, 'peak_mb'):6,.0f} MB")


if __name__ == "__main__":
    main()
