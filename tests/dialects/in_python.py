"""The clients of PyPI: `python -m dialects.in_python URL SCENARIO,...`.

Each client reads each scenario as its own documentation says. For each of them one line of JSON is printed: the client,
the scenario, the text that its user has, the class of the exception that was raised, and its message.
"""

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import anthropic
import openai


def with_openai(base: str) -> Iterator[str]:
    client = openai.OpenAI(base_url=base, api_key="x", max_retries=0)
    for chunk in client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True):
        yield chunk.choices[0].delta.content or ""


def with_anthropic(base: str) -> Iterator[str]:
    client = anthropic.Anthropic(base_url=base, api_key="x", max_retries=0)
    with client.messages.stream(max_tokens=9, model="m", messages=[{"role": "user", "content": "x"}]) as stream:
        yield from stream.text_stream


CLIENTS: dict[str, tuple[str, Callable[[str], Iterator[str]]]] = {
    "openai of PyPI": ("openai", with_openai),
    "anthropic of PyPI": ("anthropic", with_anthropic),
}


def read(base: str, name: str, scenario: str) -> list[str | None]:
    protocol, client = CLIENTS[name]
    seen = ""
    try:
        for piece in client(f"{base}/{protocol}/{scenario}/"):
            seen += piece
    except Exception as error:  # noqa: BLE001 - whatever the client raises is the result
        return [name, scenario, seen, type(error).__name__, str(error)]
    return [name, scenario, seen, None, None]


def main(base: str, scenarios: str) -> None:
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(read, base, name, scenario) for name in CLIENTS for scenario in scenarios.split(",")]
        for one in asked:
            print(json.dumps(one.result()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
