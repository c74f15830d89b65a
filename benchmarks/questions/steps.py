"""Steps: where the time goes from `hub.publish` to the socket of one reader, in memory and on Redis."""

import json
import urllib.request
from collections.abc import Callable
from dataclasses import replace

from suite.answer import Answer, Setting, shown
from suite.contenders import OUR_SOURCE, Contender, uvicorn
from suite.duel import Values, duel
from suite.environments import source_of
from suite.processes import Server

GAP = 0.002  # seconds between two events, in which the processor's caches are used by others


def contender(name: str, title: str, source: dict[str, str], *, redis: bool) -> Contender:
    return Contender(name, title, uvicorn("ours", "steps"), source, redis=redis)


def turn(server: Server, count: int) -> Callable[[], Values]:
    def take() -> Values:
        server.spent(count, gap=GAP)
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/steps", timeout=10) as answer:
            steps: Values = json.load(answer)
        return {**steps, "all": sum(steps.values())}

    return take


def run(setting: Setting) -> Answer:
    answer = Answer("steps", "The steps of a publish")
    kinds = [("memory", "", OUR_SOURCE)]
    if setting.before:
        kinds.append(("memory before", f" at {setting.before}", {"PYTHONPATH": str(source_of(setting.before))}))
    chosen = []
    for name, title, source in kinds:
        chosen.append(contender(name, f"memory{title}", source, redis=False))
        chosen.append(contender(name.replace("memory", "redis"), f"Redis{title}", source, redis=True))
    with replace(setting, before=None).servers((), *chosen) as servers:
        for server in servers:
            server.load.open(1)
        turns = {server.name: turn(server, 100 if setting.quick else 500) for server in servers}
        rounds = answer.rounds["steps"] = duel("steps", setting.rounds, turns)
        titles = [server.contender.title for server in servers]
    names = list(dict.fromkeys(step for name in rounds.names for step in rounds.rounds[0][name]))
    names.remove("all")
    answer.say(
        "Time in µs of each step from `hub.publish` to the socket of one reader, 2 ms apart, so that code and data are "
        "no longer in the processor's caches; taking the time is included:"
    )
    rows = [
        [step, *(shown(rounds.of(name, step), 1) if step in rounds.rounds[0][name] else "" for name in rounds.names)]
        for step in (*names, "all")
    ]
    answer.table(("step", *titles), rows)
    return answer
