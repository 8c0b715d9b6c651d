"""Tokens per second of one stream, reading a prompt and writing: danlu in blocks against llama.cpp on the same GGUF file, interleaved.

    danlu models pull smollm2
    python bench/one_stream.py --danlu target/release/danlu MODEL_FOLDER… [--formats q8_0 q4_0] [--rounds 5] [--out bench/results/FILE.jsonl]

A folder holds `model.gguf` (`danlu models show smollm2` names it). With `--formats` each model is also measured in these, as
`danlu models quantize` makes them; they stay in the home that the folder lies in, as models of their own, and are not made again. Both read a prompt
of about 512 tokens and write 128 more, greedily, on two threads, each run a process of its own, by turns. Times are each program's own:
`danlu generate --json`, and llama.cpp's performance counters, so that Python costs it nothing. Run it on a machine with nothing else to do:
llama.cpp's threads wait for each other by spinning. Needs llama-cpp-python, built for this machine, tokenizers, and a C compiler for `peaks.c`,
which tells what the machine could do at most: shares are of its multiply-adds for a prompt, of the memory it reads for writing.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

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


def peaks(threads):
    """Multiply-adds and memory of this machine at their best, as `peaks.c` measures them now."""
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/peaks"
        subprocess.run(["cc", "-O3", "-march=native", "-pthread", pathlib.Path(__file__).with_name("peaks.c"), "-o", program], check=True)
        return json.loads(subprocess.run([program, str(threads)], check=True, capture_output=True, text=True).stdout)


def needs(folder, tokens, write):
    """What a model of the Llama kind takes at least: operations for a token of the prompt (2 for each weight that multiplies it; the output layer
    is needed for the last token only) and bytes for a token written (the file's, and the keys and values of two bytes that stand before it)."""
    config = json.loads((folder / "config.json").read_text())
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    width = config.get("head_dim", hidden // config["num_attention_heads"])
    keys = width * config["num_key_value_heads"]
    layer = hidden * (2 * width * config["num_attention_heads"] + 2 * keys + 3 * config["intermediate_size"])
    return 2 * layers * layer, (folder / "model.gguf").stat().st_size + (tokens + write // 2) * layers * 2 * keys * 2


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
        best, (operations, bytes_) = peaks(args.threads), needs(folder, len(tokens), args.write)
        shares = {"prompt": operations / best["fma_gflops"] / 1e9, "write": bytes_ / best["read_gb_s"] / 1e9}
        print(f"{folder.name:20} at most {best['fma_gflops']} GFLOP/s and {best['read_gb_s']} GB/s; a token of the prompt takes {operations / 1e9:.3f} GFLOP, one written {bytes_ / 1e6:.1f} MB")
        for what in ["prompt", "write"]:
            ratio = statistics.median(a[what] / b[what] for a, b in zip(*found.values()))
            print(f"{folder.name:20} {what:6}  " + "   ".join(f"{who} {median(rows, what):7.1f} tokens/s ({median(rows, what) * shares[what]:.0%})" for who, rows in found.items())
                  + f"   ratio_{what} {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
