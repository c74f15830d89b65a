"""What the doctor concludes from what it has seen; without I/O.

A stream of any server is judged by comparing connections that were open at the same time. Whenever the reference gets
something, the other connection must get something within HELD seconds. The reference is the direct URL for the public
one, the plain stream for the compressed one, and the times at which a command published. Without a reference only two
signs of buffering are left: several pings in one piece, and silence.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import NamedTuple

from .request import EVENT_STREAM, media_type
from .watch import COMPLETE, Watch

HELD = 0.7
EARLY = 0.25  # timers of two connections, such as those of pings, are not exact
LATE = 0.1
SILENCE = 30.0
DOCS = "https://github.com/sse-asgi/sse-asgi/blob/main/docs/proxies.md"
BUFFERING_FIX = {
    "nginx": "In nginx, let the X-Accel-Buffering: no of the application pass, or set `proxy_buffering off;` here",
    "": f"Turn off response buffering and caching for this path in the proxy: {DOCS}",
}


class Finding(NamedTuple):
    """A fault of a stream.

    Attributes:
        code: A stable name, for scripts.
        where: The part to look at.
        problem: What is wrong, and what follows from it.
        fix: What to change.
    """

    code: str
    where: str
    problem: str
    fix: str


def server_of(watch: Watch) -> str:
    """Return the product that answered, in lower case, or "" if it does not say so."""
    name: str = watch.response.headers.get("Server", "") if watch.response else ""
    return name.partition("/")[0].strip().lower()


def _between(url: Watch, direct: Watch | None, innocent: object) -> str:
    """Return the place of a fault: the way between both URLs if the direct one is innocent, else the URL."""
    return f"between {direct.request.url} and {url.request.url}" if direct and innocent else url.request.url


# What is certain from one head


def of_answer(watch: Watch, direct: Watch | None = None) -> list[Finding]:
    """Find that there is no stream at all, after which nothing else can be judged."""
    url, response = watch.request.url, watch.response
    if response is None:
        if watch.end:
            fix = "Check the URL, and that the server runs"
            return [Finding("unreachable", url, f"There is no answer: {watch.end}", fix)]
        seconds = watch.looked - watch.began
        problem = f"The head of the answer did not arrive within {seconds:.1f} s, so `open` does not fire in a page"
        fix = f"Send the head and a first comment at once. If the application does, a proxy holds them back: {DOCS}"
        return [Finding("head-held", _between(watch, direct, direct and direct.response), problem, fix)]
    if response.status_code != HTTPStatus.OK:
        problem = f"The answer is {response.status_code}, after which an EventSource never tries again"
        fix = "Answer 200; if a right is missing, give the doctor --header, and if a path is wrong, another URL"
        return [Finding("status", url, problem, fix)]
    if media_type(response) != EVENT_STREAM:
        got = response.headers.get("Content-Type", "missing")
        problem = f"The Content-Type is {got}, so an EventSource closes the stream for good"
        return [Finding("content-type", url, problem, f"Send Content-Type: {EVENT_STREAM}")]
    return []


def of_headers(watch: Watch, direct: Watch | None) -> list[Finding]:
    """Find headers without which caches, compressors and proxies treat a stream like a page.

    An nginx obeys X-Accel-Buffering and removes it, so it may be missing there, or if the direct stream has it.
    """
    assert watch.response is not None
    url, headers, found = watch.request.url, watch.response.headers, []
    control: str = headers.get("Cache-Control", "").lower()
    if "no-cache" not in control and "no-store" not in control:
        problem = f"Cache-Control is {control or 'missing'}, so a cache may keep the stream, and wait for its end"
        found.append(Finding("cache-control", url, problem, "Send Cache-Control: no-cache, no-transform"))
    elif "no-transform" not in control:
        problem = f"Cache-Control is {control}, so a proxy may compress the stream, and hold events back for that"
        found.append(Finding("no-transform", url, problem, "Send Cache-Control: no-cache, no-transform"))
    has_it = any(
        one and one.response and one.response.headers.get("X-Accel-Buffering") == "no" for one in (watch, direct)
    )
    if not has_it and server_of(watch) not in ("nginx", "openresty"):
        problem = "X-Accel-Buffering: no is missing, so an nginx in front of this server collects events"
        found.append(Finding("x-accel-buffering", url, problem, "Send X-Accel-Buffering: no"))
    return found


def of_http_version(watch: Watch) -> list[Finding]:
    """Find a TLS server without HTTP/2."""
    assert watch.response is not None
    version = watch.response.http_version
    if not watch.request.url.startswith("https:") or version not in ("HTTP/1.0", "HTTP/1.1"):
        return []
    problem = (
        f"The server speaks {version}, with which a browser opens six connections to it for all tabs together: "
        "the seventh stream waits, and so does every other request of the page"
    )
    fix = "Turn on HTTP/2: in nginx `listen 443 ssl http2;` or `http2 on;`, in HAProxy `alpn h2,http/1.1`"
    return [Finding("http-version", watch.request.url, problem, fix)]


# What several connections show together


def is_held(moments: Iterable[float], watch: Watch) -> bool:
    """Return True if most pieces that must have been sent at these moments arrived late, or the last one never did.

    A single late one proves nothing: two answers of a language model do not pause at the same time.
    """
    seen = [moment for moment in moments if moment <= watch.looked - HELD]
    delays = [min((one.time - at for one in watch.arrivals if one.time >= at - EARLY), default=math.inf) for at in seen]
    late = [delay > HELD for delay in delays]
    return bool(late) and (delays[-1] == math.inf or sum(late) * 2 > len(late))


def of_buffering(url: Watch, direct: Watch | None, published: Sequence[float] = ()) -> list[Finding]:
    """Find a hop that holds events back.

    Args:
        url: The public stream, not compressed.
        direct: The same stream without the proxies, if there is one.
        published: When a command has published an event.
    """
    moments = [] if direct is None else [one.time for one in direct.arrivals]
    if direct is not None and is_held(published, direct):
        return [_held_by_application(direct)]
    if is_held([*moments, *published], url):
        where = _between(url, direct, innocent=True)
        proof = "they arrive at once from the direct URL" if moments else "a command has published them"
        problem = f"Events and pings are held back: {proof}, and arrive late or not at all from this one"
        return [Finding("buffering", where, problem, BUFFERING_FIX.get(server_of(url), BUFFERING_FIX[""]))]
    count = max((one.pings for one in url.arrivals[1:]), default=0)
    if direct is None and count > 1:
        problem = f"{count} pings arrived at the same moment, but a server sends them one by one: they were held back"
        return [Finding("buffering", url.request.url, problem, BUFFERING_FIX.get(server_of(url), BUFFERING_FIX[""]))]
    return []


def _held_by_application(direct: Watch) -> Finding:
    problem = "A command has published events, and they arrive late or not at all although no proxy is in between"
    fix = "Look for middleware that buffers, such as GZip, and for a channel that the command does not publish to"
    return Finding("buffering", direct.request.url, problem, fix)


def of_compression(plain: Watch, compressed: Watch, *, direct: bool) -> list[Finding]:
    """Find that a stream is held back only if the client accepts compression, as every browser does.

    Args:
        plain: The stream without compression, at the same URL.
        compressed: The same with `Accept-Encoding: gzip`.
        direct: No proxy is in between.
    """
    if (compressed.end and compressed.head is None) or not is_held([one.time for one in plain.arrivals], compressed):
        return []
    problem = "Events and pings are held back if the client accepts gzip, as every browser does; without it they pass"
    fix = (
        "Leave text/event-stream out of the compression of the application, such as GZipMiddleware"
        if direct
        else f"Do not compress text/event-stream in the proxy, or let it flush after each event: {DOCS}"
    )
    return [Finding("buffering-gzip", plain.request.url, problem, fix)]


def of_delay(url: Watch, direct: Watch) -> list[Finding]:
    """Find a hop that passes each event on, but a little later, as by Nagle's algorithm."""
    first = {(event.event, event.id, event.data): at for event, at in reversed(direct.events)}
    keys = [((event.event, event.id, event.data), at) for event, at in url.events]
    delays = [at - first[key] for key, at in keys if key in first and first[key] > max(url.began, direct.began) + EARLY]
    if not delays or (typical := statistics.median(delays)) < LATE:
        return []
    problem = f"Each event is about {typical * 1000:.0f} ms later than from the direct URL"
    fix = f"In HAProxy, set `option http-no-delay`; elsewhere turn on TCP_NODELAY: {DOCS}"
    return [Finding("late", _between(url, direct, innocent=True), problem, fix)]


# What time shows


def of_end(watch: Watch, direct: Watch | None) -> list[Finding]:
    """Find that an idle stream was cut off, or that any stream was after a while."""
    if not watch.end or watch.finished:
        return []
    if watch.end == COMPLETE and _tells_its_end(watch):
        return []
    by = _between(watch, direct, direct and not direct.end)
    idle = watch.last_silence
    if idle >= HELD and idle >= watch.longest_silence:
        problem = f"The stream was cut off after {idle:.1f} s in which nothing was sent"
        fix = f"Send a ping more often than that (ping_interval=), or raise the proxy's read timeout: {DOCS}"
        return [Finding("idle-cut", by, problem, fix)]
    if watch.end == COMPLETE:
        return []
    problem = f"The stream was cut off {watch.looked - watch.began:.1f} s after its beginning, while it was sending"
    fix = "Raise the limit of a whole response in the proxy or the server, or end streams earlier with max_lifetime="
    return [Finding("cut-off", by, problem, fix)]


def _tells_its_end(watch: Watch) -> bool:
    """Return True if a complete body can be told from one that was cut off, which needs a length or chunks."""
    assert watch.response is not None
    is_http_1 = watch.response.http_version in ("HTTP/1.0", "HTTP/1.1")
    return not is_http_1 or not {"transfer-encoding", "content-length"}.isdisjoint(watch.response.headers)


def of_silence(watch: Watch) -> list[Finding]:
    """Find a stream without pings."""
    if watch.longest_silence < SILENCE:
        return []
    problem = f"Nothing arrived for {watch.longest_silence:.0f} s; many proxies cut a silent stream after 60 s"
    fix = "Send a comment line such as `:` every 15 s (ping_interval=). If the application does, a proxy holds it back"
    return [Finding("silent", watch.request.url, problem, fix)]
