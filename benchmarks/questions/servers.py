"""Servers: CPU of a delivery by raw ASGI and by sse_asgi on each ASGI server, over TLS and over HTTP/2."""

from collections.abc import Callable
from pathlib import Path

from suite.answer import Answer, Setting, shown
from suite.contenders import OUR_SOURCE, Contender, granian, hypercorn, uvicorn
from suite.duel import Rounds, duel
from suite.environments import python
from suite.proxy import HTTP2, TLS, certificate

from .fanout import Point, turn

Command = Callable[[int], list[str | Path]]
SOURCES = {"raw": {}, "ours": OUR_SOURCE}
POINTS = (Point("1 reader", 1, 100, 1, 500), Point("1,000 readers", 1000, 100, 1, 10))  # raw ASGI never loses a reader
LIMIT = 1.2


def plain(module: str) -> Command:
    return uvicorn("servers", module)


def tls(module: str) -> Command:
    file, key = certificate()
    return lambda port: [*plain(module)(port), "--ssl-certfile", file, "--ssl-keyfile", key]


def http2(module: str) -> Command:
    return lambda port: [*plain(module)(port), "--http", "zttp", "--http2"]


SERVERS: dict[str, tuple[Callable[[str], Command], str | None]] = {
    "uvicorn": (plain, None),
    "uvicorn over TLS": (tls, TLS),
    "uvicorn over HTTP/2 (zttp)": (http2, HTTP2),
    "hypercorn": (hypercorn, None),
    "granian": (granian, None),
}


def run(setting: Setting) -> Answer:
    answer = Answer("servers", "Other servers")
    python("servers")
    chosen = [title for title in SERVERS if not setting.points or title.split(" (")[0] in setting.points]
    variants = [_contender(title, name) for title in chosen for name in SOURCES]
    with setting.servers((), *variants) as servers:
        for point in POINTS:
            readers = min(point.readers, 200) if setting.quick else point.readers
            measured = point._replace(readers=readers)
            for server in servers:
                server.load.open(readers - server.load.streams)
            turns = {server.name: turn(server, measured) for server in servers}
            answer.rounds[point.title] = duel(f"servers: {point.title}", setting.rounds, turns)
    for title, rounds in answer.rounds.items():
        _table(answer, title, chosen, rounds)
    return answer


def _contender(title: str, name: str) -> Contender:
    command, behind = SERVERS[title]
    return Contender(f"{title} {name}", title, command(name), SOURCES[name], behind=behind)


def _table(answer: Answer, point: str, chosen: list[str], rounds: Rounds) -> None:
    answer.say(f"CPU of the server for each delivery of 100 bytes, one event at a time, {point}:")
    ratios = {title: rounds.ratio(f"{title} ours", f"{title} raw", "us") for title in chosen}
    answer.table(
        ("server", "raw ASGI, µs", "sse_asgi, µs", "ratio"),
        (
            [title, *(shown(rounds.of(f"{title} {name}", "us")) for name in SOURCES), shown(ratio)]
            for title, ratio in ratios.items()
        ),
    )
    for title, ratio in ratios.items():
        answer.target(f"sse_asgi ÷ raw ASGI on {title}, {point},", LIMIT, ratio)
