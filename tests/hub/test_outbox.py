"""hub.publish_soon: it never waits, keeps the order, and counts lost events."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from sse_asgi import BackendError, Hub, HubClosedError, MemoryBackend, Subscription
from sse_asgi._hub import opening as _opening
from sse_asgi._hub import outbox as _outbox
from sse_asgi._hub.outbox import Outbox

pytestmark = pytest.mark.anyio

PATIENCE = 30.0
GUIDE = Path(__file__).parents[2] / "docs" / "publishing.md"


class Faulty(MemoryBackend):
    """Fails, waits or works, as a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.waits: anyio.Event | None = None
        self.tried = 0

    async def publish(self, *arguments: Any, **options: Any) -> Any:
        self.tried += 1
        if self.waits is not None:
            await self.waits.wait()
        if self.error is not None:
            raise self.error
        return await super().publish(*arguments, **options)


class HubHandler(logging.Handler):
    """A simple handler that also publishes the library's own log lines."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self.hub = hub

    def emit(self, record: logging.LogRecord) -> None:
        self.hub.publish_soon("log", self.format(record))


@pytest.fixture
def root() -> Iterator[Callable[[logging.Handler], None]]:
    """Return a function that adds a handler to the root logger, which loses it in the end."""
    added: list[logging.Handler] = []

    def add(handler: logging.Handler) -> None:
        added.append(handler)
        logging.getLogger().addHandler(handler)

    yield add
    for handler in added:
        logging.getLogger().removeHandler(handler)


async def texts(reader: Subscription, count: int) -> list[str | None]:
    with anyio.fail_after(PATIENCE):
        return [(await anext(reader)).data for _ in range(count)]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "publish_soon" in record.getMessage()]


async def until(fact: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE):
        while not fact():
            await anyio.sleep(0.01)


# Publishing


async def test_sync_code_of_the_loop_publishes() -> None:
    """Without waiting, with every option, and in the order of the calls."""
    async with Hub() as hub, hub.subscribe("a") as reader:
        hub.publish_soon(["a", "b"], {"n": 1}, event="e", retry=5, key="k")
        for number in range(100):
            hub.publish_soon("a", str(number))
        first = await anext(reader)
        assert (first.event, first.data, first.retry) == ("e", '{"n":1}', 5)
        assert await texts(reader, 100) == [str(number) for number in range(100)]
        assert (hub.stats().published, hub.stats().unpublished) == (101, 0)


async def test_threads_publish_each_in_its_order() -> None:
    """Without waiting, also while the hub's event loop is held up."""
    async with Hub(buffer_size=10_000) as hub, hub.subscribe("a") as reader:

        def publish(name: int) -> None:
            for number in range(300):
                hub.publish_soon("a", f"{name} {number}")

        threads = [threading.Thread(target=publish, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)  # holds up this event loop, on purpose
            assert not thread.is_alive()
        got = await texts(reader, 1200)
        for name in range(4):
            mine = [text for text in got if text is not None and text.startswith(f"{name} ")]
            assert mine == [f"{name} {number}" for number in range(300)]


async def test_data_is_what_it_was_at_the_call() -> None:
    """A later change of the data is not published."""
    async with Hub() as hub, hub.subscribe("a") as reader:
        data = {"n": 1}
        hub.publish_soon("a", data)
        data["n"] = 2
        assert await texts(reader, 1) == ['{"n":1}']


@pytest.mark.parametrize(
    ("channels", "data", "error"), [("a", None, ValueError), ("", "x", ValueError), ("a", object(), TypeError)]
)
async def test_mistakes_are_raised_at_once(channels: str, data: Any, error: type[Exception]) -> None:
    """They are those of publish."""
    async with Hub() as hub:
        with pytest.raises(error):
            hub.publish_soon(channels, data)
        assert hub.stats().unpublished == 0


async def test_a_closed_hub_refuses() -> None:
    """Before it is opened, and after it was closed."""
    hub = Hub()
    with pytest.raises(HubClosedError):
        hub.publish_soon("a", "x")
    async with hub:
        outbox = hub._outbox
    with pytest.raises(HubClosedError):
        hub.publish_soon("a", "x")
    with pytest.raises(HubClosedError, match="the hub was closed"):  # of a thread that had found the hub open
        outbox.add(_outbox.Outgoing(("a",), Hub()._checked("a", "x", None, None, None)[1], None))


# Bounds and failures


async def test_what_finds_no_room_is_counted_and_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The oldest are published, the newest are lost; a second time it is logged again."""
    monkeypatch.setattr(_outbox, "MAX_EVENTS", 3)
    async with Hub() as hub, hub.subscribe("a") as reader:
        for times in (1, 2):
            for number in range(5):
                hub.publish_soon("a", str(number))
            assert await texts(reader, 3) == ["0", "1", "2"]
            assert hub.stats().unpublished == 2 * times
            await until(lambda: not hub._outbox._awake)
            assert len(warnings(caplog)) == times
    assert "more than 3 events or 16777216 bytes were waiting" in warnings(caplog)[0]


async def test_bytes_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One event that is larger than all the room is published nevertheless."""
    monkeypatch.setattr(_outbox, "MAX_BYTES", 100)
    async with Hub() as hub, hub.subscribe("a") as reader:
        for text in ("a" * 200, "b"):
            hub.publish_soon("a", text)
        assert await texts(reader, 1) == ["a" * 200]
        assert hub.stats().unpublished == 1
        for text in ("a" * 60, "b" * 60):
            hub.publish_soon("a", text)
        assert await texts(reader, 1) == ["a" * 60]
        assert hub.stats().unpublished == 2


@pytest.mark.parametrize("error", [BackendError("Redis was away"), OSError("broken")])
async def test_what_the_backend_refuses_is_counted_and_logged_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """With a traceback where the error is not one of the library's; once until it works again."""
    backend = Faulty()
    async with Hub(backend) as hub, hub.subscribe("a") as reader:
        for times in (1, 2):
            backend.error = error
            for _ in range(3):
                hub.publish_soon("a", "lost")
                await until(lambda: not hub._outbox._awake)
            assert hub.stats().unpublished == 3 * times
            backend.error = None
            hub.publish_soon("a", "kept")
            assert await texts(reader, 1) == ["kept"]
            await until(lambda: not hub._outbox._awake)
            assert len(warnings(caplog)) == times
    assert str(error) in warnings(caplog)[0]
    assert bool(caplog.records[0].exc_info) == isinstance(error, OSError)


# A log that is published


async def test_a_log_that_is_published_does_not_freeze_the_server(root: Callable[..., None]) -> None:
    """Threads and the event loop log at the same time, through the handler of the guide, with its lock."""
    (block,) = [text for text in GUIDE.read_text().split("```") if "class HubHandler" in text]
    names: dict[str, Any] = {"__name__": "block"}
    exec(block.removeprefix("python\n"), names)
    logger = logging.getLogger("application")
    logger.setLevel(logging.INFO)
    async with Hub(buffer_size=10_000) as hub, hub.subscribe("log") as reader:
        root(names["HubHandler"](hub))

        def log(name: str) -> None:
            for number in range(300):
                logger.info("%s %d", name, number)

        threads = [threading.Thread(target=log, args=(f"thread {name}",)) for name in range(3)]
        for thread in threads:
            thread.start()
        for number in range(300):
            logger.info("loop %d", number)
            await anyio.sleep(0)
        got = await texts(reader, 1200)
        for thread in threads:
            await anyio.to_thread.run_sync(thread.join)
        assert sum("loop" in str(text) for text in got) == 300
    logger.info("the hub is closed")


async def test_its_own_warning_is_published_once(root: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the handler takes every logger, no line leads to another one: neither a failure nor an overflow."""
    monkeypatch.setattr(_outbox, "MAX_EVENTS", 5)
    backend = Faulty()
    async with Hub(backend) as hub, hub.subscribe("log") as reader:
        root(HubHandler(hub))
        backend.error = BackendError("away")
        for number in range(20):
            logging.getLogger("application").warning("%d", number)
        await until(lambda: not hub._outbox._awake)
        assert backend.tried == 6  # the five that there was room for, and the warning
        assert hub.stats().unpublished == 21
        backend.error = None
        logging.getLogger("application").warning("after")
        assert await texts(reader, 1) == ["after"]


async def test_a_handler_that_fails_keeps_nothing_back(root: Callable[..., None]) -> None:
    """The warning cannot be logged, and later events are published."""

    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError

    backend = Faulty()
    async with Hub(backend) as hub, hub.subscribe("a") as reader:
        root(Failing())
        backend.error = BackendError("away")
        hub.publish_soon("a", "lost")
        await until(lambda: not hub._outbox._awake)
        backend.error = None
        hub.publish_soon("a", "kept")
        assert await texts(reader, 1) == ["kept"]


# The end


async def test_closing_publishes_what_waits() -> None:
    """Readers get it before their streams end."""
    async with Hub() as hub:
        reader = await hub.subscribe("a").__aenter__()
        for number in range(100):
            hub.publish_soon("a", str(number))
    assert [event.data async for event in reader] == [str(number) for number in range(100)]


async def test_closing_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Events that are not published in time are counted and logged, the one under way included."""
    monkeypatch.setattr(_opening, "FLUSH_SECONDS", 0.01)
    backend = Faulty()
    backend.waits = anyio.Event()
    async with Hub(backend) as hub:
        for _ in range(3):
            hub.publish_soon("a", "x")
        await until(lambda: backend.tried == 1)
        assert hub._registry is not None
        tally = hub._registry.tally
    assert tally.unpublished == 3
    assert warnings(caplog) == ["publish_soon lost events, which hub.stats() counts as unpublished: the hub was closed"]


def test_a_loop_that_ends_loses_what_waits() -> None:
    """Where it ended with the hub open, the first call raises, and so do the others."""
    hub = Hub()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(hub.__aenter__())
    outbox: Outbox = hub._outbox
    hub.publish_soon("a", "waits")
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    for _ in range(2):
        with pytest.raises(HubClosedError):
            hub.publish_soon("a", "x")
    assert not outbox._waiting


async def test_it_never_waits_for_the_backend() -> None:
    """A call takes microseconds, while the backend takes for ever."""
    backend = Faulty()
    backend.waits = anyio.Event()
    async with Hub(backend) as hub:
        began = time.monotonic()
        await anyio.to_thread.run_sync(partial(hub.publish_soon, "a", "x"))
        hub.publish_soon("a", "y")
        assert time.monotonic() < began + 5
        backend.waits.set()
