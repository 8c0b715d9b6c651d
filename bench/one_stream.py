"""Tokens per second of one stream, reading a prompt and writing: danlu in blocks against llama.cpp on the same GGUF file, interleaved.

    danlu models pull smollm2
    python bench/one_stream.py --danlu target/release/danlu MODEL_FOLDER… [--rounds 5] [--out bench/results/FILE.jsonl]

A folder holds `model.gguf` (`danlu models show smollm2` names it; `danlu models quantize` makes others). Both read a prompt of about 512 tokens
and write 128 more, greedily, on two threads, each run a process of its own, by turns. Times are each program's own: `danlu generate --json`, and
llama.cpp's performance counters, so that Python costs it nothing. Run it on a machine with nothing else to do: llama.cpp's threads wait for each
other by spinning. Needs llama-cpp-python, built for this machine.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

TEXT = ("The furnace stood in the corner of the workshop, and nobody had lit it for years. When the alchemist's daughter came home she swept the floor, "
        "opened the shutters, and looked for the book in which her father had written down what he had learned. ")


def theirs(path, tokens, write, threads):
    """Run in a process of its own: prints a row."""
    import llama_cpp
    llama = llama_cpp.Llama(model_path=path, n_ctx=1024, n_threads=threads, n_threads_batch=threads, n_batch=512, verbose=False)
    llama.eval(tokens[:8])
    llama.reset()
    llama_cpp.llama_perf_context_reset(llama.ctx)
    llama.eval(tokens)
    for _ in range(write):
        llama.eval([llama.sample(temp=0.0)])
    took = llama_cpp.llama_perf_context(llama.ctx)
    # A step of one token counts as writing there, one of many as reading.
    print(json.dumps(dict(prompt=1e3 * took.n_p_eval / took.t_p_eval_ms, write=1e3 * took.n_eval / took.t_eval_ms)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--danlu", default="target/release/danlu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out")
    parser.add_argument("--theirs", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.theirs:
        return theirs(args.theirs[0], json.loads(args.theirs[1]), args.write, args.threads)
    from tokenizers import Tokenizer
    out = open(args.out, "a") if args.out else None
    for folder in map(pathlib.Path, args.folders):
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        text, rows = TEXT * 11, {"danlu": [], "llama.cpp": []}
        tokens = tokenizer.encode(text, add_special_tokens=False).ids[:512]
        text = tokenizer.decode(tokens, skip_special_tokens=False)
        for round_ in range(args.rounds):
            command = [args.danlu, "generate", str(folder), "--prompt", text, "--max-tokens", str(args.write), "--temperature", "0",
                       "--repetition", "1", "--json"]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            ours = dict(prompt=found["prompt_tokens"] / found["prompt_seconds"], write=found["tokens_per_second"])
            command = [sys.executable, __file__, "--theirs", str(folder / "model.gguf"), json.dumps(tokens), "--write", str(args.write),
                       "--threads", str(args.threads)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            for who, row in [("danlu", ours), ("llama.cpp", found)]:
                rows[who].append(row)
                if out:
                    out.write(json.dumps({"model": folder.name, "round": round_, "who": who, **row}) + "\n")
                    out.flush()
        for what in ["prompt", "write"]:
            each = {who: [row[what] for row in found] for who, found in rows.items()}
            ratio = statistics.median(a / b for a, b in zip(each["danlu"], each["llama.cpp"]))
            print(f"{folder.name:20} {what:6}  " + "   ".join(f"{who} {statistics.median(found):7.1f} tokens/s" for who, found in each.items())
                  + f"   ratio_{what} {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
