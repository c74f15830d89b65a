"""The chat with several workers on one Redis: the visitors' view, also while Redis dies under load."""

import itertools
import json
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
from playwright.sync_api import expect

from browser.conftest import Enter
from browser.peers import Demo, Line, until
from browser.visitor import Visitor
from real_redis.launcher import RedisServer
from servers.processes import Server

EXAMPLES = Path(__file__).parents[2] / "examples"
KILLS = 3
LEASE = 15.0  # seconds, of which a third goes by between two beats
GAP = "Some messages may be missing here"


class Chat(Demo):
    """The chat's application with several workers on one Redis."""

    def __init__(self, workers: int, redis: RedisServer) -> None:
        super().__init__()
        self._command = [sys.executable, "-m", "uvicorn", "fastapi_chat.chat:app", "--app-dir", str(EXAMPLES)]
        self._command += ["--workers", str(workers), "--log-level", "warning", "--port", str(self.port)]
        self._command += ["--timeout-worker-healthcheck", "60"]  # a stopped one is not a dead one
        self._redis = redis

    def start(self) -> None:
        environment = {"SSE_BACKEND_URL": self._redis.url, "SSE_PRESENCE_TTL": str(LEASE)}
        self.server = Server(self._command, self.port, environment)
        self.server.wait_until_it_answers()

    def __exit__(self, *exc_info: object) -> None:
        self.server.remove()

    def workers(self) -> list[int]:
        master = self.server.process.pid
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        return [int(child) for child in children if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]

    @contextmanager
    def only(self, worker: int) -> Iterator[None]:
        """Stop all other workers from accepting connections."""
        others = [other for other in self.workers() if other != worker]
        try:
            for other in others:
                os.kill(other, signal.SIGSTOP)
            yield
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)


class Load:
    """Posts numbers, each until it is acknowledged.

    Attributes:
        acknowledged: Those that are.
    """

    def __init__(self, chat: Demo, room: str) -> None:
        self.acknowledged: list[str] = []
        self._chat = chat
        self._room = room
        self._asked = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        for number in itertools.count():
            given, self._asked = str(uuid.uuid4()), time.monotonic()
            while self._chat.post(self._room, str(number), id=given) != 204:
                pass
            self.acknowledged.append(str(number))
            if self._stopped.wait(0.01):
                return

    def moves(self, messages: int) -> None:
        """Wait until this many more messages are acknowledged."""
        count = len(self.acknowledged) + messages
        until(lambda: len(self.acknowledged) >= count)

    def hangs(self, seconds: float) -> None:
        """Wait until a message has waited this long for an answer."""
        until(lambda: time.monotonic() - self._asked > seconds)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """Start a Redis that writes every change to its disk."""
    with RedisServer(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "everysec") as server:
        yield server


def enter_apart(enter: Enter, chat: Chat) -> Iterator[Visitor]:
    """Let two visitors in, each through a different worker."""
    for name, worker in zip(("Ada", "Bob"), chat.workers(), strict=False):
        with chat.only(worker):
            yield enter(name, chat)


def test_tabs_on_different_workers_are_in_one_chat(enter: Enter, room: str, redis: RedisServer) -> None:
    """They read each other's messages, see joins and leaves, and see all of it after a reload on any worker."""
    with Chat(4, redis) as chat:
        ada, bob = enter_apart(enter, chat)
        ada.say("Hello!")
        bob.reads("Hello!")
        bob.say("Hi")
        said = ["Hello!", "Hi"]
        for visitor, other in ((ada, bob), (bob, ada)):
            visitor.reads(*said)
            expect(visitor.members.filter(has_text=other.name)).to_have_count(1)
        for number in range(5):
            ada.page.reload()
            ada.is_live()
            ada.reads(*said)
            expect(ada.members.filter(has_text=bob.name)).to_have_count(1)
            bob.say(f"Still here? {number}")
            said.append(f"Still here? {number}")
            ada.reads(*said)
        expect(bob.notices.filter(has_text=f"{ada.name} left")).to_have_count(0)
        ada.page.close()
        expect(bob.notices.filter(has_text=f"{ada.name} left")).to_have_count(1)
        expect(bob.members.filter(has_text=ada.name)).to_have_count(0)
        with chat.only(chat.workers()[1]):
            assert room in json.loads(chat.get("rooms"))


def test_a_process_that_is_gone_takes_its_tabs_along(enter: Enter, redis: RedisServer) -> None:
    """After its lease, the others see its members leave, except those that reconnected to another process."""
    with Chat(2, redis) as chat, Line(chat.port) as line:
        lives, dies = chat.workers()
        with chat.only(lives):
            ada = enter("Ada", chat)
        with chat.only(dies):
            bob, carl = enter("Bob", line), enter("Carl", chat)
        ada.is_told("Bob joined", "Carl joined")
        carl.watch()
        os.kill(dies, signal.SIGSTOP)  # it does not even see that Bob's line is cut
        line.cut()
        os.kill(dies, signal.SIGKILL)
        died = time.monotonic()
        carl.was("disconnected")
        carl.is_live()
        expect(ada.notices.last).to_have_text("Bob left", timeout=2000 * LEASE)
        assert time.monotonic() - died < LEASE * 5 / 3
        ada.sees("Carl")
        line.mend()
        bob.is_live(seconds=40)  # the page waited longer after each failure, at most for 30 s
        for visitor, others in ((ada, ["Bob", "Carl"]), (bob, ["Ada", "Carl"]), (carl, ["Ada", "Bob"])):
            visitor.sees(*others)
        ada.is_told("Bob joined", "Carl joined", "Bob left", "Bob joined")
        bob.is_told("Carl joined")
        carl.is_told("Bob left", "Bob joined")


def test_redis_loses_its_members(enter: Enter, tmp_path: Path) -> None:
    """If Redis comes back empty, each process announces its members again, and pages only warn of missing messages."""
    with RedisServer(tmp_path / "forgets") as redis, Chat(2, redis) as chat:
        ada, bob = enter_apart(enter, chat)
        ada.is_told("Bob joined")
        redis.restart()
        ada.say("Still here?")
        bob.reads("Still here?")
        ada.is_told("Bob joined", GAP)
        bob.is_told(GAP)
        late = enter("Late", chat)
        for visitor, others in ((ada, ["Bob", "Late"]), (bob, ["Ada", "Late"]), (late, ["Ada", "Bob"])):
            visitor.sees(*others)
        ada.is_told("Bob joined", GAP, "Late joined")
        bob.is_told(GAP, "Late joined")


def test_redis_dies_under_load(enter: Enter, room: str, redis: RedisServer) -> None:
    """Every tab, also one that was away, shows each message once and in order, without a warning, and all members."""
    with Chat(2, redis) as chat:
        ada, bob = enter_apart(enter, chat)
        for visitor in (ada, bob):
            visitor.watch()
        with Load(chat, room) as load:
            for kill in range(KILLS):
                load.moves(30)
                redis.kill()
                if kill == 1:
                    bob.context.set_offline(True)
                    bob.is_connection("disconnected")
                    bob.context.set_offline(False)
                    bob.is_live()
                load.hangs(0.3)
                redis.start()
            load.moves(30)
        for visitor in (ada, bob):
            visitor.reads(*load.acknowledged)
            expect(visitor.notices.filter(has_text=GAP)).to_have_count(0)
        assert ada.page.evaluate("states") == ["live"]
        assert set(bob.page.evaluate("states")) == {"live", "reconnecting", "disconnected"}
        _, log = chat.server.stop()
        assert "Traceback" not in log


def test_a_message_sent_while_redis_is_away(enter: Enter, room: str, redis: RedisServer) -> None:
    """The page says that the message was not sent, and keeps it; it can be sent once. A visitor who enters waits."""
    with Chat(2, redis) as chat:
        ada, bob = enter_apart(enter, chat)
        ada.say("before")
        bob.reads("before")
        redis.kill()
        ada.say("meanwhile")
        late = enter("Late", chat, live=False)
        expect(ada.problem).to_contain_text("try again in a moment", timeout=10_000)
        expect(ada.box).to_have_value("meanwhile")
        late.is_connection("connecting")
        redis.start()
        late.is_live()
        ada.box.press("Enter")
        for visitor in (ada, bob, late):
            visitor.reads("before", "meanwhile")
        expect(ada.problem).to_be_empty()
        expect(ada.box).to_have_value("")
