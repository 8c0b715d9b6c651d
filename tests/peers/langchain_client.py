"""LangChain's clients, unchanged, against `danlu serve`: chat, streaming, tools, structured output and embeddings.

    danlu models pull smollm2
    danlu models pull minilm
    python tests/peers/langchain_client.py target/release/danlu smollm2 minilm

Starts the server on a free port. Needs: pip install langchain-openai.
"""

import re
import subprocess
import sys
from typing import Annotated

from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

program, model, encoder = sys.argv[1:4]
server = subprocess.Popen([program, "serve", model, encoder, "--port", "0"], stdout=subprocess.PIPE, text=True)
for line in server.stdout:
    print("|", line.rstrip())
    if found := re.search(r"http://[0-9.:]+", line):
        break
else:
    raise SystemExit("the server did not start")
at = {"base_url": f"{found[0]}/v1", "api_key": "none", "max_retries": 0}


def heading(text):
    print(f"\n== {text}")


@tool
def get_weather(city: Annotated[str, Field(max_length=30)], days: Annotated[int, Field(ge=1, le=14)]) -> str:
    """Get the weather in a city for some days."""
    return f"Sunny in {city} for {days} days."


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=30)
    country: str = Field(max_length=30)


try:
    chat = ChatOpenAI(model=model, temperature=0, max_tokens=200, **at)
    messages = [SystemMessage("You answer in one short sentence."), HumanMessage("What is the capital of France?")]

    heading("chat")
    answer = chat.invoke(messages)
    print(repr(answer.content), answer.usage_metadata)
    assert "Paris" in answer.content and answer.usage_metadata["output_tokens"] > 0

    heading("streaming")
    pieces = [piece.content for piece in chat.stream(messages)]
    print(len(pieces), "pieces")
    assert "".join(pieces) == answer.content

    heading("batch")
    assert [one.content for one in chat.batch([messages] * 4)] == [answer.content] * 4

    heading("tools")
    question = HumanMessage("What is the weather in Paris for the next 3 days?")
    free = chat.bind_tools([get_weather]).invoke([question])
    print("auto:", repr(free.content), free.tool_calls)
    asked = chat.bind_tools([get_weather], tool_choice="required").invoke([question])
    print("required:", asked.tool_calls)
    (call,) = asked.tool_calls
    assert call["name"] == "get_weather" and set(call["args"]) == {"city", "days"} and isinstance(call["args"]["days"], int)
    assert not asked.invalid_tool_calls
    whole = None
    for piece in chat.bind_tools([get_weather], tool_choice="get_weather").stream([question]):
        whole = piece if whole is None else whole + piece
    print("streamed:", whole.tool_calls)
    assert whole.tool_calls[0]["args"] == call["args"] and not whole.invalid_tool_calls
    result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
    print("after the call:", repr(chat.bind_tools([get_weather]).invoke([question, asked, result]).content))

    heading("structured output")
    for method in ("json_schema", "function_calling"):
        city = chat.with_structured_output(City, method=method).invoke("What is the capital of France?")
        print(method, repr(city))
        assert isinstance(city, City)

    heading("responses")
    responses = ChatOpenAI(model=model, temperature=0, max_tokens=200, use_responses_api=True, **at)
    said = responses.invoke(messages)
    print(said.content)
    assert said.text if isinstance(said.text, str) else said.text()
    called = responses.bind_tools([get_weather], tool_choice="required").invoke([question])
    assert called.tool_calls[0]["name"] == "get_weather"

    heading("embeddings")
    # The first sends texts; without that, OpenAI's tokens are sent, which are not this model's.
    embeddings = OpenAIEmbeddings(model=encoder, check_embedding_ctx_length=False, **at)
    cat, kitten, market = embeddings.embed_documents(["A cat sits on the mat.", "A kitten rests on the rug.", "The stock market fell today."])
    dot = lambda a, b: sum(x * y for x, y in zip(a, b))
    print(len(cat), "numbers; likeness", round(dot(cat, kitten), 3), round(dot(cat, market), 3))
    assert dot(cat, kitten) > dot(cat, market) + 0.2
    assert max(abs(a - b) for a, b in zip(embeddings.embed_query("A cat sits on the mat."), cat)) < 1e-5
finally:
    server.terminate()
    print("\n|", server.stdout.read().strip(), "| exit code", server.wait(60))
