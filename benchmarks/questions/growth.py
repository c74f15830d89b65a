"""Growth: the cost of a delivery and of a connect of sse_asgi, by connections, channels and history."""

import resource
from collections.abc import Callable

from suite.answer import Answer, Setting, number, shown, variant
from suite.duel import Rounds, Values, duel
from suite.processes import Server

SIZES = (10, 1000, 10_000, 50_000)
KEPT = (0, 1000, 10_000, 100_000)
PACE = 50e-6
DELIVERIES = 10_000
CONNECTS = 500
OTHER_FILES = 1000  # those of a server that are no streams, and the streams that come and go
COSTS = {"us": "µs of CPU for each delivery", "connect": "µs for each connect", "kib": "KiB each"}

Prepare = Callable[[Server, int], int]


def turn(server: Server, channels: int, before: int) -> Callable[[], Values]:
    """Return a function that lets events be delivered to every reader of one of the channels, and opens streams."""
    open_before = server.load.streams
    readers = open_before // channels
    events = min(1000, max(3, DELIVERIES // readers))
    kib = (server.memory() - before) / open_before / 1024
    path = "/?channel=%d" if channels > 1 else "/?channel=0"

    def take() -> Values:
        cost = server.spent(events, gap=readers * PACE + 0.0002, channels=channels, readers=readers)
        server.settle()
        began = server.cpu()
        server.load.open(CONNECTS, path)
        server.settle()
        connecting = server.cpu() - began
        server.load.tell("drop", CONNECTS)
        server.settle()
        return {"us": cost / events / readers * 1e6, "connect": connecting / CONNECTS * 1e6, "kib": kib}

    return take


def run(setting: Setting) -> Answer:
    answer = Answer("growth", "Growth")
    most = 1000 if setting.quick else _most()
    sizes = sorted({min(size, most) for size in SIZES})
    kinds: dict[str, Callable[[], Rounds]] = {
        "readers": lambda: _duel(setting, "readers", sizes, _readers),
        "channels": lambda: _duel(setting, "channels", sizes, _channels),
        "events kept": lambda: _duel(
            setting, "events kept", [*KEPT[:2]] if setting.quick else [*KEPT], _kept, "memory://?history_size={}"
        ),
    }
    for kind, measure in kinds.items():
        rounds = answer.rounds[kind] = measure()
        costs = {"us": COSTS["us"]} if kind == "events kept" else COSTS
        answer.table((kind, *costs.values(), "delivery ÷ first row"), _rows(rounds, costs))
    answer.say(
        "The readers have one channel, and the channels have one reader each. An event goes to one channel by chance. "
        f"{CONNECTS} streams come to those that are there, and leave. KiB are the resident memory of the server for "
        "each stream, without what it had before. The events are kept in the one channel of 1,000 readers."
    )
    if most < SIZES[-1] and not setting.quick:
        answer.say(f"This system allows a process too few open files for {SIZES[-1]:,} streams.")
    return answer


def _most() -> int:
    """Return how many streams a server may have by its limit of open files."""
    return (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OTHER_FILES) // 1000 * 1000


def _rows(rounds: Rounds, costs: dict[str, str]) -> list[list[str]]:
    first = rounds.names[0]
    return [
        [name, *(shown(rounds.of(name, cost)) for cost in costs), shown(rounds.ratio(name, first, "us"))]
        for name in rounds.names
    ]


def _duel(setting: Setting, kind: str, sizes: list[int], prepare: Prepare, backend: str | None = None) -> Rounds:
    """Run a server for each size; `prepare` opens its streams and returns the number of channels."""
    variants = [
        variant("ours", number(size, 0), kind, **({"SSE_BACKEND_URL": backend.format(size)} if backend else {}))
        for size in sizes
    ]
    with setting.servers((), *variants) as servers:
        turns = {}
        for server, size in zip(servers, sizes, strict=True):
            before = server.memory()
            turns[server.name] = turn(server, prepare(server, size), before)
        return duel(f"growth: {kind}", setting.rounds, turns)


def _readers(server: Server, size: int) -> int:
    server.load.open(size)
    return 1


def _channels(server: Server, size: int) -> int:
    server.load.open(size, "/?channel=%d")
    return size


def _kept(server: Server, size: int) -> int:
    server.publish(size, burst=100)
    server.load.open(1000)
    return 1
