"""What is concluded from what was seen, without a server."""

import re
from pathlib import Path

import httpx
import pytest

from sse_asgi._cli import findings, probes
from sse_asgi._cli.request import StreamRequest
from sse_asgi._cli.watch import COMPLETE, Arrival, Watch
from sse_asgi.decoder import DecodedEvent

GOOD = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}
URL, DIRECT = "http://public/", "http://direct/"


def seen(
    *times: float,
    url: str = URL,
    status: int = 200,
    headers: dict[str, str] | None = None,
    version: bytes = b"HTTP/1.1",
    end: str = "",
    looked: float = 20.0,
    pings: int = 1,
) -> Watch:
    """Return a watch that began at 0 and got a ping at each of these times."""
    response = httpx.Response(
        status, headers=GOOD if headers is None else headers, extensions={"http_version": version}
    )
    arrivals = [Arrival(at, 0, pings) for at in times]
    return Watch(StreamRequest.of(url), head=0.1, response=response, arrivals=arrivals, looked=looked, end=end)


def with_events(watch: Watch, **times: float) -> Watch:
    watch.events += ((DecodedEvent("message", data, data), at) for data, at in times.items())
    return watch


def codes(found: list[findings.Finding]) -> list[str]:
    return [one.code for one in found]


def test_a_good_stream_has_no_finding() -> None:
    """Neither alone nor beside the direct one."""
    url, direct = seen(1, 2, 3), seen(1, 2, 3, url=DIRECT)
    assert findings.of_answer(url) == findings.of_headers(url, direct) == findings.of_http_version(url) == []
    assert findings.of_buffering(url, None) == findings.of_buffering(url, direct, [1.0, 2.0]) == []
    assert findings.of_compression(url, seen(1, 2, 3), direct=False) == findings.of_delay(url, direct) == []
    assert findings.of_end(url, direct) == findings.of_silence(url) == []


def test_every_code_is_documented() -> None:
    """docs/command-line.md has a row for each code, and for no other."""
    sources = "".join(Path(str(one.__file__)).read_text() for one in (findings, probes))
    table = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text().partition("| code |")[2]
    rows = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    assert set(re.findall(r'Finding\(\s*"([\w-]+)"', sources)) == set(re.findall("`(.+?)`", " ".join(rows)))


# Heads


@pytest.mark.parametrize(
    ("watch", "code", "problem"),
    [
        (Watch(StreamRequest.of(URL), end="no connection (x)"), "unreachable", "There is no answer: no connection (x)"),
        (Watch(StreamRequest.of(URL), looked=9.0), "head-held", "did not arrive within 9.0 s"),
        (seen(status=401), "status", "The answer is 401, after which an EventSource never tries again"),
        (seen(headers={"Content-Type": "text/html"}), "content-type", "The Content-Type is text/html"),
        (seen(headers={}), "content-type", "The Content-Type is missing"),
    ],
)
def test_no_stream(watch: Watch, code: str, problem: str) -> None:
    """The reason is said."""
    (finding,) = findings.of_answer(watch)
    assert (finding.code, finding.where) == (code, URL)
    assert problem in finding.problem


def test_a_head_is_held_by_the_hop() -> None:
    """If the direct URL answers."""
    (finding,) = findings.of_answer(Watch(StreamRequest.of(URL), looked=9.0), seen(url=DIRECT))
    assert finding.where == "between http://direct/ and http://public/"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Cache-Control": "max-age=60"}, ["cache-control"]),
        ({"Cache-Control": ""}, ["cache-control"]),
        ({"Cache-Control": "no-store"}, ["no-transform"]),
        ({"Cache-Control": "no-store, no-transform"}, []),
        ({"X-Accel-Buffering": "yes"}, ["x-accel-buffering"]),
        ({"X-Accel-Buffering": "", "Server": "nginx/1.22"}, []),
    ],
)
def test_missing_headers(headers: dict[str, str], expected: list[str]) -> None:
    """A nginx takes X-Accel-Buffering away, so that it is not missed."""
    assert codes(findings.of_headers(seen(headers={**GOOD, **headers}), None)) == expected


def test_a_header_that_the_proxy_took_is_not_missed() -> None:
    """If the direct stream has it."""
    bare = seen(headers={**GOOD, "X-Accel-Buffering": ""})
    assert findings.of_headers(bare, seen(url=DIRECT)) == []
    assert codes(findings.of_headers(bare, bare)) == ["x-accel-buffering"]


@pytest.mark.parametrize(
    ("url", "version", "expected"),
    [
        ("https://a/", b"HTTP/1.1", ["http-version"]),
        ("https://a/", b"HTTP/2", []),
        ("http://a/", b"HTTP/1.1", []),
    ],
)
def test_http_1_with_tls(url: str, version: bytes, expected: list[str]) -> None:
    """Without TLS, browsers have no HTTP/2."""
    assert codes(findings.of_http_version(seen(url=url, version=version))) == expected


# Buffering


@pytest.mark.parametrize(
    ("moments", "arrivals", "held"),
    [
        ((), (), False),
        ((1,), (), True),
        ((1,), (1.5,), False),
        ((1,), (2,), True),
        ((1.1,), (1,), False),  # timers are not exact
        ((1, 2, 3, 4), (1, 4), False),  # two of four: a slow moment is no buffer
        ((1, 2, 3, 4), (4,), True),
        ((1, 2, 3), (1, 2, 5), False),  # a pause of its own
        ((1, 2, 3), (1, 2), True),  # the last one is still held
        ((19.5,), (), False),  # it may come yet
    ],
)
def test_what_is_held(moments: tuple[float, ...], arrivals: tuple[float, ...], *, held: bool) -> None:
    """More than half of the moments without an arrival soon after, or the last one without any."""
    assert findings.is_held(moments, seen(*arrivals)) == held


def test_the_hop_buffers() -> None:
    """What arrives at the direct URL does not arrive at the public one; nginx is told what to do with it."""
    nginx = seen(url=URL, headers={**GOOD, "Server": "nginx"})
    (finding,) = findings.of_buffering(nginx, seen(1, 2, url=DIRECT))
    assert (finding.code, finding.where) == ("buffering", "between http://direct/ and http://public/")
    assert "In nginx" in finding.fix


def test_a_published_event_does_not_arrive() -> None:
    """Without a direct URL the place is unknown; with one, the application is at fault if it does not arrive there."""
    (finding,) = findings.of_buffering(seen(), None, [1.0])
    assert (finding.where, "a command has published them" in finding.problem) == (URL, True)
    (finding,) = findings.of_buffering(seen(), seen(url=DIRECT), [1.0])
    assert (finding.where, "GZip" in finding.fix) == (DIRECT, True)


def test_pings_that_arrive_together_were_held() -> None:
    """The only sign without anything to compare with; the first piece may have several comments."""
    assert codes(findings.of_buffering(seen(0.1, pings=3), None)) == []
    (finding,) = findings.of_buffering(seen(0.1, 9, pings=3), None)
    assert finding.problem.startswith("3 pings arrived at the same moment")


@pytest.mark.parametrize(("direct", "fix"), [(True, "GZipMiddleware"), (False, "in the proxy")])
def test_compression_buffers(*, direct: bool, fix: str) -> None:
    """In the application or in the proxy."""
    (finding,) = findings.of_compression(seen(1, 2), seen(), direct=direct)
    assert (finding.code, fix in finding.fix) == ("buffering-gzip", True)


def test_a_compressed_stream_that_failed_is_not_judged() -> None:
    """It has no head."""
    failed = Watch(StreamRequest.of(URL), looked=20.0, end="no connection")
    assert findings.of_compression(seen(1, 2), failed, direct=False) == []


def test_events_are_late() -> None:
    """By the median of those that both have seen, except the first ones, which a new connection delays."""
    direct = with_events(seen(url=DIRECT), early=0.1, a=1.0, b=2.0, other=3.0)
    (finding,) = findings.of_delay(with_events(seen(), early=0.9, a=1.2, b=2.21), direct)
    assert finding.problem == "Each event is about 205 ms later than from the direct URL"
    assert findings.of_delay(with_events(seen(), a=1.05, b=2.05), direct) == []


# Ends


@pytest.mark.parametrize(
    ("times", "end", "looked", "expected"),
    [
        ((0.5,), "cut off", 2.0, ["idle-cut"]),
        ((0.5,), COMPLETE, 2.0, ["idle-cut"]),
        ((0.5, 1.0, 1.5), "cut off", 2.0, ["cut-off"]),
        ((0.5, 1.0, 1.5), COMPLETE, 2.0, []),
        ((0.5, 2.0), "cut off", 3.0, ["cut-off"]),  # it had survived a longer silence
        ((0.5,), "", 20.0, []),
    ],
)
def test_how_a_stream_ends(times: tuple[float, ...], end: str, looked: float, expected: list[str]) -> None:
    """After the longest silence, or while it was sending."""
    assert codes(findings.of_end(seen(*times, end=end, looked=looked), None)) == expected


@pytest.mark.parametrize(
    ("headers", "version"),
    [({"Transfer-Encoding": "chunked"}, b"HTTP/1.1"), ({"Content-Length": "9"}, b"HTTP/1.1"), ({}, b"HTTP/2")],
)
def test_a_body_that_tells_its_end_was_not_cut(headers: dict[str, str], version: bytes) -> None:
    """A silence before it is one of the application."""
    watch = seen(0.5, end=COMPLETE, looked=2.0, headers={**GOOD, **headers}, version=version)
    assert findings.of_end(watch, None) == []


def test_a_finished_stream_was_not_cut() -> None:
    """It said so."""
    watch = seen(0.5, end="cut off", looked=2.0)
    watch.events.append((DecodedEvent("sse.end", "{}", "sse.end"), 0.5))
    assert findings.of_end(watch, None) == []


@pytest.mark.parametrize(("direct_end", "where"), [("", "between http://direct/ and http://public/"), ("cut off", URL)])
def test_the_hop_cuts(direct_end: str, where: str) -> None:
    """If the direct stream stays open."""
    direct = seen(0.5, end=direct_end, url=DIRECT)
    (finding,) = findings.of_end(seen(0.5, end="cut off", looked=2.0), direct)
    assert finding.where == where


def test_a_stream_without_pings() -> None:
    """After half a minute, because proxies cut after a whole one."""
    (finding,) = findings.of_silence(seen(1.0, looked=45.0))
    assert finding.problem.startswith("Nothing arrived for 44 s")
