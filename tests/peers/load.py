"""`danlu serve` under many clients, of which few behave. Standard library only.

    python tests/peers/load.py target/release/danlu ~/.danlu/models/smollm2@1 [--minutes 10] [--clients 64] [--seed 1]

Serves the model with a short queue from a home of its own and lets clients ask for some minutes at once: whole answers and streamed ones, some read
slowly, some left in the middle or before they begin, bodies that are no requests, prompts that do not fit. Checked:

- every answer that was finished is the one that its question got when it was asked alone, to the letter;
- what is wrong is refused with a reason, and who comes when the queue is full gets 429 with Retry-After; no request fails;
- the queue stays within its bound, and at the end nothing runs or waits and only kept prompts hold pages;
- memory does not grow: the most of the last half is at most 5 % above that of the first, in which it is taken; a minute is too short for it.

Then the studio: conversations are held by several clients, the server is killed with SIGKILL in the middle of them, and after a new start every
question and every answer that a client was told is kept must be there. Ends with an error at the first check that does not hold.
"""

import argparse
import collections
import http.client
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import tempfile
import threading
import time

parser = argparse.ArgumentParser()
parser.add_argument("danlu")
parser.add_argument("model")
parser.add_argument("--minutes", type=float, default=10)
parser.add_argument("--clients", type=int, default=64)
parser.add_argument("--kills", type=int, default=3)
parser.add_argument("--seed", type=int, default=1)
args = parser.parse_args()

WIDTH, QUEUE = 8, 16
QUESTIONS = [
    "What is the capital of France?", "Name three colours.", "How many legs has a spider?", "What is the opposite of hot?",
    "Write one sentence about the sea.", "Who wrote Hamlet?", "What is 2 + 2?", "Say hello in Spanish.",
    "Why is the sky blue? " * 12, "Repeat after me: one, two, three.", "List the days of the week.", "What do bees make?",
]
home = tempfile.TemporaryDirectory(prefix="danlu-load-")
model = str(pathlib.Path(args.model).resolve())
name = pathlib.Path(model).name


class Server:
    def __init__(self):
        command = [args.danlu, "serve", model, "--port", "0", "--width", str(WIDTH), "--queue", str(QUEUE)]
        environment = {**os.environ, "DANLU_HOME": home.name}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for line in self.process.stdout:
            found = re.search(r"http://([0-9.]+):([0-9]+)", line)
            if found:
                self.host, self.port = found.group(1), int(found.group(2))
                return
        raise SystemExit("the server did not start")

    def open(self, method, path, body=None, **headers):
        """A connection whose answer has begun, and the answer."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=600)
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        connection.request(method, path, body, {"content-type": "application/json", "x-danlu-studio": "1", **headers})
        return connection, connection.getresponse()

    def ask(self, method, path, body=None, **headers):
        connection, answer = self.open(method, path, body, **headers)
        with connection:
            return answer.status, answer.headers, answer.read()

    def json(self, method, path, body=None):
        status, _, text = self.ask(method, path, body)
        assert status == 200, (method, path, status, text[:300])
        return json.loads(text)

    def measure(self, what):
        text = self.ask("GET", "/metrics")[2].decode()
        lines = [line for line in text.splitlines() if re.match(rf"{what}({{|\s)", line)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def resident(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise SystemExit("the server is gone")


# http.client's connections close, but are no context managers.
http.client.HTTPConnection.__enter__ = lambda self: self
http.client.HTTPConnection.__exit__ = lambda self, *_: self.close()


def chat(question, tokens, **more):
    return {"model": name, "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": tokens, **more}


def text(question, tokens, **more):
    return {"model": name, "prompt": question, "temperature": 0, "max_tokens": tokens, **more}


KINDS = {
    "chat": ("/v1/chat/completions", chat, lambda answer: answer["choices"][0]["message"]["content"]),
    "text": ("/v1/completions", text, lambda answer: answer["choices"][0]["text"]),
}
MALFORMED = [
    ("{", 400), ("[]", 400), ("", 400), ('{"model": 3}', 400), (json.dumps(chat("a", -1)), 400), (json.dumps(chat("a", 1, temperature=-1)), 400),
    (json.dumps({**chat("a", 1), "model": "nobody"}), 404), (json.dumps(chat("a", 1, nonsense=1)), 400), (b"\xff\xfe\x00", 400),
]


def pieces(answer, wait=0.0):
    """The texts of a streamed answer, and whether it was ended."""
    for line in answer:
        if wait:
            time.sleep(wait)
        line = line.strip()
        if line == b"data: [DONE]":
            return
        if line.startswith(b"data: "):
            event = json.loads(line[6:])
            assert "error" not in event, event
            for choice in event["choices"]:
                yield choice["text"] if "text" in choice else choice["delta"].get("content") or ""
    raise AssertionError("a stream was not ended")


class Client(threading.Thread):
    def __init__(self, server, alone, number, until, counts, problems):
        super().__init__(daemon=True)
        self.server, self.alone, self.until, self.counts, self.problems = server, alone, until, counts, problems
        self.random = random.Random(args.seed * 1000 + number)

    def run(self):
        try:
            while time.monotonic() < self.until and not self.problems:
                self.one()
        except Exception as problem:  # noqa: BLE001 - whatever it was ends the test
            self.problems.append(f"{type(problem).__name__}: {problem}")

    def one(self):
        draw = self.random
        what = draw.choices(["whole", "stream", "slow", "left", "gone", "malformed", "oversize"], [40, 20, 5, 15, 5, 10, 5])[0]
        self.counts[what] += 1
        if what == "malformed":
            body, status = draw.choice(MALFORMED)
            got, _, answer = self.server.ask("POST", "/v1/chat/completions", body)
            assert got == status and json.loads(answer)["error"]["message"], (body, got, answer[:200])
            return
        if what == "oversize":
            got, _, answer = self.server.ask("POST", "/v1/chat/completions", chat("word " * 40_000, 4))
            assert got == 400 and json.loads(answer)["error"]["code"] == "context_length_exceeded", (got, answer[:200])
            return
        key = draw.choice(list(self.alone))
        kind, question, tokens = key
        path, make, read = KINDS[kind]
        connection, answer = self.begin(path, make(question, tokens, stream=what != "whole"), what == "gone")
        if answer is None:
            return
        with connection:
            if answer.status == 429:
                wait = int(answer.headers["retry-after"])
                assert 1 <= wait <= 60, wait
                answer.read()
                self.counts["told to wait"] += 1
                time.sleep(min(wait, max(self.until - time.monotonic(), 0)))
                return
            assert answer.status == 200, (answer.status, answer.read()[:300])
            if what == "left":
                for _ in range(draw.randrange(1, 12)):
                    answer.readline()
                return
            said = read(json.loads(answer.read())) if what == "whole" else "".join(pieces(answer, 0.05 if what == "slow" else 0))
            assert said == self.alone[key], f"{key} alone: {self.alone[key]!r}; in company: {said!r}"
            self.counts["answers compared"] += 1

    def begin(self, path, body, goes):
        if not goes:
            return self.server.open("POST", path, body)
        connection = http.client.HTTPConnection(self.server.host, self.server.port, timeout=600)
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        time.sleep(self.random.random() * 0.2)
        connection.close()
        return connection, None


def settled(server):
    """Kept tokens and pages, once nothing runs. An answer has come a moment before its pages are free."""
    began, before = time.monotonic(), None
    while True:
        assert time.monotonic() - began < 60, "something goes on that nobody asked for"
        busy = server.measure("danlu_running") + server.measure("danlu_waiting")
        now = server.measure("danlu_kept_tokens"), server.measure("danlu_pages")
        if not busy and now == before:
            return now
        before = now
        time.sleep(0.5)


def load(server):
    alone = {}
    for question in QUESTIONS:
        for kind, tokens in (("chat", 8), ("chat", 24), ("text", 16)):
            path, make, read = KINDS[kind]
            alone[kind, question, tokens] = read(server.json("POST", path, make(question, tokens)))
    # Prompts that were read are kept in whole pages, and so many for each token.
    kept, pages = settled(server)
    assert kept > 0 and pages > 0, (kept, pages)
    each = pages / kept
    print(f"{len(alone)} answers alone; {kept:.0f} tokens kept in {pages:.0f} pages", flush=True)

    began = time.monotonic()
    until = began + 60 * args.minutes
    counts, problems = collections.Counter(), []
    clients = [Client(server, alone, number, until, counts, problems) for number in range(args.clients)]
    [client.start() for client in clients]
    memory, waiting = [], 0.0
    while time.monotonic() < until and not problems:
        time.sleep(min(1, 60 * args.minutes / 20))
        memory.append((time.monotonic() - began, server.resident()))
        waiting = max(waiting, server.measure("danlu_waiting"))
    [client.join(600) for client in clients]
    print(dict(counts))
    assert not problems, problems[0]
    assert counts["told to wait"] > 0, "nobody was told to wait: more clients, or a shorter queue"
    assert counts["answers compared"] > 0
    assert waiting <= QUEUE, f"{waiting:.0f} waited; the queue has room for {QUEUE}"

    kept, pages = settled(server)
    print(f"at the end {kept:.0f} tokens are kept in {pages:.0f} pages; at most {waiting:.0f} waited")
    assert pages == each * kept, f"{pages:.0f} pages for {kept:.0f} kept tokens; {each * kept:.0f} are right"
    assert server.measure("danlu_failures_total") == 0
    quarters = [max(size for at, size in memory if at * 4 // memory[-1][0] in parts) for parts in ([0], [1], [2, 3, 4])]
    print("memory: at most", ", ".join(f"{size / 1e6:.0f}" for size in quarters), "MB in the first quarter, the second and the last half")
    assert quarters[2] <= 1.05 * max(quarters[:2]), "memory grows"


class Talker(threading.Thread):
    """Holds a conversation in the studio, and remembers what it was told is kept."""

    def __init__(self, server, number):
        super().__init__(daemon=True)
        self.server, self.number, self.kept, self.conversation = server, number, [], None

    def run(self):
        try:
            self.conversation = self.server.json("POST", "/studio/conversations", {"title": f"talk {self.number}"})["id"]
            parent = None
            for turn in range(1000):
                content = f"{QUESTIONS[(self.number + turn) % len(QUESTIONS)]} ({turn})"
                question = self.server.json("POST", f"/studio/conversations/{self.conversation}/messages", {"parent": parent, "content": content})
                self.kept.append(question)
                parent = self.answer(question["id"])
        except (OSError, http.client.HTTPException, ValueError):
            pass  # the server was killed

    def answer(self, question):
        body = {"parent": question, "model": name, "temperature": 0, "max_tokens": 6}
        connection, answer = self.server.open("POST", f"/studio/conversations/{self.conversation}/answers", body)
        with connection:
            for line in answer:
                message = json.loads(line[6:]).get("message") if line.startswith(b"data: ") else None
                if message and message["finish"]:
                    self.kept.append(message)
                    return message["id"]
        raise OSError("the answer was not ended")


def kills():
    draw = random.Random(args.seed)
    kept = lost = 0
    for _ in range(args.kills):
        server = Server()
        talkers = [Talker(server, number) for number in range(4)]
        [talker.start() for talker in talkers]
        time.sleep(3 + 4 * draw.random())
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        [talker.join(60) for talker in talkers]
        server = Server()
        try:
            for talker in talkers:
                assert talker.kept, "a conversation never began; the server is too slow for this test"
                found = {one["id"]: one for one in server.json("GET", f"/studio/conversations/{talker.conversation}")["messages"]}
                for message in talker.kept:
                    assert found.get(message["id"]) == message, (message, found.get(message["id"]))
                kept += len(talker.kept)
                lost += sum(one["finish"] == "lost" for one in found.values())
                assert all(one["role"] == "user" or one["finish"] for one in found.values())
        finally:
            server.process.terminate()
            server.process.wait(60)
    print(f"{args.kills} times killed: {kept} messages kept, all there; {lost} answers that were being written are marked as lost")


server = Server()
try:
    load(server)
finally:
    server.process.terminate()
    server.process.wait(120)
kills()
print("all holds")
