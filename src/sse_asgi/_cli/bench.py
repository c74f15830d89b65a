"""`sse-asgi bench`: many readers of one stream, each on a connection of its own.

All readers share one event loop with their measuring, so the numbers include this process. It warns when it was too
busy itself.
"""

import importlib
import json
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import anyio
import httpx
from rich.table import Table

from ..decoder import DecodedEvent, EventDecoder
from .age import lag
from .following import StreamError
from .request import EVENT_STREAM, FAILURES, StreamRequest, explain, media_type, pieces
from .screen import progress, results

CONNECTING_AT_ONCE = 50
HEAD_SECONDS = 10.0
SPARE_FILES = 64
MAX_LAGS = 1_000_000
TICK = 0.1
BUSY = 0.1
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "max": 100}


@dataclass
class Measurement:
    """What all readers measured together; times are in seconds.

    Attributes:
        readers: How many connections were asked for.
        opened: How long each connection took, from its request to the head.
        connecting: The time from the first request to the last head.
        lags: How late each event was: by its own time, or behind the first reader that got it.
        is_behind_first: Whether the lags are behind the first reader.
        events: How many events arrived at all readers together.
        seconds: The time from the last head to the end.
        failures: How often each failure occurred.
        delays: How late the turns of this process's own event loop were.
    """

    readers: int
    opened: list[float] = field(default_factory=list)
    connecting: float = 0.0
    lags: list[float] = field(default_factory=list)
    is_behind_first: bool = False
    events: int = 0
    seconds: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    delays: list[float] = field(default_factory=list)


class Bench:
    """Opens the readers, a few at a time, and lets them read for a while.

    Attributes:
        measurement: What was measured so far.
    """

    def __init__(self, request: StreamRequest, *, readers: int, seconds: float, time_field: str | None = None) -> None:
        """Store the request.

        Args:
            request: The stream.
            readers: How many connections to open.
            seconds: How long all of them read, after the last one has opened.
            time_field: See `published_at`.
        """
        self.measurement = Measurement(readers)
        self._request = request
        self._seconds = seconds
        self._time_field = time_field
        self._gate = anyio.Semaphore(CONNECTING_AT_ONCE)
        self._waiting = readers
        self._all_tried = anyio.Event()
        self._began = 0.0
        self._all_open = math.inf
        self._reading = 0
        self._seen: dict[DecodedEvent, tuple[float, int]] = {}
        self._behind: list[float] = []

    async def run(self) -> None:
        """Measure."""
        one = self.measurement
        async with self._request.client(http2=False) as client, anyio.create_task_group() as tasks:
            self._began = time.monotonic()
            tasks.start_soon(self._show_progress)
            for _ in range(one.readers):
                tasks.start_soon(self._reader, client)
            await self._all_tried.wait()
            self._all_open = time.monotonic()
            one.connecting = self._all_open - self._began
            if one.opened:
                await anyio.sleep(self._seconds)
            one.seconds = time.monotonic() - self._all_open
            one.is_behind_first = not one.lags
            one.lags = one.lags or self._behind
            tasks.cancel_scope.cancel()

    async def _reader(self, client: httpx.AsyncClient) -> None:
        try:
            await self._read(client)
        except FAILURES as error:
            self.measurement.failures[explain(error)] += 1
        except TimeoutError:
            self.measurement.failures[f"no head within {HEAD_SECONDS:g} s"] += 1
        except _NoStreamError as error:
            self.measurement.failures[str(error)] += 1
        else:
            self.measurement.failures["the stream ended"] += 1

    async def _read(self, client: httpx.AsyncClient) -> None:
        """Open the stream in turn, and read it until it ends."""
        async with AsyncExitStack() as stack:
            async with self._turn():
                began = time.monotonic()
                with anyio.fail_after(HEAD_SECONDS):
                    response = await stack.enter_async_context(self._request.open(client, silence=None))
                _check(response)
                self.measurement.opened.append(time.monotonic() - began)
            self._reading += 1
            stack.callback(self._leave)
            decoder = EventDecoder()
            async for piece in pieces(response):
                for event in decoder.feed(piece):
                    self._note(event)

    def _leave(self) -> None:
        self._reading -= 1

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for a turn to connect, and count it when it is over."""
        async with self._gate:
            try:
                yield
            finally:
                self._waiting -= 1
                if not self._waiting:
                    self._all_tried.set()

    def _note(self, event: DecodedEvent) -> None:
        """Measure an event, if all readers could get it."""
        one, now = self.measurement, time.monotonic()
        one.events += 1
        if now < self._all_open or max(len(one.lags), len(self._behind)) >= MAX_LAGS:
            return
        seconds = lag(event, self._time_field)
        if seconds is None:
            self._behind.append(self._behind_first(event, now))
        else:
            one.lags.append(seconds)

    def _behind_first(self, event: DecodedEvent, now: float) -> float:
        """Return how long ago the first reader got an event; after the last reader, the same content is a new event."""
        first, count = self._seen.get(event, (now, 0))
        self._seen[event] = first, count + 1
        if count + 1 >= self._reading:
            del self._seen[event]
        return now - first

    async def _show_progress(self) -> None:
        """Show how far it is, and measure how late the turns of this event loop are."""
        one = self.measurement
        with progress("reading") as shown:
            task = shown.add_task("", total=self._seconds)
            while True:
                now = time.monotonic()
                text = f"{len(one.opened)} of {one.readers} readers, {one.events} events"
                shown.update(task, completed=max(0.0, now - self._all_open), description=text)
                await anyio.sleep(TICK)
                one.delays.append(time.monotonic() - now - TICK)


class _NoStreamError(Exception):
    """An answer that is not a stream."""


def _check(response: httpx.Response) -> None:
    """Check that there is a stream.

    Raises:
        _NoStreamError: There is none.
    """
    if response.status_code != HTTPStatus.OK or media_type(response) != EVENT_STREAM:
        got = response.headers.get("Content-Type", "no Content-Type")
        msg = f"the answer was {response.status_code}, {got}"
        raise _NoStreamError(msg)


def allow_readers(readers: int) -> None:
    """Let this process open the files that so many connections need.

    Raises:
        StreamError: The system does not allow it.
    """
    try:
        resource = importlib.import_module("resource")
    except ImportError:  # on Windows, where there is no such limit
        return
    count = readers + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count or soft == resource.RLIM_INFINITY:
        return
    if hard < count and hard != resource.RLIM_INFINITY:
        msg = f"{count} open files are needed, and the limit is {hard}: raise it by ulimit -n, or give fewer --readers"
        raise StreamError(msg)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _milliseconds(values: Sequence[float]) -> dict[str, float]:
    return {name: round(percentile(values, percent) * 1000, 1) for name, percent in PERCENTILES.items() if values}


def as_values(one: Measurement) -> dict[str, Any]:
    """Return a measurement as values for JSON."""
    return {
        "readers": one.readers,
        "opened": len(one.opened),
        "connects_per_second": round(len(one.opened) / one.connecting, 1),
        "connect_ms": _milliseconds(one.opened),
        "seconds": round(one.seconds, 2),
        "events": one.events,
        "events_per_second": round(one.events / (one.connecting + one.seconds), 1),
        "lag_ms": _milliseconds(one.lags),
        "lag_is": "behind the first reader" if one.is_behind_first else "since the publication",
        "failures": dict(one.failures),
        "own_delay_ms": _milliseconds(one.delays),
    }


def show(one: Measurement) -> None:
    """Print a measurement."""
    values, output = as_values(one), results()
    output.print(
        f"{values['opened']} of {one.readers} readers in {one.connecting:.2f} s: "
        f"{values['connects_per_second']} connects/s\n"
        f"{one.events} events in all: {values['events_per_second']} deliveries/s"
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("milliseconds")
    for name in PERCENTILES:
        table.add_column(name, justify="right")
    table.add_row("until the head", *map(str, values["connect_ms"].values()))
    if one.lags:
        table.add_row(f"lag {values['lag_is']}", *map(str, values["lag_ms"].values()))
    output.print(table)
    for reason, count in one.failures.most_common():
        output.print(f"{count} readers: {reason}", style="red")
    if not one.events:
        output.print("No event arrived: publish while it runs, to measure the lag.", style="dim")
    elif one.delays and percentile(one.delays, 90) > BUSY:
        output.print("This process was too busy: give fewer --readers, or run it elsewhere.", style="yellow")


def report(one: Measurement, *, as_json: bool) -> int:
    """Print a measurement, and return the exit code: 1 if a reader failed, else 0.

    Raises:
        StreamError: No reader got a stream.
    """
    if not one.opened:
        msg = f"no reader got the stream: {', '.join(one.failures)}: check the URL, and that the server runs"
        raise StreamError(msg)
    if as_json:
        print(json.dumps(as_values(one), indent=2))  # noqa: T201
    else:
        show(one)
    return 1 if one.failures else 0
