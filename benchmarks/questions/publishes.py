"""Publishes: how many events a second one core of Redis stores and announces, measured by redis_backend.py."""

import re
from collections.abc import Callable

from suite.answer import Answer, Setting, shown
from suite.contenders import OUR_SOURCE
from suite.duel import Values, duel
from suite.environments import BENCHMARKS, environment, python, source_of
from suite.environments import run as run_program


def turn(source: str) -> Callable[[], Values]:
    """Return a function that publishes with the library in this folder."""
    command = python("ours"), BENCHMARKS / "redis_backend.py", "--rounds", "1", "--only", "capacity"

    def take() -> Values:
        printed = run_program(*command, env=environment(PYTHONPATH=source))
        cost = float(re.findall(r"at once: ([\d.]+) µs", printed)[0])
        return {"us": cost, "rate": 1e6 / cost}

    return take


def run(setting: Setting) -> Answer:
    answer = Answer("publishes", "Publishes of Redis")
    sources = {"sse_asgi": OUR_SOURCE["PYTHONPATH"]}
    if setting.before:
        sources[f"sse_asgi at {setting.before}"] = str(source_of(setting.before))
    turns = {title: turn(source) for title, source in sources.items()}
    rounds = answer.rounds["publishes"] = duel("publishes", setting.rounds, turns)
    answer.say("CPU of Redis for each event of 200 bytes that it keeps and announces, 50 at once, 1,000 channels:")
    rows = [
        [
            title,
            shown(rounds.of(title, "us")),
            shown(rounds.of(title, "rate"), 0),
            shown(rounds.ratio(title, "sse_asgi", "us")),
        ]
        for title in rounds.names
    ]
    answer.table(("contender", "µs", "events a second on one core", "÷ sse_asgi"), rows)
    return answer
