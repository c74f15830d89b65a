"""Tokens: 50 streams at once, each of 2,000 small events from a generator."""

import time
from collections.abc import Callable

from suite.answer import Answer, Setting, against
from suite.contenders import ALL
from suite.duel import Values, duel
from suite.processes import SETTLE, Server

STREAMS = 50
KINDS = {
    "waits": (1, "The generator waits for a turn of the event loop before each event:"),
    "runs on": (0, "It never waits:"),
}


def turn(server: Server, events: int, rest: int, path: str = "/tokens", rate: int = 0) -> Callable[[], Values]:
    def take() -> Values:
        load = server.load
        load.tell("forget")
        load.tell("ending")
        before = server.cpu()
        load.open(STREAMS, f"{path}?n={events}&rest={rest}" + (f"&rate={rate}" if rate else ""))
        load.wait(STREAMS * events)
        load.tell("ends", STREAMS)
        time.sleep(SETTLE)
        return {"us": (server.cpu() - before) / STREAMS / events * 1e6}

    return take


def run(setting: Setting) -> Answer:
    answer = Answer("tokens", "Token streaming")
    events = 200 if setting.quick else 2000
    names = [one.name for one in ALL if one.tokens and not one.redis]
    with setting.servers(names) as servers:
        for kind, (rest, text) in KINDS.items():
            turns = {server.name: turn(server, events, rest) for server in servers}
            rounds = answer.rounds[kind] = duel(f"tokens: {kind}", setting.rounds, turns)
            titles = {server.name: server.contender.title for server in servers}
            answer.say(f"CPU of the server for each of {events:,} events in {STREAMS} streams. {text}")
            rows = [against(rounds, name, "us", titles) for name in rounds.names]
            answer.table(("contender", "µs", "÷ raw ASGI", "sse_asgi ÷ this"), rows)
            if {"ours", "raw"} <= set(rounds.names):
                answer.target(f"sse_asgi ÷ raw ASGI where it {kind}", 1.15, rounds.ratio("ours", "raw", "us"))
    return answer
