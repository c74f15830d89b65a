"""The doctor's own requests, answered by a server whose answers the test writes."""

import asyncio
from collections.abc import Callable

import pytest

from cli.scripted import GOOD, Answer, Asked, Scripted
from sse_asgi._cli import probes
from sse_asgi._cli.following import StreamError
from sse_asgi._cli.request import StreamRequest
from sse_asgi._cli.watch import Watch
from sse_asgi.decoder import DecodedEvent

pytestmark = pytest.mark.anyio
ORIGIN = "https://page.example"
ALLOWED = f"Access-Control-Allow-Origin: {ORIGIN}"


@pytest.fixture
def anyio_backend() -> str:
    """The commands run on asyncio only."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PATIENCE", 0.8)
    monkeypatch.setattr(probes, "ORIGIN_SECONDS", 0.5)
    monkeypatch.setattr(probes, "RESTART_SECONDS", 2.0)
    monkeypatch.setattr(probes, "OPEN_SECONDS", 0.2)


def problems(outcome: probes.Outcome) -> list[str]:
    return [one.problem for one in outcome.findings]


# HEAD


@pytest.mark.parametrize(
    ("status", "problem", "note"),
    [
        ("200 OK", None, None),
        ("404 Not Found", None, None),
        ("405 Method Not Allowed", None, "HEAD is answered 405, which some uptime checks take for a fault"),
        ("500 Internal Server Error", "HEAD is answered 500", None),
        ("hang", "HEAD is not answered within 0.8 s, so checks of uptime and caches hang", None),
        ("cut", "HEAD fails: the connection was cut off (Server disconnected without sending a response.)", None),
    ],
)
async def test_head(status: str, problem: str | None, note: str | None) -> None:
    """A 405 is correct, if unusual; a hanging one has started a stream."""

    async def script(asked: Asked, answer: Answer) -> None:
        if status == "hang":
            await asyncio.sleep(5)
        elif status != "cut":
            await answer.refuse(status)

    with Scripted(script) as server:
        outcome = await probes.head(StreamRequest.of(server.url))
    assert (problems(outcome), outcome.notes) == ([problem] if problem else [], [note] if note else [])


# CORS


async def test_cors_needs_an_origin() -> None:
    """Without one it says how to give it."""
    outcome = await probes.cors(StreamRequest.of("http://127.0.0.1:1/"), None)
    assert (outcome.findings, "--origin" in outcome.notes[0]) == ([], True)


@pytest.mark.parametrize(
    ("get", "options", "headers", "problem"),
    [
        ((ALLOWED,), "", (), ""),
        (("Access-Control-Allow-Origin: *",), "", (), ""),
        ((), "", (), "Access-Control-Allow-Origin is missing, so the browser gives up at once"),
        (("Access-Control-Allow-Origin: https://o",), "", (), "Access-Control-Allow-Origin is https://o, so the"),
        (("Access-Control-Allow-Origin: *",), "", ("Cookie: a=b",), "Access-Control-Allow-Origin is *, so the"),
        ((ALLOWED,), "", ("Cookie: a=b",), "Access-Control-Allow-Credentials: true is missing"),
        ((ALLOWED, "Access-Control-Allow-Credentials: true"), "", ("Cookie: a=b",), ""),
        ((ALLOWED,), "404 Not Found", ("X-Key: 1",), "the preflight is answered 404"),
        ((ALLOWED,), "200 OK|X-A", ("X-Key: 1", "X-A: 1"), "the preflight does not allow the headers x-key"),
        ((ALLOWED,), "200 OK|x-key, X-A", ("X-Key: 1",), ""),
        ((ALLOWED,), "204 No Content|*", ("X-Key: 1",), ""),
        ((ALLOWED,), "cut", ("X-Key: 1",), "the preflight fails: the connection was cut off"),
        ("403 Forbidden", "", (), "the answer is 403"),
        ("cut", "", (), "a request with this origin is not answered: the connection was cut off"),
        ("hang", "", (), "a request with this origin is not answered: its head does not arrive"),
    ],
)
async def test_cors(get: tuple[str, ...] | str, options: str, headers: tuple[str, ...], problem: str) -> None:
    """What the browser would refuse."""

    async def script(asked: Asked, answer: Answer) -> None:
        assert asked.headers["origin"] == ORIGIN
        if asked.method == "OPTIONS":
            status, _, names = options.partition("|")
            if status != "cut":
                await answer.refuse(status, f"Access-Control-Allow-Headers: {names}")
        elif get == "hang":
            await asyncio.sleep(5)
        elif isinstance(get, tuple):
            await answer.begin(GOOD + "".join(f"{line}\r\n" for line in get).encode())
            await asyncio.sleep(5)
        elif get != "cut":
            await answer.refuse(get)

    with Scripted(script) as server:
        outcome = await probes.cors(StreamRequest.of(server.url, headers=headers), ORIGIN)
    assert len(outcome.findings) == bool(problem)
    for one in outcome.findings:
        assert one.problem.startswith(f"For a page of {ORIGIN}, {problem}")


# Resuming


def watched(url: str, *ids: str, method: str = "GET") -> Watch:
    events = [(DecodedEvent("message", "x", one), 0.0) for one in ids]
    return Watch(StreamRequest.of(url, method=method), events=events)


@pytest.mark.parametrize(
    ("ids", "method", "note"),
    [
        (("1", "2"), "POST", "resuming was not tried, because the request is not a GET"),
        (("", ""), "GET", "the events have no ids, so what is sent while a client is away is lost for it"),
        (("1",), "GET", "resuming was not tried, because fewer than two events with ids arrived: give --publish"),
        (("1", "1"), "GET", "resuming was not tried, because fewer than two events with ids arrived: give --publish"),
        ((), "GET", "resuming was not tried, because fewer than two events with ids arrived: give --publish"),
    ],
)
async def test_what_cannot_be_resumed(ids: tuple[str, ...], method: str, note: str) -> None:
    """It is a note, because a stream may do without."""
    assert await probes.resume(watched("http://127.0.0.1:1/", *ids, method=method), None) == ([], [note])


async def test_positions_are_not_expected_again() -> None:
    """Only the events of the application are; a position before one is where to resume from."""
    events = [("sse.position", "1"), ("sse.position", "2"), ("message", "3")]
    watch = Watch(StreamRequest.of("http://127.0.0.1:1/"))
    watch.events = [(DecodedEvent(name, "x", one), 0.0) for name, one in events]
    assert probes._neighbours([event for event, _ in watch.events]) == ("2", "3")
    assert probes._neighbours([event for event, _ in watch.events[:2]]) is None


def resumed(*frames: bytes) -> Callable[[Asked, Answer], object]:
    async def script(asked: Asked, answer: Answer) -> None:
        assert asked.headers["last-event-id"] == "1"
        await answer.begin()
        for frame in frames:
            await answer.send(frame)
        await asyncio.sleep(5)

    return script


@pytest.mark.parametrize(
    ("frames", "problem"),
    [
        ((b"data: none\n\n", b"id: 2\ndata: x\n\n"), None),
        ((b"id: 1\nevent: sse.gap\ndata: {}\n\n",), None),
        ((b"id: 1\ndata: x\n\n",), "this event comes again: the header is ignored, and a client gets events twice"),
        ((b"id: 3\ndata: x\n\n",), "the next event is 3 instead of 2, so the header is ignored or events are lost"),
        ((), "the event 2 does not come again, so a client that was away misses it"),
    ],
)
async def test_resuming(frames: tuple[bytes, ...], problem: str | None) -> None:
    """The event after the named one must come first; a gap that is announced is honest."""
    with Scripted(resumed(*frames)) as server:  # type: ignore[arg-type]
        outcome = await probes.resume(watched(server.url, "1", "2", "3"), None)
    assert problems(outcome) == ([f"After Last-Event-ID: 1, {problem}"] if problem else [])


@pytest.mark.parametrize("direct_works", [True, False])
async def test_the_hop_that_forgets_the_id_is_named(*, direct_works: bool) -> None:
    """If the direct URL resumes."""
    good, wrong = b"id: 2\ndata: x\n\n", b"id: 1\ndata: x\n\n"
    with (
        Scripted(resumed(wrong)) as url,  # type: ignore[arg-type]
        Scripted(resumed(good if direct_works else wrong)) as direct,  # type: ignore[arg-type]
    ):
        outcome = await probes.resume(watched(url.url, "1", "2"), watched(direct.url))
        (finding,) = outcome.findings
        assert finding.where == (f"between {direct.url} and {url.url}" if direct_works else url.url)


# Restarting


async def test_a_restart_needs_a_command() -> None:
    """Without one it says how to give it."""
    outcome = await probes.restart(StreamRequest.of("http://127.0.0.1:1/"), None)
    assert (outcome.findings, "--restart" in outcome.notes[0]) == ([], True)


@pytest.mark.parametrize(
    ("first", "later", "expected"),
    [
        ("complete", "stream", []),
        ("cut", "stream", ["restart-cut"]),
        ("open", "stream", ["restart-open"]),
        ("slow", "stream", []),
        ("complete", "502 Bad Gateway", ["restart-status", "restart-gone"]),
        ("complete", "cut", ["restart-gone"]),
    ],
)
async def test_a_restart(first: str, later: str, expected: list[str]) -> None:
    """How the stream ends, what clients get meanwhile, and whether it is back."""

    async def script(asked: Asked, answer: Answer) -> None:
        if len(server.asked) == 1 or later == "stream":
            await answer.begin()
            await answer.send(b":\n" if first == "complete" else b"retry: 5\n")
            await asyncio.sleep({"open": 5.0, "slow": 0.7}.get(first, 0.2) if len(server.asked) == 1 else 5)
            if first in ("complete", "slow"):
                await answer.end()
        elif later != "cut":
            await answer.refuse(later)

    with Scripted(script) as server:
        outcome = await probes.restart(StreamRequest.of(server.url), "sleep 0.3")
    assert [one.code for one in outcome.findings] == expected
    assert len(outcome.notes) == (first == "complete")


async def test_a_command_that_fails_is_an_error() -> None:
    """With its exit code, and the last line of its output."""

    async def script(asked: Asked, answer: Answer) -> None:
        await answer.begin()
        await asyncio.sleep(5)

    message = "^the command of --restart ended with exit code 3: second$"
    with Scripted(script) as server, pytest.raises(StreamError, match=message):
        await probes.restart(StreamRequest.of(server.url), "echo first; echo second; exit 3")
    assert await probes.shell("exit 4", "--x") == "the command of --x ended with exit code 4"
    assert await probes.shell("echo fine", "--x") == ""
