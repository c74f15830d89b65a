"""Fan-out: CPU of the server for each delivery, by readers, size and burst."""

from collections.abc import Callable
from typing import NamedTuple

from suite.answer import NOISE, Answer, Setting, against, shown, title_of
from suite.contenders import ALL
from suite.duel import Values, duel
from suite.processes import Server

GENEROUS = 100e-6  # seconds for each delivery, before its cost was measured
TARGETS = (("raw", 1.0, NOISE), ("sse_starlette", 0.2, None), ("fastapi", 0.13, None), ("litestar", 0.45, None))
TARGETS += (("better_sse", 0.8, None),)
STRETCH = (("raw", 0.8), ("nchan", 1.2))


class Point(NamedTuple):
    """One measurement of every contender."""

    title: str
    readers: int
    size: int
    burst: int
    events: int
    most_rounds: int = 1000


BASE = "1,000 readers"
SLOW_ROUNDS = 5  # a round takes minutes
POINTS = (
    Point("1 reader", 1, 100, 1, 500),
    Point("10 readers", 10, 100, 1, 200),
    Point("100 readers", 100, 100, 1, 50),
    Point(BASE, 1000, 100, 1, 10),
    Point("1 KiB", 1000, 1024, 1, 10),
    Point("16 KiB", 1000, 16384, 1, 10),
    Point("bursts of 10", 1000, 100, 10, 30),
    Point("bursts of 100", 1000, 100, 100, 100, SLOW_ROUNDS),
    Point("10,000 readers", 10_000, 100, 1, 3),  # the last: not every server forgets readers that have left
)
QUICK = ("10 readers", "bursts of 10")


def turn(server: Server, point: Point) -> Callable[[], Values]:
    """Return a function that lets events be delivered, with time for each burst before the next."""
    pace = [GENEROUS]

    def take() -> Values:
        gap = point.readers * point.burst * pace[0] + 0.002 if point.events > point.burst else 0.0
        client = server.load.last["cpu"]
        cost = server.spent(point.events, size=point.size, burst=point.burst, gap=gap)
        deliveries = point.events * point.readers
        pace[0] = 1.5 * cost / deliveries
        return {"us": cost / deliveries * 1e6, "client": (server.load.last["cpu"] - client) / deliveries * 1e6}

    return take


def run(setting: Setting) -> Answer:
    from suite.report import save  # it needs matplotlib, which smoke.py does not have

    answer = Answer("fanout", "Fan-out")
    with setting.servers(one.name for one in ALL) as servers:
        titles = {server.name: server.contender.title for server in servers}
        for point in POINTS:
            name = point.title.replace(",", "")
            if point.title != BASE and (setting.quick or setting.points) and name not in (setting.points or QUICK):
                continue
            for server in servers:
                server.load.open(point.readers - server.load.streams)
            turns = {server.name: turn(server, point) for server in servers}
            answer.rounds[point.title] = duel(f"fanout: {point.title}", min(setting.rounds, point.most_rounds), turns)
            if BASE in answer.rounds:
                _tables(answer, titles)
                save(answer, setting)  # all points take an hour
    return answer


def _tables(answer: Answer, titles: dict[str, str]) -> None:
    base = answer.rounds[BASE]
    answer.parts.clear()
    answer.say("CPU of the server process for each delivery to 1,000 readers, 100 bytes, one event at a time:")
    rows = [[*against(base, name, "us", titles), shown(base.of(name, "client"))] for name in base.names]
    answer.table(("contender", "µs", "÷ raw ASGI", "sse_asgi ÷ this", "load client, µs"), rows)
    fewest = min(answer.rounds, key=lambda point: len(answer.rounds[point].rounds))
    fewer = len(answer.rounds[fewest].rounds)
    note = f" ({fewest}: {fewer} rounds)" if fewer < len(base.rounds) else ""
    answer.say(f"The same as ratios to raw ASGI, one thing changed at a time{note}:")
    answer.table(
        ("contender", *answer.rounds),
        (
            [titles.get(name) or title_of(name)]
            + [f"{rounds.ratio(name, 'raw', 'us').middle:.2f}" for rounds in answer.rounds.values()]
            for name in base.names
            if "raw" in base.names
        ),
    )
    for point in (BASE, "10,000 readers"):
        rounds = answer.rounds.get(point)
        for name, limit, allowed in TARGETS:
            if rounds and {"ours", name} <= set(rounds.names):
                ratio = rounds.ratio("ours", name, "us")
                answer.target(f"sse_asgi ÷ {title_of(name)} at {point}", limit, ratio, allowed)
        for name, limit in STRETCH:
            if rounds and {"ours", name} <= set(rounds.names):
                answer.target(
                    f"stretch, sse_asgi ÷ {title_of(name)} at {point}", limit, rounds.ratio("ours", name, "us")
                )
