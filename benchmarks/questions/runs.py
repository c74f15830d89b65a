"""Runs: a token of a run beside one of a plain generator, in memory; and from one worker to another through Redis."""

import asyncio
import contextlib
import itertools
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from suite.answer import Answer, Setting, shown
from suite.contenders import OUR_SOURCE, served
from suite.duel import Values, duel
from suite.environments import environment, python
from suite.processes import CLIENT_CORE, SERVER_CORE, await_port, ended, free_port, pinned, redis_server

from questions import tokens

RATE = 50  # tokens a second of each run
numbers = itertools.count()


class Workers:
    """Two workers of one application: the runs are started on the first one, and followed on the second one."""

    def __init__(self, stack: contextlib.ExitStack, url: str, **variables: str) -> None:
        self.ports = free_port(), free_port()
        self.processes = []
        for port in self.ports:
            command = served(python("ours"), "runs_app", port)
            env = environment(**OUR_SOURCE, SSE_BACKEND_URL=url, **variables)
            self.processes.append(pinned(SERVER_CORE, *command, env=env))
            stack.enter_context(ended(self.processes[-1]))
            await_port(port)

    def cpu(self) -> float:
        return sum(_cpu(process) for process in self.processes)


def _cpu(process: "subprocess.Popen[str]") -> float:
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


async def _get(port: int, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def _follow(port: int, run: str, delays: list[float]) -> None:
    reader, writer = await _get(port, f"/follow?run={run}")
    while line := await reader.readline():
        if line.startswith(b"data: 0"):
            delays.append((time.monotonic_ns() - int(line[6:26])) / 1e6)
    writer.close()


async def _all(workers: Workers, runs: int, count: int) -> list[float]:
    names = [str(next(numbers)) for _ in range(runs)]
    delays: list[float] = []
    await asyncio.gather(*(_get(workers.ports[0], f"/start?run={name}&n={count}&rate={RATE}") for name in names))
    await asyncio.gather(*(_follow(workers.ports[1], name, delays) for name in names))
    assert len(delays) == runs * count, f"{len(delays)} of {runs * count} tokens arrived"
    return delays


def turn(workers: Workers, runs: int, count: int) -> Callable[[], Values]:
    def take() -> Values:
        before, began = workers.cpu(), time.monotonic()
        delays = asyncio.run(_all(workers, runs, count))
        seconds = time.monotonic() - began
        cuts = statistics.quantiles(delays, n=100)
        return {
            "p50": cuts[49],
            "p99": cuts[98],
            "us": (workers.cpu() - before) / len(delays) * 1e6,
            "rate": len(delays) / seconds,
        }

    return take


def run(setting: Setting) -> Answer:
    answer = Answer("runs", "Runs")
    paces = {
        f"at {RATE} tokens a second each": (100 if setting.quick else 250, RATE),
        "as fast as one token a turn of the event loop": (200 if setting.quick else 2000, 0),
    }
    titles = {"plain": "EventSourceResponse(generator)", "run": "a run with one follower"}
    with setting.servers(["ours"]) as servers:
        for pace, (events, rate) in paces.items():
            turns = {
                "plain": tokens.turn(servers[0], events, 1, rate=rate),
                "run": tokens.turn(servers[0], events, 1, path="/run", rate=rate),
            }
            rounds = answer.rounds[f"memory, {pace}"] = duel(f"runs: {pace}", setting.rounds, turns)
            answer.say(f"CPU of the server in µs for each token of 50 generators, in memory, {pace}:")
            answer.table(("stream", "µs"), [[title, shown(rounds.of(name, "us"), 1)] for name, title in titles.items()])
            answer.target(f"a run ÷ a plain generator, {pace},", 2.0, rounds.ratio("run", "plain", "us"))
    for runs, count in ((100, RATE), (1000, RATE // 5 if setting.quick else RATE)):
        with contextlib.ExitStack() as stack:
            url = stack.enter_context(redis_server(CLIENT_CORE))
            contenders = {
                "ours": Workers(stack, url),
                "hand": Workers(stack, url, BY_HAND="1"),
            }
            turns = {name: turn(workers, runs, count) for name, workers in contenders.items()}
            rounds = answer.rounds[f"redis {runs}"] = duel(f"runs: {runs}", min(setting.rounds, 5), turns)
        answer.say(
            f"{runs:,} runs of {RATE} tokens a second: from `yield` on one worker to the socket of a follower on "
            "another one, both on one core; CPU of both workers for each token:"
        )
        titles = {"ours": "sse_asgi", "hand": "hand-written, XADD and PUBLISH for each token"}
        rows = [
            [
                title,
                shown(rounds.of(name, "p50"), 2),
                shown(rounds.of(name, "p99"), 1),
                shown(rounds.of(name, "us"), 0),
                shown(rounds.of(name, "rate"), 0),
            ]
            for name, title in titles.items()
        ]
        answer.table(("contender", "p50, ms", "p99, ms", "CPU, µs", "tokens/s"), rows)
    return answer
