"""Idle: memory and CPU for each of 10,000 connections, with pings every 15 seconds."""

import time

from suite.answer import Answer, Setting, shown
from suite.contenders import ALL
from suite.duel import Progress, Rounds, Values
from suite.processes import Server

MOST_RUNS = 3  # a run takes a minute, and runs hardly differ
PINGS = 15.0
IN_A_STACK, STACK_KIB = ("ours_mounted", "ours_fastapi"), 12.5


def run(setting: Setting) -> Answer:
    answer = Answer("idle", "Idle connections")
    readers, runs = (1000, 1) if setting.quick else (10_000, min(setting.rounds, MOST_RUNS))
    found = []
    progress = Progress("idle", runs * (len(setting.contenders(one.name for one in ALL)) + 1))
    for _ in range(runs):
        with setting.servers(one.name for one in ALL) as servers:
            titles = {server.name: server.contender.title for server in servers}
            values = {server.name: _memory(server, readers, progress) for server in servers}
            progress.show(f"waiting for {2 * PINGS:.0f} s")
            for name, cpu in _cpu(servers).items():
                values[name] |= {"cpu": cpu}
            progress.step()
        found.append(values)
    rounds = answer.rounds["idle"] = Rounds(found)
    answer.say(f"{readers:,} connections that are sent nothing but pings, every 15 s; {runs} runs of 30 s:")
    rows = [[titles[name], shown(rounds.of(name, "kib")), shown(rounds.of(name, "cpu"))] for name in rounds.names]
    answer.table(("contender", "KiB of resident memory each", "CPU, %"), rows)
    answer.say("raw ASGI, Litestar and the bare Protocol send no pings.")
    for name in filter(rounds.names.__contains__, IN_A_STACK):
        answer.target(f"KiB for each connection, {titles[name]},", STACK_KIB, rounds.of(name, "kib"))
    if "ours" in rounds.names:
        answer.target("KiB for each connection", 12, rounds.of("ours", "kib"))
        answer.target("CPU in % of a core", 1.5, rounds.of("ours", "cpu"))
    return answer


def _memory(server: Server, readers: int, progress: Progress) -> Values:
    progress.show(f"opening {server.name}")
    before = server.memory()
    server.load.open(readers)
    server.settle()
    progress.step()
    return {"kib": (server.memory() - before) / readers / 1024}


def _cpu(servers: list[Server]) -> dict[str, float]:
    time.sleep(1)
    before = {server.name: server.cpu() for server in servers}
    began = time.monotonic()
    time.sleep(2 * PINGS)
    seconds = time.monotonic() - began
    return {server.name: 100 * (server.cpu() - before[server.name]) / seconds for server in servers}
