"""Translation, trained and searched for: danlu against PyTorch eager and torch.compile, interleaved, on the same batches.

    cargo build --release --workspace --examples
    python bench/transformer.py [--rounds 3] [--steps 300] [--recipe recipes/2017-transformer.toml] [--out bench/results/FILE.jsonl]

Needs a Python with torch, tokenizers and sacrebleu. Every round trains all from their own initial weights in processes of their own, one after
another. Both sides then translate what is held out by the likeliest token each time; BLEU and chrF are sacreBLEU's, on both. danlu's own BLEU of
a beam search stands beside them. Tokens are those of texts, without padding. Raw rows go to --out; ratios are medians over rounds.
PyTorch translates without a cache of keys and values, as `nn.Transformer` has none; read its seconds of translation with that in mind.
"""

import argparse, json, os, statistics, subprocess, sys, tempfile

from sacrebleu import corpus_bleu, corpus_chrf
from tokenizers import Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--recipe", default=os.path.join(HERE, "..", "recipes", "2017-transformer.toml"))
    parser.add_argument("--modes", nargs="*", default=["eager", "compile"])
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "..", "target"))
    parser.add_argument("--danlu", default=os.path.join(target, "release", "examples", "translate"))
    parser.add_argument("--out")
    args = parser.parse_args()
    out = open(args.out, "a") if args.out else None
    folder = tempfile.mkdtemp()
    rows = {}
    for round_ in range(args.rounds):
        commands = {"danlu": [args.danlu, args.recipe, folder, f"budget.steps={args.steps}", f"seed={round_}"]}
        for mode in args.modes:
            commands[mode] = [sys.executable, os.path.join(HERE, "torch_transformer.py"), folder, "--mode", mode]
        for who, command in commands.items():
            printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
            row = json.loads(printed.splitlines()[-1])
            data = json.load(open(os.path.join(folder, "data.json")))
            if who == "danlu":
                texts = open(os.path.join(folder, "danlu.txt"), encoding="utf8").read().split("\n")[:-1]
            else:
                tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
                found = json.load(open(os.path.join(folder, f"torch-{who}.ids.json")))
                texts = [tokenizer.decode(ids, skip_special_tokens=True).replace("\n", " ") for ids in found]
            words = "zh" if data["translate"]["to"] == "zh" else "13a"
            row["bleu"] = round(corpus_bleu(texts, [data["references"]], tokenize=words).score, 2)
            row["chrf"] = round(corpus_chrf(texts, [data["references"]]).score, 2)
            rows.setdefault(who, []).append(row)
            if out:
                out.write(json.dumps({"round": round_, **row}) + "\n")
                out.flush()
    median = lambda who, key: statistics.median(row[key] for row in rows[who])
    for who in rows:
        speeds = " ".join(f"{row['tokens_per_s']:,.0f}" for row in rows[who])
        print(f"{who:8} tokens/s {speeds}  nats/token {median(who, 'nats_per_token'):.3f}  BLEU {median(who, 'bleu'):.1f}"
              f"  chrF {median(who, 'chrf'):.1f}  translating {median(who, 'translate_s'):.1f} s  peak {median(who, 'peak_mb'):,.0f} MB")
    for rival in args.modes:
        ratios = [a["tokens_per_s"] / b["tokens_per_s"] for a, b in zip(rows["danlu"], rows[rival])]
        print(f"ratio_{rival} {statistics.median(ratios):.2f}  (rounds {' '.join(f'{r:.2f}' for r in ratios)})"
              f"  memory_ratio {median('danlu', 'peak_mb') / median(rival, 'peak_mb'):.2f}")


main()
