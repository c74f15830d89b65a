"""Many readers: what is counted, what is measured, and what is printed."""

import asyncio
import io
import json
import resource
import sys
import time
from collections import Counter

import pytest

from cli.scripted import Answer, Asked, Scripted
from sse_asgi._cli import bench
from sse_asgi._cli.bench import Bench, Measurement, allow_readers, percentile, report
from sse_asgi._cli.following import StreamError
from sse_asgi._cli.request import StreamRequest
from sse_asgi.decoder import DecodedEvent

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The commands run on asyncio only."""
    return "asyncio"


class Numbers:
    """Streams the same numbers to all readers, one every 50 ms, with the time if it is asked for."""

    def __init__(self, *, timed: bool = False, ends: bool = False) -> None:
        self.timed, self.ends = timed, ends
        self.began = time.monotonic()

    async def __call__(self, asked: Asked, answer: Answer) -> None:
        await answer.begin()
        while True:
            await asyncio.sleep(0.05)
            number = int((time.monotonic() - self.began) / 0.05)
            data = json.dumps({"at": time.time() - 5}) if self.timed else str(number)
            await answer.send(b"data: %b\n\n" % data.encode())
            if self.ends:
                await answer.end()
                return


async def measure(url: str, *, readers: int = 5, time_field: str | None = None) -> Measurement:
    work = Bench(StreamRequest.of(url), readers=readers, seconds=0.4, time_field=time_field)
    await work.run()
    return work.measurement


async def test_the_lag_is_behind_the_first_reader() -> None:
    """If the events have no time. All readers have a connection each."""
    with Scripted(Numbers()) as server:
        one = await measure(server.url)
    assert (len(one.opened), len(server.asked), one.failures) == (5, 5, {})
    assert one.is_behind_first
    assert min(one.lags) == 0
    assert one.events >= len(one.lags) >= 10
    assert 0.4 <= one.seconds < 3
    assert 0 < max(one.opened) <= one.connecting


async def test_the_lag_is_since_the_publication() -> None:
    """If the events have the time."""
    with Scripted(Numbers(timed=True)) as server:
        one = await measure(server.url, time_field="at")
    assert not one.is_behind_first
    assert all(5 <= seconds < 7 for seconds in one.lags)


async def test_failures_are_counted() -> None:
    """By their reasons; the others read on."""

    async def script(asked: Asked, answer: Answer) -> None:
        number = len(server.asked)
        if number == 1:
            await answer.refuse("404 Not Found")
        elif number == 2:
            await answer.refuse("200 OK", "Content-Type: text/html")
        elif number > 3:
            await Numbers(ends=number == 4)(asked, answer)

    with Scripted(script) as server:
        one = await measure(server.url)
    assert len(one.opened) == 2
    assert sorted(one.failures.values()) == [1, 1, 1, 1]
    assert {"the stream ended", "the answer was 404, no Content-Type", "the answer was 200, text/html"} < {
        *one.failures
    }


async def test_without_a_stream_it_ends_at_once() -> None:
    """The error has the reasons."""
    one = await measure("http://127.0.0.1:1/", readers=3)
    assert one.failures == {"no connection (Connection refused)": 3}
    with pytest.raises(StreamError, match=r"no reader got the stream: no connection .Connection refused.: check the"):
        report(one, as_json=False)


async def test_a_head_that_does_not_come_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the time is bounded also if a proxy holds the head back."""
    monkeypatch.setattr(bench, "HEAD_SECONDS", 0.3)

    async def script(asked: Asked, answer: Answer) -> None:
        await asyncio.sleep(60)

    with Scripted(script) as server:
        one = await measure(server.url, readers=2)
    assert one.failures == {"no head within 0.3 s": 2}


async def test_a_terminal_has_a_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the readers and events so far."""
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with Scripted(Numbers()) as server:
        await measure(server.url)
    assert "5 of 5 readers, " in terminal.getvalue()


def test_an_event_before_all_readers_are_open_has_no_lag() -> None:
    """Those that are not open yet do not get it."""
    work = Bench(StreamRequest.of("http://a/"), readers=1, seconds=1)
    work._note(DecodedEvent("message", "x", ""))
    assert (work.measurement.events, work._behind) == (1, [])


def test_the_same_content_is_another_event_after_the_last_reader() -> None:
    """So that a stream without ids that repeats itself can be measured."""
    work = Bench(StreamRequest.of("http://a/"), readers=2, seconds=1)
    work._reading = 2
    event = DecodedEvent("message", "x", "")
    assert [work._behind_first(event, now) for now in (1.0, 1.5, 7.0, 7.25, 9.0)] == [0, 0.5, 0, 0.25, 0]


def test_only_a_bounded_number_of_lags_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The events are counted further."""
    monkeypatch.setattr(bench, "MAX_LAGS", 2)
    work = Bench(StreamRequest.of("http://a/"), readers=1, seconds=1)
    work._all_open = 0.0
    for _ in range(4):
        work._note(DecodedEvent("message", "x", ""))
    assert (work.measurement.events, len(work._behind)) == (4, 2)


def test_it_asks_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the system's limit, which it names if it is too low."""
    limits = [(100, 1000)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    allow_readers(10)
    assert len(limits) == 1
    allow_readers(500)
    assert limits[-1] == (500 + bench.SPARE_FILES, 1000)
    with monkeypatch.context() as windows:
        windows.setitem(sys.modules, "resource", None)
        allow_readers(1000)
    with pytest.raises(StreamError, match=r"1064 open files are needed, and the limit is 1000: raise it by ulimit -n"):
        allow_readers(1000)


@pytest.mark.parametrize(("percent", "value"), [(50, 2), (75, 3), (76, 4), (100, 4), (0, 1)])
def test_percentiles(percent: float, value: float) -> None:
    """The smallest value that so many percent do not exceed."""
    assert percentile([4, 3, 1, 2], percent) == value


MEASURED = {"readers": 3, "opened": [0.1, 0.2], "connecting": 0.5, "seconds": 1.5}


def test_a_measurement_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """With each kind of failure, which makes the exit code 1."""
    lags = [0.001, 0.0123]
    one = Measurement(**MEASURED, lags=lags, events=10, failures=Counter(refused=1))  # type: ignore[arg-type]
    assert report(one, as_json=False) == 1
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "2 of 3 readers in 0.50 s: 4.0 connects/s",
        "10 events in all: 5.0 deliveries/s",
        "milliseconds                 p50    p90    p99    max",
        "until the head             100.0  200.0  200.0  200.0",
        "lag since the publication    1.0   12.3   12.3   12.3",
        "1 readers: refused",
    ]


@pytest.mark.parametrize(
    ("changes", "last"),
    [
        ({}, "No event arrived: publish while it runs, to measure the lag."),
        ({"events": 1, "delays": [0.0, 0.5]}, "This process was too busy: give fewer --readers, or run it elsewhere."),
        ({"events": 1, "delays": [0.01]}, "until the head  100.0  200.0  200.0  200.0"),
    ],
)
def test_what_makes_the_numbers_worthless_is_said(
    capsys: pytest.CaptureFixture[str], changes: dict[str, object], last: str
) -> None:
    """No events, or a process that could not keep up."""
    assert report(Measurement(**MEASURED, **changes), as_json=False) == 0  # type: ignore[arg-type]
    assert capsys.readouterr().out.splitlines()[-1].rstrip() == last


def test_json_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """In milliseconds."""
    assert report(Measurement(**MEASURED, lags=[0.002], is_behind_first=True), as_json=True) == 0  # type: ignore[arg-type]
    values = json.loads(capsys.readouterr().out)
    assert (values["connects_per_second"], values["lag_is"]) == (4.0, "behind the first reader")
    assert values["lag_ms"] == dict.fromkeys(("p50", "p90", "p99", "max"), 2.0)
