"""Channels: events to one of 10,000 channels with one reader each, compared with a single channel."""

from collections.abc import Callable

from suite.answer import Answer, Setting, shown, variant
from suite.contenders import BY_NAME
from suite.duel import Values, duel
from suite.processes import Server

NAMES = ("raw", "ours", "litestar", "better_sse", "nchan")
PACE = {"all": 60e-6, "one": 200e-6, "many": 200e-6}  # seconds for each delivery


def turn(server: Server, events: int, channels: int, pace: float) -> Callable[[], Values]:
    """Return a function that publishes a number of events at the pace of the readers, one after the other."""
    readers = server.load.streams // channels

    def take() -> Values:
        cost = server.spent(events, gap=pace * readers, channels=channels, readers=readers)
        return {"us": cost / events / readers * 1e6}

    return take


def run(setting: Setting) -> Answer:
    answer = Answer("channels", "Many channels")
    many = 1000 if setting.quick else 10_000
    events = 200 if setting.quick else 1000
    chosen = [one.name for one in setting.contenders(NAMES) if one.name in BY_NAME]
    variants = [variant(name, f"{name} {kind}", kind) for name in chosen for kind in ("all", "one", "many")]
    with setting.servers((), *variants) as servers:
        turns = {}
        for server in servers:
            kind = server.contender.title
            server.load.open(1 if kind == "one" else many, "/?channel=%d" if kind == "many" else "/?channel=0")
            count, channels = 3 if kind == "all" else events, many if kind == "many" else 1
            turns[server.name] = turn(server, count, channels, PACE[kind])
        rounds = answer.rounds["channels"] = duel("channels", setting.rounds, turns)
    answer.say(
        f"CPU of the server for each delivery, publishing included: {many:,} channels with a reader each, "
        f"events to one of them by chance; one channel with one reader; one channel with {many:,} readers:"
    )
    heads = ("contender", "µs, many", "µs, one reader", "ratio", f"µs, {many:,} readers", "ratio")
    rows = []
    for name in chosen:
        row = [BY_NAME[name].title, shown(rounds.of(f"{name} many", "us"))]
        for kind in ("one", "all"):
            row += [
                shown(rounds.of(f"{name} {kind}", "us")),
                shown(rounds.ratio(f"{name} many", f"{name} {kind}", "us")),
            ]
        rows.append(row)
    answer.table(heads, rows)
    if "ours" in chosen:
        answer.target("many channels ÷ one channel with one reader", 1.3, rounds.ratio("ours many", "ours one", "us"))
    return answer
