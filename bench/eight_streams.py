"""Eight clients at once over HTTP: `danlu serve` against llama.cpp's `llama-server`, on the same GGUF file, in turns.

    danlu models pull smollm2
    python bench/eight_streams.py --danlu target/release/danlu --llama-server PATH/llama-server MODEL_FOLDER [--rounds 3] [--out bench/results/FILE.jsonl]

A folder holds `model.gguf` (`danlu models show smollm2` names it). Each round starts one server after the other, warms it with one short request, and
lets eight clients ask at the same moment, each with a text of its own of `--prompt` words, so that none begins like another's, and
`--write` tokens to be written greedily, whatever they say, in a stream. Counted are tokens that were written, from the moment they all ask
to the last token of the last; and for each client the time to the first piece of its answer. Both servers have two threads; what they print
goes to a file of its own beside the temporary files. Run it on a machine with nothing else to do.

Needs a `llama-server` that was built for this machine; no package of Python.
"""

import argparse
import http.client
import json
import pathlib
import socket
import statistics
import subprocess
import tempfile
import threading
import time

from turns import median, take_turns

WORDS = ("furnace elixir cinnabar bellows ember crucible mercury sulphur alchemist mountain river lantern copper silver ashes morning evening apprentice "
         "recipe vessel smoke master charcoal jade").split()


def text_of(client, words):
    """A text that no other client's begins like."""
    return " ".join(WORDS[(client * 7 + i * (client + 3) + i // 5) % len(WORDS)] for i in range(words))


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Server:
    """A server of its own process, until the end of the block."""

    def __init__(self, command, port, log, settings):
        self.port, self.log, self.settings = port, log, settings
        self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def __enter__(self):
        until = time.monotonic() + 120
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise SystemExit(f"the server left with {self.process.returncode}; what it said is in {self.log.name}")
            try:
                # llama-server answers while it is still loading, and says so.
                if ask(self.port, "Hello", 2, self.settings)["tokens"]:
                    return self
            except (OSError, http.client.HTTPException, Refused):
                pass
            time.sleep(0.1)
        self.__exit__()
        raise SystemExit(f"the server did not answer in two minutes; what it said is in {self.log.name}")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Refused(Exception):
    """An answer that is none."""


def ask(port, prompt, write, settings):
    """One stream of `/v1/completions`, read to its end: seconds to the first piece and to the last, and tokens written."""
    wanted = dict(prompt=prompt, max_tokens=write, temperature=0, stream=True, stream_options=dict(include_usage=True), **settings)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    began = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(wanted), {"content-type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise Refused(f"{answer.status}: {answer.read(1000)}")
    first, pieces, usage = None, 0, None
    for line in answer:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        event = json.loads(line[6:])
        if event.get("choices") and event["choices"][0].get("text"):
            pieces += 1
            first = first or time.perf_counter() - began
        usage = event.get("usage") or usage
    ended = time.perf_counter() - began
    connection.close()
    tokens = usage["completion_tokens"] if usage else pieces
    return dict(first=first, ended=ended, tokens=tokens, read=usage.get("prompt_tokens") if usage else None)


def together(port, prompts, write, settings):
    """All clients at once."""
    found, failed = [None] * len(prompts), []
    start = threading.Barrier(len(prompts) + 1)

    def client(i):
        start.wait()
        try:
            found[i] = ask(port, prompts[i], write, settings)
        except Exception as error:
            failed.append(f"client {i}: {error!r}")

    threads = [threading.Thread(target=client, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if failed:
        raise SystemExit("\n".join(failed))
    tokens, firsts = sum(row["tokens"] for row in found), [row["first"] for row in found]
    if None in firsts:
        raise SystemExit(f"an answer had no text: {found}")
    return dict(tokens_per_s=tokens / seconds, first_median=statistics.median(firsts), first_worst=max(firsts), seconds=seconds, tokens=tokens,
                read=[row["read"] for row in found])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--danlu", default="target/release/danlu")
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=128, help="words of each prompt")
    parser.add_argument("--write", type=int, default=96, help="tokens of each answer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out")
    parser.add_argument("--set", action="append", default=[], help="another argument of danlu serve, as --set=--kv=f32")
    args = parser.parse_args()
    name = args.folder.resolve().name
    # Answers go on to the number of tokens that is asked for, so that eight are written all the time.
    special = [token["id"] for token in json.loads((args.folder / "tokenizer.json").read_text())["added_tokens"] if token["special"]]
    settings = {"danlu": dict(model=name, logit_bias={str(token): -100 for token in special}), "llama.cpp": dict(model=name, ignore_eos=True)}
    logs = pathlib.Path(tempfile.mkdtemp(prefix="eight-streams-"))

    def run(who, round_):
        port = free_port()
        commands = {
            "danlu": [args.danlu, "serve", str(args.folder), "--port", str(port), "--no-studio", "--threads", str(args.threads), *args.set],
            # Each of its slots has a share of the context.
            "llama.cpp": [args.llama_server, "-m", str(args.folder / "model.gguf"), "--port", str(port), "-t", str(args.threads), "-tb",
                          str(args.threads), "-np", str(args.clients), "-cb", "-c", str(args.clients * 1024)],
        }
        prompts = [text_of(client, args.prompt) for client in range(args.clients)]
        with open(logs / f"{who}-{round_}.log", "w") as log, Server(commands[who], port, log, settings[who]):
            return together(port, prompts, args.write, settings[who])

    about = dict(model=name, clients=args.clients, write=args.write, threads=args.threads)
    found = take_turns(["danlu", "llama.cpp"], args.rounds, run, about, args.out)
    for who, rows in found.items():
        print(f"{who:10} {median(rows, 'tokens_per_s'):7.1f} tokens/s   first token {median(rows, 'first_median'):6.2f} s, "
              f"the last client's {median(rows, 'first_worst'):6.2f} s   {median(rows, 'tokens'):.0f} tokens written")
    ours, theirs = found.values()
    for what, key, asked in [("tokens/s", "tokens_per_s", "asked 2"), ("time to first token", "first_median", "asked at most 0.6"),
                             ("the last client's", "first_worst", "asked at most 0.6")]:
        ratios = [a[key] / b[key] for a, b in zip(ours, theirs)]
        print(f"{what}: {statistics.median(ratios):.2f} of llama.cpp's ({asked}; rounds {' '.join(f'{r:.2f}' for r in ratios)})")


if __name__ == "__main__":
    main()
