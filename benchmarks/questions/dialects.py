"""Dialects: parts in a dialect beside plain data, in process; a stream passed on beside raw ASGI, on uvicorn."""

import contextlib
import subprocess
from collections.abc import Callable

from suite.answer import Answer, Setting, shown, variant
from suite.contenders import OUR_SOURCE
from suite.duel import Values, duel
from suite.environments import CONTENDERS, environment, python
from suite.processes import SERVER_CORE, ended, pinned

from questions import tokens

WAYS = {"plain": "dicts as plain data", "dialect": "dicts in AI_SDK"}


def turn(name: str, stack: contextlib.ExitStack) -> Callable[[], Values]:
    command = (python("ours"), CONTENDERS / "dialect_worker.py", name)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = pinned(SERVER_CORE, *command, env=environment(**OUR_SOURCE), **pipes)
    stack.enter_context(ended(process))

    def take() -> Values:
        process.stdin.write("stream\n")
        process.stdin.flush()
        return {"ns": float(process.stdout.readline())}

    return take


def run(setting: Setting) -> Answer:
    answer = Answer("dialects", "Dialects")
    with contextlib.ExitStack() as stack:
        rounds = answer.rounds["dialect"] = duel("dialect", setting.rounds, {name: turn(name, stack) for name in WAYS})
    answer.say("CPU in ns for each item of 20 streams, without a server:")
    answer.table(("stream", "ns"), [[title, shown(rounds.of(name, "ns"), 0)] for name, title in WAYS.items()])
    answer.target("a dialect ÷ plain data", 1.1, rounds.ratio("dialect", "plain", "ns"))
    events = 200 if setting.quick else 2000
    encoded = variant("ours", "encoded", "sse_asgi, encoded=True", ENCODED="1")
    with setting.servers(["raw"], encoded) as servers:
        turns = {server.name: tokens.turn(server, events, 1) for server in servers}
        rounds = answer.rounds["encoded"] = duel("encoded", setting.rounds, turns)
    answer.say("CPU of the server in µs for each frame that is passed on, in 50 streams:")
    answer.table(("contender", "µs"), [[name, shown(rounds.of(name, "us"), 1)] for name in rounds.names])
    answer.target("encoded ÷ raw ASGI", 1.2, rounds.ratio("encoded", "raw", "us"))
    return answer
