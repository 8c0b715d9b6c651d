"""Tokens per second of one stream, reading a prompt and writing: danlu in blocks against llama.cpp on the same GGUF file, interleaved.

    danlu models pull smollm2
    python bench/one_stream.py --danlu target/release/danlu MODEL_FOLDER… [--formats q8_0 q4_0] [--rounds 5] [--out bench/results/FILE.jsonl]

A folder holds `model.gguf` (`danlu models show smollm2` names it). With `--formats` each model is also measured in these, as
`danlu models quantize` makes them; they stay in the home that the folder lies in, as models of their own, and are not made again. Both read a prompt
of about 512 tokens and write 128 more, greedily, on two threads, each run a process of its own, by turns. Times are each program's own:
`danlu generate --json`, and llama.cpp's performance counters, so that Python costs it nothing. Run it on a machine with nothing else to do:
llama.cpp's threads wait for each other by spinning. Needs llama-cpp-python, built for this machine, and tokenizers.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

from turns import median, take_turns

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


def ours(danlu, folder, text, write, threads, more):
    """A run of danlu: a row."""
    command = [danlu, "generate", str(folder), "--prompt", text, "--max-tokens", str(write), "--temperature", "0", "--repetition", "1",
               "--threads", str(threads), "--json", *more]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return dict(prompt=found["prompt_tokens"] / found["prompt_seconds"], write=found["tokens_per_second"])


def in_format(danlu, folder, format_):
    """The same model in blocks of this format, made beside it unless it is there."""
    folder = folder.resolve()
    name, _, version = folder.name.rpartition("@")
    if not name or folder.parent.name != "models":
        raise SystemExit(f"{folder} is no model in danlu's home (HOME/models/NAME@VERSION), from which others could be made")
    made = folder.parent / f"{name}-{version}-{format_}@1"
    if not made.is_dir():
        command = [danlu, "models", "quantize", folder.name, "--to", format_, "--name", made.name.removesuffix("@1")]
        subprocess.run(command, check=True, stdout=sys.stderr, env={**os.environ, "DANLU_HOME": str(folder.parent.parent)})
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=pathlib.Path)
    parser.add_argument("--danlu", default="target/release/danlu")
    parser.add_argument("--formats", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out")
    parser.add_argument("--set", action="append", default=[], help="another argument of danlu generate, as --set=--kv=f32")
    parser.add_argument("--theirs", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.theirs:
        return theirs(args.theirs[0], json.loads(args.theirs[1]), args.write, args.threads)
    from tokenizers import Tokenizer
    made = [in_format(args.danlu, folder, format_) for folder in args.folders for format_ in args.formats]
    for folder in args.folders + made:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokens = tokenizer.encode(TEXT * 11, add_special_tokens=False).ids[:512]
        text = tokenizer.decode(tokens, skip_special_tokens=False)

        def run(who, _):
            if who == "danlu":
                return ours(args.danlu, folder, text, args.write, args.threads, args.set)
            command = [sys.executable, __file__, "--theirs", str(folder / "model.gguf"), json.dumps(tokens), "--write", str(args.write),
                       "--threads", str(args.threads)]
            return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])

        found = take_turns(["danlu", "llama.cpp"], args.rounds, run, dict(model=folder.name), args.out)
        for what in ["prompt", "write"]:
            ratio = statistics.median(a[what] / b[what] for a, b in zip(*found.values()))
            print(f"{folder.name:20} {what:6}  " + "   ".join(f"{who} {median(rows, what):7.1f} tokens/s" for who, rows in found.items())
                  + f"   ratio_{what} {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
