"""Storm: 5,000 readers reconnect at once, each with its Last-Event-ID, after 100 missed events or none."""

from collections.abc import Callable

from suite.answer import Answer, Setting, shown
from suite.contenders import ALL
from suite.duel import Values, duel
from suite.processes import Server

MISSED = 100


def turn(server: Server, missed: int) -> Callable[[], Values]:
    def take() -> Values:
        load = server.load
        load.tell("close")
        server.settle()
        if missed:
            server.publish(missed)
        before = server.cpu()
        seconds = load.tell("resume")["seconds"]
        seconds += load.wait(missed * load.streams)["seconds"]
        server.settle()
        return {"us": (server.cpu() - before) / load.streams * 1e6, "seconds": seconds}

    return take


def run(setting: Setting) -> Answer:
    answer = Answer("storm", "Reconnect storm")
    readers = 500 if setting.quick else 5000
    with setting.servers(one.name for one in ALL if one.resumes) as servers:
        turns = {}
        for server in servers:
            server.load.tell("ids")
            server.load.open(readers)
            server.spent(1)
            turns[server.name] = turn(server, MISSED)
            turns[f"{server.name} without"] = turn(server, 0)
        rounds = answer.rounds["storm"] = duel("storm", setting.rounds, turns)
        titles = {server.name: server.contender.title for server in servers}
    answer.say(
        f"CPU of the server for each of {readers:,} readers that resume, those that missed {MISSED} events and none:"
    )
    rows = []
    for name, title in titles.items():
        ratio = shown(rounds.ratio(name, f"{name} without", "us"))
        costs = [shown(rounds.of(which, "us"), 0) for which in (name, f"{name} without")]
        rows.append([title, *costs, ratio, shown(rounds.of(name, "seconds"))])
    heads = ("contender", f"µs, {MISSED} missed", "µs, none missed", "ratio", "s until all have everything")
    answer.table(heads, rows)
    if "ours" in titles:
        answer.target("with replay ÷ without", 1.5, rounds.ratio("ours", "ours without", "us"))
    return answer
