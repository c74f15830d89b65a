"""Encode: the time from a text to the bytes of an event, in process."""

import contextlib
import subprocess
from collections.abc import Callable
from pathlib import Path

from suite.answer import Answer, Setting, shown
from suite.contenders import OUR_SOURCE
from suite.duel import Values, duel
from suite.environments import CONTENDERS, environment, python
from suite.processes import SERVER_CORE, ended, pinned

PAYLOADS = ("short line", "1 KiB of JSON", "100 lines")
ENCODERS = {
    "ours": ("ours", "sse_asgi.encoder.encode"),
    "ours_event": ("ours", "sse_asgi.ServerSentEvent"),
    "sse_starlette": ("sse_starlette", "sse_starlette.ServerSentEvent"),
    "fastapi": ("fastapi", "fastapi.sse: ServerSentEvent and format_sse_event"),
    "litestar": ("litestar", "litestar.response.ServerSentEventMessage"),
}
TARGET = 4


class Worker:
    """A process that encodes on command."""

    def __init__(self, name: str, interpreter: Path, stack: contextlib.ExitStack) -> None:
        command = (interpreter, CONTENDERS / "encode_worker.py", name)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = pinned(SERVER_CORE, *command, env=environment(**OUR_SOURCE), **pipes)
        stack.enter_context(ended(self.process))

    def turn(self, payload: str) -> Callable[[], Values]:
        def take() -> Values:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.write(payload + "\n")
            self.process.stdin.flush()
            return {"ns": float(self.process.stdout.readline())}

        return take


def run(setting: Setting) -> Answer:
    answer = Answer("encode", "Encoding")
    with contextlib.ExitStack() as stack:
        workers = {name: Worker(name, python(env), stack) for name, (env, _) in ENCODERS.items()}
        for payload in PAYLOADS:
            turns = {name: worker.turn(payload) for name, worker in workers.items()}
            answer.rounds[payload] = duel(f"encode: {payload}", setting.rounds, turns)
    answer.say("ns to write one event, with all that validates it, and how many times as long as `encode` takes:")
    rows = []
    for name, (_, title) in ENCODERS.items():
        cells = [
            f"{shown(rounds.of(name, 'ns'), 0)}, x {shown(rounds.ratio(name, 'ours', 'ns'), 1)}"
            for rounds in answer.rounds.values()
        ]
        rows.append([title, *cells])
    answer.table(("encoder", *PAYLOADS), rows)
    for payload, rounds in answer.rounds.items():
        for name in ("sse_starlette", "fastapi"):
            ratio = rounds.ratio("ours", name, "ns")
            answer.target(f"encode ÷ {ENCODERS[name][1]}, {payload},", 1 / TARGET, ratio)
    return answer
