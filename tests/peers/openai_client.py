"""OpenAI's own Python client, unchanged, against `danlu serve`.

    danlu models pull smollm2
    python tests/peers/openai_client.py target/release/danlu smollm2

Starts the server on a free port and goes through what clients do. Needs: pip install openai.
"""

import json
import re
import subprocess
import sys
import threading
import time

import openai

program, model = sys.argv[1:3]
server = subprocess.Popen([program, "serve", model, "--port", "0"], stdout=subprocess.PIPE, text=True)
for line in server.stdout:
    print("|", line.rstrip())
    if found := re.search(r"http://[0-9.:]+", line):
        break
client = openai.OpenAI(base_url=f"{found[0]}/v1", api_key="none", max_retries=0)
messages = [
    {"role": "system", "content": "You answer in one short sentence."},
    {"role": "user", "content": "What is the capital of France?"},
]
greedy = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 40}


def heading(text):
    print(f"\n== {text}")


def refused(kind, **changes):
    try:
        client.chat.completions.create(**{**greedy, **changes})
    except kind as error:
        print(f"{error.status_code} {type(error).__name__}: {error.body['message'][:150]}")
        return error
    raise SystemExit(f"{changes} was not refused")


def metric(name):
    text = client._client.get(f"{found[0]}/metrics").text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name + "{"))


try:
    heading("models")
    print([one.id for one in client.models.list()])

    heading("chat")
    whole = client.chat.completions.create(**greedy)
    print(repr(whole.choices[0].message.content), whole.choices[0].finish_reason, whole.usage.to_dict())
    text = whole.choices[0].message.content
    assert "Paris" in text

    heading("streaming")
    pieces, usage = [], None
    for chunk in client.chat.completions.create(**greedy, stream=True, stream_options={"include_usage": True}):
        pieces += [choice.delta.content for choice in chunk.choices if choice.delta.content]
        usage = chunk.usage or usage
    print(len(pieces), "pieces", usage.to_dict())
    assert "".join(pieces) == text and usage.completion_tokens == whole.usage.completion_tokens
    with client.chat.completions.stream(**greedy) as stream:
        assert stream.get_final_completion().choices[0].message.content == text
    print("the client's own stream helper gives the same")

    heading("log-probabilities")
    answer = client.chat.completions.create(**greedy, logprobs=True, top_logprobs=3)
    tokens = answer.choices[0].logprobs.content
    for token in tokens[:4]:
        print(f"{token.token!r:12} {token.logprob:8.4f} ", [(t.token, round(t.logprob, 3)) for t in token.top_logprobs])
    assert bytes(b for token in tokens for b in token.bytes).decode() == text
    assert all(token.top_logprobs[0].logprob == token.logprob for token in tokens)

    heading("n, seed, penalties, stop")
    drawn = {**greedy, "temperature": 1.0, "seed": 5, "n": 3, "frequency_penalty": 0.3, "presence_penalty": 0.2, "top_p": 0.95}
    one, two = (client.chat.completions.create(**drawn) for _ in range(2))
    for a, b in zip(one.choices, two.choices):
        print(a.index, repr(a.message.content))
        assert a.message.content == b.message.content
    assert len({choice.message.content for choice in one.choices}) > 1
    stopped = client.chat.completions.create(**greedy, stop=["Paris"])
    print(repr(stopped.choices[0].message.content), stopped.choices[0].finish_reason)
    assert stopped.choices[0].message.content == text[: text.index("Paris")] and stopped.choices[0].finish_reason == "stop"

    heading("a text to go on with")
    completion = client.completions.create(model=model, prompt="The Roman Empire was", temperature=0, max_tokens=16, logprobs=2)
    print(repr(completion.choices[0].text), completion.choices[0].logprobs.token_logprobs[:3])

    heading("structured output")
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "country": {"type": "string"}, "population": {"type": "integer", "minimum": 0, "maximum": 10000000000}},
        "required": ["city", "country", "population"],
        "additionalProperties": False,
    }
    held = client.chat.completions.create(
        **{**greedy, "max_tokens": 120},
        response_format={"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": schema}},
    )
    print(held.choices[0].message.content)
    value = json.loads(held.choices[0].message.content)
    assert set(value) == {"city", "country", "population"} and isinstance(value["population"], int)

    heading("errors")
    assert refused(openai.NotFoundError, model="nobody").code == "model_not_found"
    long = refused(openai.BadRequestError, messages=[{"role": "user", "content": "word " * 20000}])
    assert long.code == "context_length_exceeded"
    refused(openai.BadRequestError, temperature=-1)
    refused(openai.BadRequestError, tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}])

    heading("cancel")
    stream = client.chat.completions.create(**{**greedy, "max_tokens": 2000, "logit_bias": {"2": -100, "0": -100}}, stream=True)
    next(iter(stream))
    running = metric("danlu_running")
    stream.close()
    began = time.monotonic()
    while metric("danlu_running") > 0:
        assert time.monotonic() - began < 30, "it goes on"
        time.sleep(0.01)
    print(f"{running:.0f} running, then none {time.monotonic() - began:.2f} s after the client closed; cancelled: {metric('danlu_cancelled_total'):.0f}")

    heading("eight at once")
    answers = {}

    def ask(i):
        answers[i] = client.chat.completions.create(**greedy).choices[0].message.content

    threads = [threading.Thread(target=ask, args=[i]) for i in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert list(answers.values()) == [text] * 8
    print("all eight are the answer that one alone gets")
finally:
    server.terminate()
    print("\n|", server.stdout.read().strip(), "| exit code", server.wait(60))
