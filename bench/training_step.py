"""Tokens per second of a training step: danlu against PyTorch eager and torch.compile, interleaved.

    cargo build --release -p danlu-train --example step
    python bench/training_step.py [--rounds 5] [--shape llama-6x384 ...] [--out bench/results/FILE.jsonl]

Of gpt2-12x768 there is a fourth, danlu with AdamW's moments in eight bits (`optimizer.moments = "int8"`), whose point is its memory.

Needs a Python with torch. Every round runs all as processes of their own, one after another, so that a change in the
machine's speed meets all alike. Raw rows go to --out; the summary is the median over rounds of the ratio within each round.
"""

import argparse, json, os, statistics, subprocess, sys

HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--shape", nargs="*", default=["llama-6x384", "gpt2-12x768"])
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "..", "target"))
    parser.add_argument("--danlu", default=os.path.join(target, "release", "examples", "step"))
    parser.add_argument("--out")
    args = parser.parse_args()
    out = open(args.out, "a") if args.out else None
    for shape in args.shape:
        common = ["--shape", shape, "--steps", str(args.steps)]
        torch = [sys.executable, os.path.join(HERE, "torch_step.py"), *common]
        commands = {"danlu": [args.danlu, *common], "eager": [*torch, "--mode", "eager"], "compile": [*torch, "--mode", "compile"]}
        if shape == "gpt2-12x768":
            commands["danlu-int8"] = [args.danlu, *common, "--moments", "int8"]
        rows = {who: [] for who in commands}
        for round_ in range(args.rounds):
            for who, command in commands.items():
                printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
                row = json.loads(next(line for line in printed.splitlines() if line.startswith("{")))
                rows[who].append(row)
                if out:
                    out.write(json.dumps({"round": round_, **row}) + "\n")
                    out.flush()
        speed = {who: [row["tokens_per_s"] for row in r] for who, r in rows.items()}
        memory = {who: statistics.median(row["peak_mb"] for row in r) for who, r in rows.items()}
        print(shape)
        for who in commands:
            print(f"  {who:8} tokens/s {' '.join(f'{s:,.0f}' for s in speed[who])}  median {statistics.median(speed[who]):,.0f}"
                  f"  peak {memory[who]:,.0f} MB")
        for rival in ["eager", "compile"]:
            ratios = [a / b for a, b in zip(speed["danlu"], speed[rival])]
            print(f"  ratio_{rival} {statistics.median(ratios):.2f}  (rounds {' '.join(f'{r:.2f}' for r in ratios)})")
        print(f"  memory_ratio_eager {memory['danlu'] / memory['eager']:.2f}")
        if "danlu-int8" in rows:
            print(f"  memory_ratio_eager_int8 {memory['danlu-int8'] / memory['eager']:.2f}")
        parts = rows["danlu"][-1].get("parts_ms", {})
        whole = sum(parts.values()) or 1.0
        for part, ms in parts.items():
            print(f"  {part:10} {ms:8.1f} ms  {100 * ms / whole:5.1f} %")


main()
