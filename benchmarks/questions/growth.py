"""Growth: the cost of a delivery of sse_asgi, by readers, channels and history."""

from collections.abc import Callable

from suite.answer import Answer, Setting, number, shown, variant
from suite.duel import Rounds, Values, duel
from suite.processes import Server

READERS = (10, 100, 1000, 10_000)
CHANNELS = (1, 10, 100, 1000, 10_000)
KEPT = (0, 1000, 10_000, 100_000)
PACE = 100e-6
DELIVERIES = 10_000


def turn(server: Server, channels: int) -> Callable[[], Values]:
    """Return a function that lets events be delivered to every reader of one of the channels."""
    readers = server.load.streams // channels
    events = min(1000, max(3, DELIVERIES // readers))

    def take() -> Values:
        cost = server.spent(events, gap=readers * PACE + 0.0002, channels=channels, readers=readers)
        return {"us": cost / events / readers * 1e6}

    return take


def run(setting: Setting) -> Answer:
    answer = Answer("growth", "Growth")
    least = 1000 if setting.quick else 10_000
    kinds: dict[str, Callable[[Setting], Rounds]] = {
        "readers": lambda setting: _readers(setting, [size for size in READERS if size <= least]),
        "channels": lambda setting: _channels(setting, [size for size in CHANNELS if size <= least], least),
        "events kept": lambda setting: _kept(setting, [size for size in KEPT if size <= least * 10]),
    }
    for kind, measure in kinds.items():
        rounds = answer.rounds[kind] = measure(setting)
        first = rounds.names[0]
        rows = [[name, shown(rounds.of(name, "us")), shown(rounds.ratio(name, first, "us"))] for name in rounds.names]
        answer.table((kind, "µs of CPU for each delivery", "÷ first row"), rows)
    answer.say(
        f"The channels share {least:,} readers evenly, and an event goes to a random channel. So with more channels, "
        "fewer deliveries share the cost of publishing. The events are kept in the one channel of 1,000 readers."
    )
    return answer


def _duel(
    setting: Setting, kind: str, sizes: list[int], prepare: Callable[[Server, int], int], **variables: str
) -> Rounds:
    """Run a server for each size; `prepare` opens its streams and returns the number of channels."""
    environments = {size: {name: text.format(size) for name, text in variables.items()} for size in sizes}
    variants = [variant("ours", number(size, 0), kind, **environments[size]) for size in sizes]
    with setting.servers((), *variants) as servers:
        turns = {server.name: turn(server, prepare(server, size)) for server, size in zip(servers, sizes, strict=True)}
        return duel(f"growth: {kind}", setting.rounds, turns)


def _readers(setting: Setting, sizes: list[int]) -> Rounds:
    def prepare(server: Server, size: int) -> int:
        server.load.open(size)
        return 1

    return _duel(setting, "readers", sizes, prepare)


def _channels(setting: Setting, sizes: list[int], readers: int) -> Rounds:
    def prepare(server: Server, size: int) -> int:
        server.load.open(readers, "/?channel=%d", channels=size)
        return size

    return _duel(setting, "channels", sizes, prepare)


def _kept(setting: Setting, sizes: list[int]) -> Rounds:
    def prepare(server: Server, size: int) -> int:
        server.publish(size, burst=100)
        server.load.open(1000)
        return 1

    return _duel(setting, "events kept", sizes, prepare, SSE_BACKEND_URL="memory://?history_size={}")
