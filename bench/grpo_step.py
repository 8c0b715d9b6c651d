"""Whole GRPO steps, answers drawn, danlu against TRL's GRPOTrainer: the same prompts, group size, answer length, two threads, f32.

    cargo build --release --workspace --examples
    python bench/grpo_step.py MODEL_FOLDER --rounds 3 > rows.jsonl

MODEL_FOLDER is a folder that transformers loads (`danlu models pull smollm2` makes one). Runs are processes of their own and take turns; of each
run the steps after the first count. danlu-int8 keeps AdamW's moments in eight bits. Every answer has as many tokens as the most. Needs torch, transformers, datasets and trl.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
QUESTIONS = [
    "Why is the sky blue?", "Write a short story about a fox who learns to swim.", "What is the capital of France, and what is it known for?",
    "Explain how a bicycle stays upright.", "Give me three tips for better sleep.", "What happens when water boils?",
    "Describe a market on a summer morning.", "How do plants make food?", "What is a prime number?", "Tell me about the history of tea.",
    "Why do cats purr?", "How would you teach a child to count?",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--beta", default="0.0")
    parser.add_argument("--who", default="danlu,danlu-int8,trl,trl-checkpointing")
    parser.add_argument("--binary", default="target/release/examples/grpo_step")
    args = parser.parse_args()
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        prompts, texts = pathlib.Path(folder) / "prompts.jsonl", pathlib.Path(folder) / "texts.jsonl"
        asked = [tokenizer.apply_chat_template([{"role": "user", "content": one}], add_generation_prompt=True, tokenize=False) for one in QUESTIONS]
        prompts.write_text("\n".join(json.dumps(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in asked))
        texts.write_text("\n".join(json.dumps({"text": text}) for text in asked))
        danlu = [args.binary, args.model, str(prompts), str(args.steps), f"rl.samples={args.samples}", f"rl.max_tokens={args.tokens}",
                 f"rl.kl={args.beta}", f"batch.examples={4 * args.samples}"]
        trl = [sys.executable, str(HERE / "trl_grpo.py"), args.model, str(texts), str(args.steps), str(args.samples), str(args.tokens), args.beta]
        commands = {"danlu": danlu, "danlu-int8": danlu + ["optimizer.moments=int8"], "trl": trl + ["0"], "trl-checkpointing": trl + ["1"]}
        for turn in range(args.rounds):
            for who in args.who.split(","):
                done = subprocess.run(commands[who], capture_output=True, text=True)
                if done.returncode != 0:
                    sys.exit(f"{who} failed:\n{done.stdout}\n{done.stderr}")
                for line in done.stdout.splitlines():
                    if line.startswith('{"who"'):
                        row = json.loads(line) | {"who": who, "round": turn}
                        print(json.dumps(row), flush=True)
                        rows.append(row)
    summary(rows)


def summary(rows):
    seconds, peak = {}, {}
    for who in dict.fromkeys(row["who"] for row in rows):
        of = [row for row in rows if row["who"] == who]
        seconds[who] = statistics.median(row["seconds"] for row in of if row["step"] > 1)
        peak[who] = max(row["peak_mb"] for row in of)
        print(f"{who:18} {seconds[who]:7.2f} s a step, peak {peak[who]:,} MB", file=sys.stderr)
        for mine in [one for one in seconds if one.startswith("danlu") and not who.startswith("danlu")]:
            times, memory = seconds[who] / seconds[mine], peak[mine] / peak[who]
            print(f"{'':18} {times:.2f} times as long as {mine}, which has {memory:.2f} of the memory", file=sys.stderr)


if __name__ == "__main__":
    main()
