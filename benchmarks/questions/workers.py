"""Workers: what one worker and Redis have to do where 1 to 8 workers share the readers.

One worker is real, and has its share of the readers. The others are what Redis sees of a worker: a connection that
subscribes to the channels of its readers and reads what comes. Events are published one after the other by a process
that has no readers.
"""

import contextlib
import random
import selectors
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from suite.answer import Answer, Setting, shown, variant
from suite.duel import Rounds, Values, duel
from suite.processes import Server, redis_server

WORKERS = (1, 2, 4, 8)
CHANNEL = "sse:{default}:c:"
FANOUT_EVENTS, PACE = 10, 100e-6
EVENTS, GAP = 1000, 0.0005


class Redis:
    """The redis-server: the CPU that it uses, and workers that are only connections to it."""

    def __init__(self, url: str) -> None:
        self._address = "127.0.0.1", urlsplit(url).port
        self._asking = socket.create_connection(self._address)

    def cpu(self) -> float:
        """Return the CPU seconds used by its main thread and the kernel for it."""
        self._asking.sendall(b"INFO cpu\r\n")
        answer = b""
        while b"used_cpu_user_main_thread" not in answer or not answer.endswith(b"\r\n"):
            answer += self._asking.recv(4096)
        used = dict(line.split(":") for line in answer.decode().splitlines() if ":" in line)
        return float(used["used_cpu_sys"]) + float(used["used_cpu_user"])

    @contextlib.contextmanager
    def others(self, channels_of: Iterable[Iterable[int]]) -> Iterator[None]:
        """Let a worker subscribe to the channels of each group."""
        with contextlib.ExitStack() as stack:
            watched = stack.enter_context(selectors.DefaultSelector())
            for channels in channels_of:
                worker = stack.enter_context(socket.create_connection(self._address))
                names = [f"{CHANNEL}{number}" for number in channels]
                worker.sendall(" ".join(["SUBSCRIBE", *names, "\r\n"]).encode())
                while names:  # until the last confirmation
                    if f"{names[-1]}\r\n:{len(names)}\r\n".encode() in worker.recv(1 << 20, socket.MSG_PEEK):
                        break
                    worker.recv(1 << 12)
                watched.register(worker, selectors.EVENT_READ)
            ending = threading.Event()
            thread = threading.Thread(target=_read, args=(watched, ending))
            thread.start()
            try:
                yield
            finally:
                ending.set()
                thread.join()


def _read(watched: selectors.BaseSelector, ending: threading.Event) -> None:
    while not ending.is_set():
        for key, _ in watched.select(0.1):
            key.fileobj.recv(1 << 16)  # type: ignore[union-attr]


class Simulation:
    """A worker, a publisher and their Redis."""

    def __init__(self, worker: Server, publisher: Server, redis: Redis, readers: int) -> None:
        self.worker, self.publisher, self.redis, self.readers = worker, publisher, redis, readers
        self._chance = random.Random(1)  # that of contenders/control.py

    def fanout(self, workers: int) -> Callable[[], Values]:
        """Return a function that publishes to one channel, of which each worker has its share of readers, then one."""

        def take() -> Values:
            share = self.readers // workers
            self._open(share, "/?channel=0")
            with self.redis.others([[0]] * (workers - 1)):
                many = self._publish(FANOUT_EVENTS, FANOUT_EVENTS * share, share * PACE, 1)
                self.worker.load.tell("drop", share - 1)
                self.worker.settle()
                one = self._publish(EVENTS, EVENTS, GAP, 1)
            return {"worker": many["worker"], "one": one["worker"], "redis": one["redis"]}

        return take

    def users(self, workers: int) -> Callable[[], Values]:
        """Return a function that publishes to channels with one reader each, by chance."""

        def take() -> Values:
            share = self.readers // workers
            connect = self._open(share, "/?channel=%d")
            drawn = [self._chance.randrange(self.readers) for _ in range(EVENTS)]
            groups = [range(first, first + share) for first in range(share, share * workers, share)]
            with self.redis.others(groups):
                expected = sum(channel < share for channel in drawn)
                return {"connect": connect, **self._publish(EVENTS, expected, GAP, self.readers)}

        return take

    def _open(self, streams: int, path: str) -> float:
        """Open the streams; return the CPU of Redis for each, in µs."""
        self.worker.load.tell("forget")
        self.worker.settle()
        before = self.redis.cpu()
        self.worker.load.open(streams, path)
        self.worker.settle()
        return (self.redis.cpu() - before) / streams * 1e6

    def _publish(self, events: int, expected: int, gap: float, channels: int) -> Values:
        """Publish events; return the CPU of the worker and of Redis for each, in µs."""
        before, redis_before = self.worker.cpu(), self.redis.cpu()
        self.publisher.publish(events, gap=gap, channels=channels)
        self.worker.load.wait(expected)
        self.worker.settle()
        worker, redis = self.worker.cpu() - before, self.redis.cpu() - redis_before
        return {"worker": worker / events * 1e6, "redis": redis / events * 1e6}


class Kind(NamedTuple):
    """A way to share channels among workers, and the costs to show, each with the title of its column."""

    title: str
    turn: Callable[[Simulation, int], Callable[[], Values]]
    costs: dict[str, str]


KINDS = {
    "fanout": Kind(
        "One channel that all {:,} readers read, and one reader on each worker",
        Simulation.fanout,
        {"worker": "one worker, µs", "one": "with one reader, µs", "redis": "Redis, µs"},
    ),
    "users": Kind(
        "{:,} channels with one reader each, events to one of them by chance",
        Simulation.users,
        {"worker": "one worker, µs", "redis": "Redis, µs", "connect": "Redis for each stream that begins, µs"},
    ),
}


def run(setting: Setting) -> Answer:
    answer = Answer("workers", "Workers")
    readers = 200 if setting.quick else 1000
    for name, kind in KINDS.items():
        with redis_server() as url:
            processes = (variant("ours", role, role, SSE_BACKEND_URL=url) for role in ("worker", "publisher"))
            with setting.servers((), *processes) as (worker, publisher):
                simulation = Simulation(worker, publisher, Redis(url), readers)
                turns = {str(workers): kind.turn(simulation, workers) for workers in WORKERS}
                rounds = answer.rounds[name] = duel(f"workers: {name}", setting.rounds, turns)
        answer.say(f"{kind.title.format(readers)}; CPU for each event that is published:")
        answer.table(("workers", *kind.costs.values(), "one worker ÷ first row"), _rows(rounds, kind.costs))
    answer.say(
        "One worker is real, and has its share of the readers. The others are simulated: each is a connection to Redis "
        "that subscribes to the channels of its share, and reads. The publisher has no readers. Events follow each "
        "other one by one, so Redis reads and answers each by itself."
    )
    return answer


def _rows(rounds: Rounds, costs: dict[str, str]) -> Iterator[list[str]]:
    for name in rounds.names:
        yield [
            name,
            *(shown(rounds.of(name, cost)) for cost in costs),
            shown(rounds.ratio(name, "1", "worker")),
        ]
