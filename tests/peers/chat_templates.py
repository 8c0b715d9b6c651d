"""Compares the text that danlu writes with chat templates to that of `transformers.apply_chat_template`, byte for byte.

    cargo build --release -p danlu-data --example render_chats
    python tests/peers/chat_templates.py target/release/examples/render_chats [MODEL_FOLDER | TEMPLATE ...]

Templates: the real ones that TRL ships (Llama 3, Qwen, Gemma, Phi, DeepSeek, Cohere, GPT-OSS …), danlu's own, and those given.
Conversations: hand-made ones that templates are known to differ on, in every combination of a prompt for an answer and tools.
Where `transformers` raises an error, danlu must too; but where it is Python that cannot iterate over a content that is null, danlu writes
nothing for it.

Needs transformers and trl.
"""

import copy
import datetime
import json
import pathlib
import subprocess
import sys

import trl
from transformers.utils import chat_template_utils

ROOT = pathlib.Path(__file__).parents[2]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a city; \"now\" & <here>\n第二行",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "The city's name, e.g. São Paulo"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
        "days": {"type": "integer", "minimum": 1, "maximum": 14, "default": 1.0},
        "detail": {"type": "boolean", "default": False, "nullable": True},
        "place": {"type": "object", "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}}},
    }, "required": ["city"]}, "return": {"type": "string", "description": "A sentence"}}}
SEARCH = {"type": "function", "function": {"name": "search", "description": "Search", "parameters": {"type": "object", "properties": {}}}}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(name, arguments, id=None):
    made = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"id": id, **made} if id else made


SYSTEM = {"role": "system", "content": "You are terse."}
CALL = call("get_weather", {"city": "Zürich", "days": 2, "place": {"lat": 47.37, "lon": 8.5}, "detail": True, "unit": None}, "call12345")
CHATS = [
    [user("Hi")],
    [user("Hi"), assistant("Hello!")],
    [SYSTEM, user("Hi")],
    [SYSTEM, user("Hi"), assistant("Hello!"), user("How much is 2 + 2?"), assistant("4"), user("Sure?")],
    [SYSTEM, user("Hi"), assistant("Hello!"), user("How much is 2 + 2?"), assistant("4")],
    [user("  leading and trailing \n\n"), assistant("\n\n both \t ")],
    [user("你好，世界 👩‍👩‍👧 e\u0301 \u2028 \x1c"), assistant("Здравствуй, \"мир\" \\ </s> <|im_end|>")],
    [user(""), assistant("")],
    [user("{{ bos_token }} {% if x %}"), assistant("{# no comment #}")],
    [user("line\r\nother\rthird\n"), assistant("<think>\nsome thought\n</think>\n\nthe answer")],
    [user("1"), assistant("<think>a</think>b"), user("2"), assistant("<think>c</think>d"), user("3")],
    [user("Think."), assistant("Four.", reasoning_content="2 + 2\nis 4"), user("And?"), assistant("Five.", reasoning_content="4 + 1")],
    [SYSTEM, user("Weather?"), assistant(None, tool_calls=[CALL]), {"role": "tool", "content": "{\"sun\": true}", "tool_call_id": "call12345", "name": "get_weather"}, assistant("Sunny.")],
    [user("Weather?"), assistant("", tool_calls=[CALL]), {"role": "tool", "content": "rain", "tool_call_id": "call12345", "name": "get_weather"}],
    [user("Both?"), assistant("Let me see.", tool_calls=[CALL, call("search", {"q": ["a", 1, 2.5, 1e-7, 1e20, None, True]}, "call54321")]),
     {"role": "tool", "content": "rain", "tool_call_id": "call12345", "name": "get_weather"},
     {"role": "tool", "content": "found <b>&amp;</b>", "tool_call_id": "call54321", "name": "search"}, assistant("Rain."), user("Thanks")],
    [user("Weather?"), assistant(None, tool_calls=[call("get_weather", {})]), {"role": "tool", "content": "rain"}, assistant("Rain.")],
    [assistant("I begin."), user("Why?")],
    [user("a"), user("b")],
    [user("a"), SYSTEM, assistant("b")],
    [{"role": "developer", "content": "Be kind."}, user("Hi"), assistant("Hello")],
    [SYSTEM],
    [user("long " * 300), assistant("text\n" * 100)],
    [user("Hi"), assistant("Hello", tool_calls=[])],
]
TOOLS = [None, [WEATHER], [WEATHER, SEARCH]]
VARIABLES = [{}, {"enable_thinking": False}, {"enable_thinking": True}]


def templates(arguments):
    folder = pathlib.Path(trl.__file__).parent / "chat_templates"
    for path in sorted(folder.glob("*.jinja")):
        yield path.stem, path.read_text()
    yield "danlu chatml", (ROOT / "crates/danlu-data/src/chat/chatml.jinja").read_text()
    for argument in map(pathlib.Path, arguments):
        path = argument / "chat_template.jinja" if argument.is_dir() else argument
        yield str(argument), path.read_text()


class Clock(datetime.datetime):
    """The day that both sides are told."""

    @classmethod
    def now(cls, *_):
        return cls(2026, 3, 7, 9, 5, 3)


def main():
    chat_template_utils.datetime = Clock
    program, arguments = sys.argv[1], sys.argv[2:]
    cases, expected = [], []
    for name, template in templates(arguments):
        for chat in CHATS:
            for tools in TOOLS:
                for prompt in (False, True):
                    for variables in VARIABLES if "enable_thinking" in template else VARIABLES[:1]:
                        case = dict(template=template, variables={**TOKENS, **variables}, messages=chat, tools=tools,
                                    add_generation_prompt=prompt, date="2026-03-07T09:05:03")
                        cases.append((name, case))
                        try:
                            written, _ = chat_template_utils.render_jinja_template(
                                [copy.deepcopy(chat)], tools=copy.deepcopy(tools), chat_template=template,
                                add_generation_prompt=prompt, **TOKENS, **variables)
                            expected.append(written[0])
                        except Exception as error:
                            expected.append(error)
    # What `transformers` does to messages before a template sees them.
    lines = []
    for _, case in cases:
        messages = chat_template_utils._alias_reasoning_fields(case["messages"])
        lines.append(json.dumps({**case, "messages": messages}, ensure_ascii=False))
    output = subprocess.run([program], input="\n".join(lines), capture_output=True, text=True, check=True).stdout
    found = [json.loads(line) for line in output.split("\n") if line]
    assert len(found) == len(cases), (len(found), len(cases))
    wrong, raised, by_name = {}, 0, {}
    for (name, case), ours, theirs in zip(cases, found, expected):
        failed = isinstance(theirs, Exception)
        raised += failed
        none = isinstance(theirs, TypeError) and "'NoneType' object is not iterable" in str(theirs)
        same = none or isinstance(ours, dict) if failed else ours == theirs
        good, total = by_name.get(name, (0, 0))
        by_name[name] = (good + same, total + 1)
        if not same:
            wrong.setdefault(name, (case, ours, theirs))
    for name, (good, total) in by_name.items():
        if good < total:
            case, ours, theirs = wrong[name]
            print(f"{name}: {good} of {total} equal; first other:")
            print("  messages", json.dumps(case["messages"], ensure_ascii=False)[:300], "tools", bool(case["tools"]), "prompt", case["add_generation_prompt"])
            print("  danlu       ", repr(ours)[:600])
            print("  transformers", repr(theirs)[:600])
    good = sum(good for good, _ in by_name.values())
    print(f"{len(by_name)} templates, {len(CHATS)} conversations, {len(cases)} texts: {good} equal, of which {raised} are errors in both or in one")
    sys.exit(good < len(cases))


main()
