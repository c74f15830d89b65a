"""Slow readers: the effect on the others when one reader in ten has stopped reading."""

from collections.abc import Callable

from suite.answer import Answer, Setting, shown
from suite.duel import Values, duel
from suite.processes import Server

NAMES = ("raw", "ours", "ours_redis", "sse_starlette", "fastapi", "litestar", "aiohttp", "better_sse", "nchan")
SIZE = 16_384
FILLING = 250  # events that fill a stalled reader's socket
BUFFER = 4096  # bytes of that socket's buffer
PACE = 100e-6  # seconds for each of these deliveries
GAP = 0.1


def turn(server: Server, events: int, stalled: int) -> Callable[[], Values]:
    reading = server.load.streams

    def publish(count: int, gap: float) -> dict[str, float]:
        server.publish(count, size=SIZE, gap=gap)
        return server.load.wait(count * reading)

    def take() -> Values:
        if stalled:
            server.load.open(stalled, receive_buffer=BUFFER)
            server.load.tell("stall", stalled)
            publish(FILLING, reading * PACE)
        found = publish(events, GAP)
        server.load.tell("drop", stalled)
        server.settle()
        return {"p50": found["p50"], "p99": found["p99"]}

    return take


def run(setting: Setting) -> Answer:
    answer = Answer("slow", "Slow readers")
    readers, stalled, events = (45, 5, 10) if setting.quick else (180, 20, 30)
    with setting.servers(NAMES) as servers:
        turns = {}
        for server in servers:
            server.load.open(readers)
            turns[server.name] = turn(server, events, 0)
            turns[f"{server.name} stalled"] = turn(server, events, stalled)
        rounds = answer.rounds["slow"] = duel("slow", setting.rounds, turns)
        titles = {server.name: server.contender.title for server in servers}
    answer.say(f"p99 in ms of {readers} readers, 10 events/s of 16 KiB, alone and beside {stalled} that do not read:")
    rows = []
    for name, title in titles.items():
        alone, beside = (rounds.of(which, "p99") for which in (name, f"{name} stalled"))
        rows.append([title, shown(alone), shown(beside), shown(rounds.ratio(f"{name} stalled", name, "p99"))])
    answer.table(("contender", "alone", "beside stalled readers", "ratio"), rows)
    return answer
