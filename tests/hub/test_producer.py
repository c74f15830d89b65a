"""Running the source of a run: how it ends, in whatever way, and what is left of it."""

import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest

from hub.backends import Elsewhere
from sse_asgi import BackendError, MemoryBackend, ServerSentEvent
from sse_asgi._hub import producer as producers
from sse_asgi._hub.producer import Producer
from sse_asgi._hub.run_options import RunTerms
from sse_asgi._log.event import Entry
from sse_asgi.backends.base import Backend

pytestmark = pytest.mark.anyio

TERMS = RunTerms(60.0, 100, 10_000, None, 15.0)


class Lines:
    """A sink that keeps the events of the run."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def deliver(self, entry: Entry) -> None:
        event = entry.event
        assert isinstance(event, ServerSentEvent)
        self.texts.append(f"{event.event or ''} {event.data}".strip())

    def advance(self, position: Any) -> None:
        """Do nothing."""


async def produced(
    source: Any,
    backend: Backend | None = None,
    terms: RunTerms = TERMS,
    meanwhile: Callable[[Producer, Backend], Any] | None = None,
) -> tuple[Producer, list[str]]:
    """Run a source to its end; return the producer, and the events of the run."""
    backend, lines, done = backend or MemoryBackend(), Lines(), anyio.Event()
    async with backend.connect(lines):  # type: ignore[arg-type]
        record = await backend.start_run("a", "me", lease=15, ttl=60)
        producer = Producer(backend, record, terms)
        producer.begin(source, done.set)
        if meanwhile is not None:
            await anyio.sleep(0.01)
            await meanwhile(producer, backend)
        with anyio.fail_after(10):
            await done.wait()
        return producer, lines.texts


async def cancel(producer: Producer, backend: Backend) -> None:
    await backend.end_run("a", "cancelled")
    producer.stop("cancelled")


async def events() -> AsyncIterator[Any]:
    yield "1"
    yield None
    yield {"two": 2}
    yield ServerSentEvent("3", event="three")


def sync_events() -> Iterator[str]:
    yield "1"
    yield "2"


@pytest.mark.parametrize("make", [MemoryBackend, Elsewhere])
async def test_the_events_of_a_source_and_its_end(make: Any) -> None:
    producer, texts = await produced(events(), make())
    assert texts == ["1", '{"two":2}', "three 3", 'sse.end {"state":"finished"}']
    assert producer.record.state == "finished"


@pytest.mark.parametrize("source", [sync_events, lambda: ["1", "2"]])
async def test_a_sync_source(source: Any) -> None:
    _, texts = await produced(source())
    assert texts == ["1", "2", 'sse.end {"state":"finished"}']


@pytest.mark.parametrize("make", [MemoryBackend, Elsewhere])
@pytest.mark.parametrize("count", [0, 3])
async def test_a_source_that_raises_fails_the_run(make: Any, count: int, caplog: pytest.LogCaptureFixture) -> None:
    """What it has yielded before is kept, and the log has the traceback."""

    async def failing() -> AsyncIterator[str]:
        for number in range(count):
            yield str(number)
        msg = "upstream\nfailed"
        raise ConnectionError(msg)

    producer, texts = await produced(failing(), make())
    assert texts == [*map(str, range(count)), 'sse.end {"state":"failed"}']
    assert producer.record.state == "failed"
    assert "the source of the run a failed" in caplog.text
    assert "ConnectionError" in caplog.text


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ([ServerSentEvent("x", id="1")], "cannot be published"),
        ([ServerSentEvent(comment="x")], "cannot be published"),
        ([ServerSentEvent("x", event="sse.end")], "library's own"),
        ([lambda _: "x"], "yield what it returns"),
        ([object()], "JSON"),
    ],
)
async def test_an_item_that_cannot_be_published_fails_the_run(
    items: list[Any], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, texts = await produced(["1", *items])
    assert texts == ["1", 'sse.end {"state":"failed"}']
    assert told in caplog.text


@pytest.mark.parametrize(
    ("terms", "reason", "kept"), [({"max_events": 3}, "max_events", 3), ({"max_bytes": 30}, "max_bytes", 3)]
)
async def test_a_run_fails_beyond_its_bounds(
    terms: Any, reason: str, kept: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so, and the source is closed."""
    closed: list[str] = []

    async def endless() -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
        finally:
            closed.append("closed")

    producer, texts = await produced(endless(), terms=TERMS._replace(**terms))
    assert texts == ["x"] * kept + [f'sse.end {{"state":"failed","reason":"{reason}"}}']
    assert (producer.record.reason, closed) == (reason, ["closed"])
    assert f"more than its {reason} allows" in caplog.text


@pytest.mark.parametrize("make", [MemoryBackend, Elsewhere])
async def test_a_stopped_source_cleans_up(make: Any) -> None:
    """Its `finally` may await, and yields no more events; the run has ended before."""
    steps: list[str] = []

    async def waiting() -> AsyncIterator[str]:
        yield "1"
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):  # trio cancels until the end
                await anyio.sleep(0.01)
            steps.append("closed")
            yield "2"

    producer, texts = await produced(waiting(), make(), meanwhile=cancel)
    assert texts == ["1", 'sse.end {"state":"cancelled"}']
    assert steps == ["closed"]
    assert producer.record.state == "cancelled"


async def test_a_source_that_goes_on_is_broken_off_at_its_next_event() -> None:
    reached: list[str] = []

    async def stubborn() -> AsyncIterator[str]:
        try:
            await anyio.sleep_forever()
        except BaseException:  # noqa: BLE001 - that is the point
            reached.append("goes on")
        yield "1"
        reached.append("too far")

    _, texts = await produced(stubborn(), meanwhile=cancel)
    assert texts == ['sse.end {"state":"cancelled"}']
    assert reached == ["goes on"]


async def test_a_source_that_takes_long_to_clean_up_is_cancelled_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(producers, "CLEANUP_SECONDS", 0.05)

    async def slow() -> AsyncIterator[str]:
        try:
            yield "1"
            await anyio.sleep_forever()
        finally:
            await anyio.sleep_forever()

    _, texts = await produced(slow(), Elsewhere(), meanwhile=cancel)
    assert texts[-1] == 'sse.end {"state":"cancelled"}'


async def test_a_failure_of_the_cleanup_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def failing() -> AsyncIterator[str]:
        try:
            yield "1"
            await anyio.sleep_forever()
        finally:
            raise OSError

    _, texts = await produced(failing(), meanwhile=cancel)
    assert texts == ["1", 'sse.end {"state":"cancelled"}']
    assert "the source of the run a failed while it was cleaned up" in caplog.text


async def test_a_blocked_sync_source_ends_when_it_returns() -> None:
    """Its thread cannot be interrupted, and the run has ended all the same."""
    go_on = threading.Event()

    def blocked() -> Iterator[str]:
        yield "1"
        go_on.wait(5)
        yield "2"

    async def cancel_and_release(producer: Producer, backend: Backend) -> None:
        while not producer._appender.appended:
            await anyio.sleep(0.001)
        await cancel(producer, backend)
        await anyio.sleep(0.01)
        go_on.set()

    _, texts = await produced(blocked(), meanwhile=cancel_and_release)
    assert texts == ["1", 'sse.end {"state":"cancelled"}']


@pytest.mark.parametrize("make", [MemoryBackend, Elsewhere])
async def test_a_source_ends_when_its_run_has_ended_elsewhere(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It learns that at its next append."""
    ended = anyio.Event()

    async def end(_: Producer, backend: Backend) -> None:
        await backend.end_run("a", "cancelled")
        ended.set()

    async def slow() -> AsyncIterator[str]:
        await ended.wait()
        while True:
            yield "x"
            await anyio.sleep(0.001)

    producer, texts = await produced(slow(), make(), meanwhile=end)
    assert texts == ['sse.end {"state":"cancelled"}']
    assert producer.record.state == "cancelled"
    assert "the run a has ended elsewhere (cancelled)" in caplog.text


@pytest.mark.parametrize("make", [MemoryBackend, Elsewhere])
async def test_a_run_that_the_log_has_lost_ends_as_lost(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    backend = make()

    lost = anyio.Event()

    async def lose(_: Producer, __: Backend) -> None:
        (backend if make is MemoryBackend else backend.inner)._runs._running.clear()
        lost.set()

    async def slow() -> AsyncIterator[str]:
        await lost.wait()
        yield "x"

    producer, texts = await produced(slow(), backend, meanwhile=lose)
    assert texts == ['sse.end {"state":"lost","reason":"log"}']
    assert (producer.record.state, producer.record.reason) == ("lost", "log")
    assert "the log has lost events of the run a" in caplog.text


class Refusing(MemoryBackend):
    """Refuses events, ends, or both."""

    refused: tuple[str, ...] = ()

    async def append_run(self, *args: Any, **options: Any) -> Any:
        if "append" in self.refused:
            msg = "no room"
            raise BackendError(msg)
        return await super().append_run(*args, **options)

    async def end_run(self, *args: Any, **options: Any) -> Any:
        if "end" in self.refused:
            msg = "no room"
            raise BackendError(msg)
        return await super().end_run(*args, **options)


@pytest.mark.parametrize("in_process", [True, False])
async def test_a_run_whose_events_are_refused_fails(in_process: bool, caplog: pytest.LogCaptureFixture) -> None:  # noqa: FBT001 - a parameter of the test
    backend = Refusing()
    backend.in_process = in_process
    backend.refused = ("append",)
    producer, texts = await produced(["1"], backend)
    assert texts == ['sse.end {"state":"failed"}']
    assert producer.record.state == "failed"
    assert "no room" in caplog.text


async def test_an_end_that_is_refused_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    backend = Refusing()
    backend.refused = ("end",)
    producer, texts = await produced(["1"], backend)
    assert (texts, producer.record.state) == (["1"], "finished")
    assert "the end of the run a could not be stored: no room" in caplog.text


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_source_that_waits_has_one_turn_for_each_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an event takes longer than a source may run without a turn: the others had theirs."""
    monkeypatch.setattr(producers, "TURN_SECONDS", -1)
    turns = 0

    def slow() -> AsyncIterator[str]:
        async def events() -> AsyncIterator[str]:
            for _ in range(20):
                await anyio.sleep(0)
                yield "x"

        return events()

    async def tick(producer: Producer, _: Backend) -> None:
        nonlocal turns
        while producer.record.state == "running":
            turns += 1
            await anyio.sleep(0)

    await produced(slow(), meanwhile=tick)
    assert turns < 30


async def test_a_source_that_never_waits_does_not_hold_the_loop() -> None:
    turns: list[float] = []

    def busy() -> AsyncIterator[str]:
        async def count() -> AsyncIterator[str]:
            end = time.monotonic() + 0.2
            while time.monotonic() < end:
                yield "x"

        return count()

    async def turn(_: Producer, __: Backend) -> None:
        for _turn in range(20):
            turns.append(time.monotonic())
            await anyio.sleep(0)

    await produced(busy(), terms=TERMS._replace(max_events=10**6, max_bytes=10**9), meanwhile=turn)
    assert turns[-1] - turns[0] < 1


async def test_a_source_that_cancels_itself_fails_the_run(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)

    async def source() -> AsyncIterator[str]:
        yield "1"
        raise KeyboardInterrupt

    _, texts = await produced(source())
    assert texts == ["1", 'sse.end {"state":"failed"}']
    assert "the source of the run a was cancelled" in caplog.text


async def test_a_stop_after_the_end_changes_nothing() -> None:
    producer, texts = await produced(["1"])
    producer.stop("cancelled")
    assert (producer.record.state, texts[-1]) == ("finished", 'sse.end {"state":"finished"}')


async def ends_elsewhere(_: Producer, backend: Backend) -> None:
    await backend.end_run("a", "cancelled")


async def short() -> AsyncIterator[str]:
    await anyio.sleep(0.05)
    yield "1"


async def short_and_silent() -> AsyncIterator[str]:
    await anyio.sleep(0.05)
    for item in list[str]():
        yield item


@pytest.mark.parametrize("source", [short, short_and_silent])
async def test_a_source_that_ends_after_its_run(source: Any) -> None:
    """What the log says is known, also if the source has yielded nothing since."""
    producer, texts = await produced(source(), meanwhile=ends_elsewhere)
    assert texts == ['sse.end {"state":"cancelled"}']
    assert producer.record.state == "cancelled"


async def test_an_end_that_cannot_be_learned(caplog: pytest.LogCaptureFixture) -> None:
    """The run counts as lost here."""

    class Mute(MemoryBackend):
        async def get_run(self, key: str) -> Any:
            raise BackendError(key)

    producer, _ = await produced(short_and_silent(), Mute(), meanwhile=ends_elsewhere)
    assert (producer.record.state, producer.record.reason) == ("lost", "log")
    assert "the end of the run a could not be stored" in caplog.text
