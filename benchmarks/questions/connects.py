"""Connects: CPU of the server for each new stream, and the number of streams it accepts in a second."""

from collections.abc import Callable

from suite.answer import Answer, Setting, against, shown
from suite.contenders import ALL
from suite.duel import Values, duel
from suite.processes import Server

TARGETS = (("ours", "raw", 1.4), ("ours_mounted", "streaming", 1.25))


def turn(server: Server, streams: int) -> Callable[[], Values]:
    def take() -> Values:
        server.load.tell("forget")
        server.settle()
        before = server.cpu()
        seconds = server.load.open(streams)["seconds"]
        server.settle()
        return {"us": (server.cpu() - before) / streams * 1e6, "rate": streams / seconds}

    return take


def run(setting: Setting) -> Answer:
    answer = Answer("connects", "Connecting")
    streams = 300 if setting.quick else 1000
    with setting.servers(one.name for one in ALL) as servers:
        turns = {server.name: turn(server, streams) for server in servers}
        rounds = answer.rounds["connects"] = duel("connects", setting.rounds, turns)
        titles = {server.name: server.contender.title for server in servers}
    answer.say(f"CPU of the server from the request to the head of {streams:,} streams, 100 at once:")
    rows = [[*against(rounds, name, "us", titles), shown(rounds.of(name, "rate"), 0)] for name in rounds.names]
    answer.table(("contender", "µs", "÷ raw ASGI", "sse_asgi ÷ this", "streams/s"), rows)
    for name, other, limit in TARGETS:
        if {name, other} <= set(rounds.names):
            answer.target(f"{titles[name]} ÷ {titles[other]}", limit, rounds.ratio(name, other, "us"))
    return answer
