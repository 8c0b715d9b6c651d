"""How soon danlu is there: its help, and a model that answers. Standard library only.

    python bench/start.py target/release/danlu smollm2 [--rounds 15]

Prints the median and the fastest of: `danlu --help`; from the start of `danlu serve MODEL` to the first `/health` that says ok; and to the first
token of an answer. The files are in the system's cache, since the first round is not counted. Ends with an error when the help takes 10 ms or more,
or the server 300 ms or more to be ready, by the median.
"""

import argparse
import json
import re
import statistics
import subprocess
import time
import urllib.request

parser = argparse.ArgumentParser()
parser.add_argument("danlu")
parser.add_argument("model")
parser.add_argument("--rounds", type=int, default=15)
args = parser.parse_args()


def timed(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def served():
    """Seconds until it is ready, and until the first token."""
    began = time.perf_counter()
    server = subprocess.Popen([args.danlu, "serve", args.model, "--port", "0", "--no-studio"], stdout=subprocess.PIPE, text=True)
    try:
        address = next(filter(None, (re.search(r"http://[0-9.]+:[0-9]+", line) for line in server.stdout))).group(0)
        assert json.load(urllib.request.urlopen(f"{address}/health"))["status"] == "ok"
        ready = time.perf_counter() - began
        body = {"model": args.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        request = urllib.request.Request(f"{address}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"})
        json.load(urllib.request.urlopen(request))
        return ready, time.perf_counter() - began
    finally:
        server.terminate()
        server.wait(60)


help_times = [timed(lambda: subprocess.run([args.danlu, "--help"], check=True, stdout=subprocess.DEVNULL)) for _ in range(args.rounds + 1)][1:]
ready, first = zip(*[served() for _ in range(args.rounds + 1)][1:])
for what, times in (("danlu --help", help_times), (f"{args.model} is ready", ready), ("its first token", first)):
    print(f"{what:24} {1e3 * statistics.median(times):7.1f} ms, at best {1e3 * min(times):7.1f} ms")
late = [what for what, times, most in (("the help", help_times, 0.01), ("the server", ready, 0.3)) if statistics.median(times) >= most]
if late:
    raise SystemExit(f"too slow: {' and '.join(late)}")
