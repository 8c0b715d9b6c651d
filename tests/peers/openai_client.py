"""OpenAI's own Python client, unchanged, against `danlu serve`.

    danlu models pull smollm2
    danlu models pull minilm
    python tests/peers/openai_client.py target/release/danlu smollm2 minilm [~/.danlu/models/minilm@1]

Starts the server on a free port and goes through what clients do; without an encoder, embeddings are the decoder's. With the encoder's folder,
and torch and transformers installed, embeddings are compared with theirs. Needs: pip install openai.
"""

import base64
import json
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time

import openai

program, model = sys.argv[1:3]
encoder = sys.argv[3] if len(sys.argv) > 3 else None
encoder_folder = sys.argv[4] if len(sys.argv) > 4 else None


def serve(*arguments):
    server = subprocess.Popen([program, "serve", *arguments, "--port", "0"], stdout=subprocess.PIPE, text=True)
    for line in server.stdout:
        print("|", line.rstrip())
        if found := re.search(r"http://[0-9.:]+", line):
            return server, found
    raise SystemExit("the server did not start")


server, found = serve(model, *([encoder] if encoder else []))
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
    refused(openai.BadRequestError, tools=[{"type": "function", "function": {"name": "not a name", "parameters": {}}}])
    refused(openai.BadRequestError, tool_choice="required")

    heading("tools")
    weather = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather in a city.",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "maxLength": 30},
                    "unit": {"enum": ["celsius", "fahrenheit"]},
                    "days": {"type": "integer", "minimum": 1, "maximum": 7},
                },
                "required": ["city", "unit", "days"],
                "additionalProperties": False,
            },
        },
    }
    nothing = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    clock = {"type": "function", "function": {"name": "get_time", "description": "Get the time.", "strict": True, "parameters": nothing}}
    asking = {**greedy, "messages": [{"role": "user", "content": "What is the weather in Paris? Use celsius."}], "max_tokens": 200}
    tools = {**asking, "tools": [weather, clock]}

    def check_call(name, arguments):
        value = json.loads(arguments)
        print(name, value)
        if name == "get_weather":
            assert set(value) == {"city", "unit", "days"} and value["unit"] in ("celsius", "fahrenheit") and 1 <= value["days"] <= 7
        else:
            assert name == "get_time" and value == {}

    free = client.chat.completions.create(**tools).choices[0]
    print("auto:", free.finish_reason, repr(free.message.content), free.message.tool_calls)
    assert (free.finish_reason == "tool_calls") == bool(free.message.tool_calls)
    for seed in range(5):
        drawn = client.chat.completions.create(**{**tools, "temperature": 1.2, "seed": seed}, tool_choice="required").choices[0]
        assert drawn.finish_reason == "tool_calls" and drawn.message.content is None
        check_call(drawn.message.tool_calls[0].function.name, drawn.message.tool_calls[0].function.arguments)
    named = {**tools, "tool_choice": {"type": "function", "function": {"name": "get_weather"}}}
    call = client.chat.completions.create(**named).choices[0].message.tool_calls[0]
    check_call(call.function.name, call.function.arguments)
    with client.chat.completions.stream(**named) as stream:
        events = [event for event in stream]
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls" and final.message.tool_calls[0].function.arguments == call.function.arguments
    parts = [event for event in events if event.type == "tool_calls.function.arguments.delta"]
    print(len(parts), "pieces of arguments")
    assert len(parts) > 3
    turn = asking["messages"] + [
        {"role": "assistant", "content": None, "tool_calls": [call.to_dict()]},
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 21 degrees celsius."},
    ]
    print("after the call:", repr(client.chat.completions.create(**{**tools, "messages": turn, "max_tokens": 60}).choices[0].message.content))

    heading("responses")
    asked = {"model": model, "input": "What is the capital of France?", "temperature": 0, "max_output_tokens": 40}
    response = client.responses.create(**asked, instructions="You answer in one short sentence.")
    print(response.status, repr(response.output_text), response.usage.to_dict())
    assert response.output_text == text
    pieces, last = "", None
    with client.responses.create(**asked, instructions="You answer in one short sentence.", stream=True) as stream:
        for event in stream:
            pieces += event.delta if event.type == "response.output_text.delta" else ""
            last = event
    assert pieces == text and last.type == "response.completed" and last.response.output_text == text
    with client.responses.stream(**asked, instructions="You answer in one short sentence.") as stream:
        stream.until_done()
        assert stream.get_final_response().output_text == text
    held = client.responses.create(
        **{**asked, "max_output_tokens": 120}, text={"format": {"type": "json_schema", "name": "city", "strict": True, "schema": schema}}
    )
    print(held.output_text)
    assert set(json.loads(held.output_text)) == {"city", "country", "population"}
    function = {"type": "function", **weather["function"]}
    called = client.responses.create(**{**asked, "max_output_tokens": 200}, tools=[function], tool_choice="required").output[0]
    check_call(called.name, called.arguments)
    again = [{"role": "user", "content": asked["input"]}, called.to_dict(), {"type": "function_call_output", "call_id": called.call_id, "output": "Sunny."}]
    print(repr(client.responses.create(**{**asked, "input": again}, tools=[function]).output_text))
    for wrong in ({"previous_response_id": "resp_1"}, {"background": True}, {"truncation": "auto"}):
        try:
            client.responses.create(**asked, **wrong)
        except openai.BadRequestError as error:
            print(error.status_code, error.body["message"][:120])
        else:
            raise SystemExit(f"{wrong} was not refused")

    heading("embeddings")
    texts = ["A cat sits on the mat.", "A kitten rests on the rug.", "The stock market fell by three percent today."]
    embedder = encoder or model
    made = client.embeddings.create(model=embedder, input=texts, encoding_format="float")
    vectors = [one.embedding for one in made.data]
    dot = lambda a, b: sum(x * y for x, y in zip(a, b))
    print(len(vectors[0]), "numbers;", made.usage.to_dict(), "likeness", [round(dot(vectors[0], other), 3) for other in vectors[1:]])
    assert all(abs(dot(vector, vector) - 1) < 1e-5 for vector in vectors)
    assert not encoder or dot(vectors[0], vectors[1]) > dot(vectors[0], vectors[2]) + 0.2
    # The client asks for base64 when no format is named, and reads it.
    default = [one.embedding for one in client.embeddings.create(model=embedder, input=texts).data]
    assert max(abs(a - b) for x, y in zip(vectors, default) for a, b in zip(x, y)) < 1e-7
    raw = client.embeddings.create(model=embedder, input=texts[0], encoding_format="base64").data[0].embedding
    assert list(struct.unpack(f"<{len(vectors[0])}f", base64.b64decode(raw)))[:8] == default[0][:8]
    short = client.embeddings.create(model=embedder, input=texts[0], dimensions=64).data[0].embedding
    assert len(short) == 64 and abs(dot(short, short) - 1) < 1e-5
    for wrong in ({"input": "word " * 9000}, {"input": ""}, {"input": "a", "dimensions": 100000}):
        try:
            client.embeddings.create(model=embedder, **wrong)
        except openai.BadRequestError as error:
            print(error.status_code, error.body["message"][:120])
        else:
            raise SystemExit(f"{str(wrong)[:40]} was not refused")
    if encoder_folder:
        try:
            import torch
            from transformers import AutoModel, AutoTokenizer
        except ImportError:
            print("no torch here: not compared with transformers")
        else:
            tokenizer, theirs = AutoTokenizer.from_pretrained(encoder_folder), AutoModel.from_pretrained(encoder_folder).eval()
            worst = 0.0
            for one, vector in zip(texts, vectors):
                with torch.no_grad():
                    states = theirs(**tokenizer(one, return_tensors="pt")).last_hidden_state[0]
                unit = torch.nn.functional.normalize(states.mean(0), dim=0)
                worst = max(worst, (unit - torch.tensor(vector)).abs().max().item())
            print(f"at most {worst:.1e} from transformers' mean pooling")
            assert worst < 1e-4

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

heading("keys and rates")
with tempfile.TemporaryDirectory() as folder:
    keys = str(pathlib.Path(folder, "keys"))
    make = [program, "serve", "--api-key-file", keys, "--new-api-key"]
    key = lambda *arguments: subprocess.run([*make, *arguments], capture_output=True, text=True, check=True).stdout.strip()
    slow, free = key("slow", "--requests-per-minute", "2", "--tokens-per-minute", "100000"), key("free")
    server, found = serve(model, "--api-key-file", keys)
    try:
        one = {**greedy, "max_tokens": 2}
        limited = openai.OpenAI(base_url=f"{found[0]}/v1", api_key=slow, max_retries=0)
        for _ in range(2):
            limited.chat.completions.create(**one)
        try:
            limited.chat.completions.create(**one)
        except openai.RateLimitError as error:
            print(error.status_code, error.body["message"], "| Retry-After", error.response.headers["retry-after"])
            assert 1 <= int(error.response.headers["retry-after"]) <= 30
        else:
            raise SystemExit("the third request was let in")
        unlimited = openai.OpenAI(base_url=f"{found[0]}/v1", api_key=free, max_retries=0)
        for _ in range(4):
            unlimited.chat.completions.create(**one)
        try:
            openai.OpenAI(base_url=f"{found[0]}/v1", api_key="wrong", max_retries=0).models.list()
        except openai.AuthenticationError as error:
            print(error.status_code, error.body["message"])
        else:
            raise SystemExit("a wrong key was let in")
    finally:
        server.terminate()
        print("|", server.stdout.read().strip(), "| exit code", server.wait(60))
