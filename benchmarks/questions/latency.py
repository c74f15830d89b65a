"""Latency: the time from a publication to the client's read, with ten events a second to 1,000 readers."""

from collections.abc import Callable

from suite.answer import TAIL_NOISE, Answer, Setting, shown
from suite.contenders import ALL
from suite.duel import Values, duel
from suite.processes import Server

GAP = 0.1
METRICS = ("p50", "p99", "p999")


def turn(server: Server, events: int) -> Callable[[], Values]:
    def take() -> Values:
        server.publish(events, gap=GAP)
        found = server.load.wait(events * server.load.streams)
        return {metric: found[metric] for metric in METRICS}

    return take


def run(setting: Setting) -> Answer:
    answer = Answer("latency", "Latency")
    with setting.servers(one.name for one in ALL) as servers:
        for server in servers:
            server.load.open(300 if setting.quick else 1000)
        turns = {server.name: turn(server, 10 if setting.quick else 30) for server in servers}
        rounds = answer.rounds["latency"] = duel("latency", setting.rounds, turns)
        titles = {server.name: server.contender.title for server in servers}
        readers = servers[0].load.streams
    answer.say(f"From publishing to the client's read, in ms: 10 events/s of 100 bytes to {readers:,} readers:")
    rows = []
    for name in rounds.names:
        ratio = shown(rounds.ratio(name, "raw", "p99")) if "raw" in rounds.names else ""
        rows.append([titles[name], *(shown(rounds.of(name, metric)) for metric in METRICS), ratio])
    answer.table(("contender", "p50", "p99", "p99.9", "p99 ÷ raw ASGI's"), rows)
    if {"ours", "raw"} <= set(rounds.names):
        answer.target("p99 ÷ raw ASGI's", 1.0, rounds.ratio("ours", "raw", "p99"), TAIL_NOISE)
    return answer
