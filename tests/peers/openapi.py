"""The server held to its own OpenAPI document by schemathesis (`pip install schemathesis`), without keys and with one.

    python tests/peers/openapi.py target/release/danlu MODEL_FOLDER [--examples 40] [--seed 1]

A small model does, such as one that `danlu up --minutes 0.2` makes: how well it writes is not looked at, and each answer may fill its context. Every
answer must have a documented status, content type and form, pieces of streams included; what the document forbids must be refused; methods that it
does not name, too; nothing is a fault of the server; and without its key nothing is answered.

What the document allows must be taken. A schema cannot say everything, though: requests that are refused for one of `REASONS` are counted and fine.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

REASONS = [
    "only the assistant's can",  # calls in a message of somebody else
    "a call is required, and there are no tools", "no function among the tools is called", "two functions are called",
    "an answer cannot be both free to call tools and of one format",
    "top_logprobs needs logprobs", "n must be from 1 to",
    "is outside the model's vocabulary",  # a key of logit_bias; other tokens have their bounds in the document
    "and the model's context", "and the model reads at most",  # a long prompt; a model made in seconds has a short context
    "a text without tokens has no embedding",
    "cannot be followed",  # a schema or an expression that nothing matches
    "the chat template",
]
COUNTS = "DANLU_OPENAPI_COUNTS"


def register():
    """schemathesis imports this file for its checks."""
    import schemathesis

    @schemathesis.check
    def allowed_requests_are_taken(ctx, response, case):
        positive = case.meta is not None and case.meta.generation.mode.value == "positive"
        if not positive or response.status_code != 400:
            return
        message = response.json()["error"]["message"]
        reason = next((reason for reason in REASONS if reason in message), None)
        assert reason, f"the document allows it, and it was refused: {message}"
        with open(os.environ[COUNTS], "a") as file:
            file.write(reason + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("danlu")
    parser.add_argument("model")
    parser.add_argument("--examples", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="danlu-openapi-") as folder:
        keys = str(pathlib.Path(folder, "keys"))
        make = [args.danlu, "serve", "--api-key-file", keys, "--new-api-key", "tester"]
        key = subprocess.run(make, capture_output=True, text=True, check=True).stdout.strip()
        failed = [how for how, options, header in (
            ("without keys", [], []),
            ("with a key", ["--api-key-file", keys], ["-H", f"Authorization: Bearer {key}"]),
        ) if not holds(args, folder, how, options, header)]
    if failed:
        raise SystemExit(f"it does not hold {' and '.join(failed)}")
    print("all holds")


def holds(args, folder, how, options, header):
    print(f"\n== {how}", flush=True)
    environment = {**os.environ, "DANLU_HOME": folder}
    command = [args.danlu, "serve", str(pathlib.Path(args.model).resolve()), "--port", "0", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        address = next(filter(None, (re.search(r"http://[0-9.]+:[0-9]+", line) for line in server.stdout))).group(0)
        counts = pathlib.Path(folder, "counts")
        counts.write_text("")
        here = pathlib.Path(__file__).resolve()
        run = subprocess.run(
            [str(pathlib.Path(sys.executable).parent / "schemathesis"), "run", f"{address}/openapi.json", "--phases", "coverage,fuzzing",
             "--max-examples", str(args.examples), "--seed", str(args.seed), "--continue-on-failure", "--suppress-health-check", "all",
             "--exclude-checks", "positive_data_acceptance", "--request-timeout", "120", "--warnings", "off", *header],
            env={**environment, "SCHEMATHESIS_HOOKS": here.stem, "PYTHONPATH": str(here.parent), COUNTS: str(counts)}, cwd=folder,
        )
        print("refused for what no schema says:", json.dumps(collections.Counter(counts.read_text().splitlines()), indent=2))
        assert server.poll() is None, "the server is gone"
        return run.returncode == 0
    finally:
        server.terminate()
        server.wait(120)


if __name__ == "__main__":
    main()
else:
    register()
