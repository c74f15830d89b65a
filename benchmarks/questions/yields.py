"""Yields: endpoints of FastAPI that yield, beside one that returns a generator, and beside fastapi.sse."""

from dataclasses import replace

from suite.answer import Answer, Setting, shown
from suite.contenders import BY_NAME, OUR_SOURCE, uvicorn
from suite.duel import duel

from questions import tokens

STYLES = {
    "returned texts": "sse_asgi, a generator of texts is returned",
    "texts": "sse_asgi, the endpoint yields texts",
    "fastapi texts": "fastapi.sse, it yields texts",
    "returned models": "sse_asgi, a generator of models is returned",
    "models": "sse_asgi, the endpoint yields models",
    "fastapi models": "fastapi.sse, it yields models",
}
SAME, OTHER = 1.15, 0.15


def run(setting: Setting) -> Answer:
    answer = Answer("yields", "Endpoints of FastAPI that yield")
    events = 200 if setting.quick else 2000
    plain = replace(BY_NAME["fastapi"], command=uvicorn("fastapi", "fastapi_yields"))
    contenders = [
        replace(plain, name=style, title=title, environment={**OUR_SOURCE, "STYLE": style})
        for style, title in STYLES.items()
    ]
    for kind, (rest, text) in tokens.KINDS.items():
        with replace(setting, only=("none",)).servers((), *contenders) as servers:
            turns = {server.name: tokens.turn(server, events, rest) for server in servers}
            rounds = answer.rounds[kind] = duel(f"yields: {kind}", setting.rounds, turns)
        answer.say(f"CPU of the server for each of {events:,} events in {tokens.STREAMS} streams. {text}")
        rows = [
            [title, shown(rounds.of(name, "us")), shown(rounds.ratio(name, f"returned {name.split()[-1]}", "us"))]
            for name, title in STYLES.items()
        ]
        answer.table(("endpoint", "µs", "÷ returned"), rows)
        for name in ("texts", "models"):
            for other, limit in (("returned", SAME), ("fastapi", OTHER)):
                ratio = rounds.ratio(name, f"{other} {name}", "us")
                answer.target(f"{name} ÷ {other} {name} where it {kind}", limit, ratio)
    return answer
