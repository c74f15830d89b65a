"""Profile: the CPU of a delivery by the library that uses it; perf samples the servers."""

import contextlib
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import DEVNULL

from suite.answer import Answer, Setting, number, shown
from suite.duel import Values, duel
from suite.environments import ROOT
from suite.environments import run as run_program
from suite.processes import CLIENT_CORE, Server, pinned

NAMES = ("floor", "raw", "ours")
FREQUENCY = 2000
PACE = 40e-6  # seconds for each delivery
MOST_ROUNDS = 5
PARTS = {
    "kernel": r"\[kernel",
    "interpreter": r"libpython|/python|^python|libc\.|\[vdso\]|_asyncio|libm\.|math\.",
    "uvloop": r"loop\.cpython",
}


def turn(server: Server, events: int) -> Callable[[], Values]:
    """Return a function that lets events be delivered while perf samples the server."""
    readers = server.load.streams

    def take() -> Values:
        with tempfile.TemporaryDirectory() as home:
            samples = Path(home) / "samples"
            with sampled(server, samples):
                cost = server.spent(events, gap=readers * PACE) / events / readers * 1e6
            report = run_program(
                "perf", "report", f"--input={samples}", "--stdio", "--sort=dso", "--fields=overhead,dso"
            )
        found = re.findall(r"^ *([\d.]+)% +(\S+)", report, re.MULTILINE)
        parts = dict.fromkeys((*PARTS, "other"), 0.0)
        for share, library in found:
            part = next((part for part, names in PARTS.items() if re.search(names, library)), "other")
            parts[part] += float(share) / 100 * cost
        return {"us": cost, **parts}

    return take


@contextlib.contextmanager
def sampled(server: Server, samples: Path) -> Iterator[None]:
    """Let perf sample a server until the end of the block."""
    command = ["perf", "record", "--event=cpu-clock", f"--freq={FREQUENCY}", f"--output={samples}"]
    sampler = pinned(CLIENT_CORE, *command, f"--pid={server.process.pid}", stdout=DEVNULL, stderr=DEVNULL)
    server.settle()
    try:
        yield
    finally:
        sampler.send_signal(signal.SIGINT)  # perf writes its samples then
        sampler.wait()


def run(setting: Setting) -> Answer:
    answer = Answer("profile", "Profile")
    if shutil.which("perf") is None:
        run_program(ROOT / "scripts" / "debian", "linux-perf")
    with setting.servers(NAMES) as servers:
        for server in servers:
            server.load.open(1000)
        turns = {server.name: turn(server, 20 if setting.quick else 100) for server in servers}
        rounds = answer.rounds["profile"] = duel("profile", min(setting.rounds, MOST_ROUNDS), turns)
        titles = {server.name: server.contender.title for server in servers}
    answer.say("Where the CPU of a delivery to 1,000 readers goes, 100 bytes, in µs, by samples of perf:")
    parts = (*PARTS, "other")
    rows = [
        [titles[name], shown(rounds.of(name, "us")), *(number(rounds.of(name, part).middle) for part in parts)]
        for name in rounds.names
    ]
    answer.table(("contender", "all", "kernel", "interpreter", "uvloop, libuv", "other"), rows)
    return answer
