"""What a client sees of one response: statuses, errors, ends, bytes. Each function returns a cell."""

import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

from servers.processes import Server, clock
from strangers.comparison.apps.contents import FLOOD, PART
from strangers.comparison.readers import Reader, post, resident, shown

SILENCE = 16.5  # seconds; the longest default interval of pings is 15
STOP = 5.0
SMALL = 4096  # bytes of the receive buffer of a client that does not read
FLOODED = FLOOD * len(PART) / (1 << 20)  # MiB
ENDS = {"LF": "\n", "CR LF": "\r\n", "CR": "\r"}
PROXIES = {"cache-control": "Cache-Control", "x-accel-buffering": "X-Accel-Buffering"}

Events = list[tuple[str, str]]


def _seen(reader: Reader) -> str:
    return f"{shown(reader.events)}, {reader.ending or 'open'}"


def refused(server: Server, path: str) -> str:
    """An exception with the status 402."""
    with Reader(server.port, path) as reader:
        reader.rest()
        return str(reader.status) if reader.status != 200 else f"200, {_seen(reader)}"


def failed(server: Server) -> str:
    """A generator yields `one`, and raises."""
    with Reader(server.port, "/fails") as reader:
        return _seen(reader.rest())


def cleaned(server: Server) -> str:
    """A client leaves while the generator waits; its `finally` reports, awaits, and reports again."""
    with Reader(server.port, "/waits") as reader:
        assert reader.until(lambda: reader.events)
    began = clock()
    while "cleanup ends" not in server.log() and clock() - began < 1:
        time.sleep(0.02)
    if "cleanup ends" in server.log():
        return "`finally` runs to its end"
    return "`finally` is cancelled at its `await`" if "cleanup begins" in server.log() else "`finally` does not run"


def asked_again(server: Server) -> str:
    """A job that has finished is asked for again, as an EventSource does."""
    with Reader(server.port, "/job") as reader:
        reader.rest()
    with Reader(server.port, "/job", last_event_id=reader.last_event_id) as again:
        again.rest()
    return f"{again.status}, " + ("runs again" if server.log().count("job runs") > 1 else "does not run")


def head(server: Server, path: str) -> str:
    """The status of a HEAD."""
    with Reader(server.port, path, method="HEAD") as reader:
        return str(reader.status) if reader.status else "no answer in 3 s"


def headers(reader: Reader) -> str:
    """The headers that tell a proxy what to do."""
    return "<br>".join(f"`{PROXIES[one]}: {reader.headers[one]}`" for one in PROXIES if one in reader.headers) or "none"


def silence(reader: Reader) -> str:
    """What a silent stream is sent, with the defaults, after its beginning."""
    opened = time.monotonic()
    reader.until(lambda: False, 0.2)
    before = len(reader.content)
    if not reader.until(lambda: len(reader.content) > before, SILENCE):
        return "nothing"
    assert reader.content[before:].startswith(b":"), reader.content
    return f"a comment after {round((time.monotonic() - opened) / 5) * 5} s"


def stopped(server: Server, path: str) -> str:
    """SIGINT, as Ctrl-C sends it, while a client waits for events."""
    with Reader(server.port, path) as reader:
        assert reader.until(lambda: reader.events)
        began = clock()
        server.send(signal.SIGINT)
        try:
            server.process.wait(STOP)
        except subprocess.TimeoutExpired:
            return f"runs on after {STOP:g} s"
        assert clock() - began < 1
        return f"ends within 1 s, bodies are {reader.rest().ending}"


def events(port: int, path: str) -> Events:
    """The types and data of the events of a short stream."""
    with Reader(port, path) as reader:
        reader.until(lambda: reader.ending or reader.events)
        return [(one.event, one.data) for one in reader.events if one.event != "sse.end"]


def lines(write: Callable[[str], Events]) -> str:
    """Data whose second line looks like a field, with each kind of line end."""
    wrong = [name for name, end in ENDS.items() if write(f"a{end}event: evil") != [("message", "a\nevent: evil")]]
    return f"{', '.join(wrong)}: **the second line becomes a field**" if wrong else "a line each"


def injected(server: Server, field: str) -> str:
    """Another field behind a line end, in the type or the id of an event."""
    found = set()
    for end in ENDS.values():
        came = events(server.port, "/one?" + urlencode({"data": "x", field: f"a{end}data: evil"}))
        if came:
            found.add("removed" if [data for _, data in came] == ["x"] else "**becomes a field**")
        else:
            found.add("refused")
    return ", ".join(sorted(found))


def flooded(server: Server, send_timeout: str) -> dict[str, str]:
    """A generator that never waits, and a client that reads nothing; `send_timeout` is a second, if it exists."""
    before, began = resident(server.process.pid), clock()
    with Reader(server.port, "/flood", buffer=SMALL):
        counts = [0]
        while counts[-1] < FLOOD and counts[-5:] != counts[-1:] * 5:
            time.sleep(0.05)
            counts.append(int(server.get("/count")))
        assert resident(server.process.pid) - before < FLOODED / 2
        while "flood ends" not in server.log() and clock() - began < 3:
            time.sleep(0.05)
        cut_off = "flood ends" in server.log()
    return {
        "a generator faster than its client": "waits" if counts[-1] < FLOOD else "runs on",
        "a client that reads nothing": f"cut off after `send_timeout`, {send_timeout}" if cut_off else "kept",
    }


def of_generators(server: Server, send_timeout: str) -> dict[str, str]:
    """Observe streams of generators. The server has got SIGINT at the end."""
    port = server.port
    with Reader(port, "/silent") as silent, ThreadPoolExecutor(1) as beside:
        heard = beside.submit(silence, silent)
        return {
            "402 before the stream is made": refused(server, "/paid"),
            "402 from the generator, before its first event": refused(server, "/refused"),
            "an error after `one`": failed(server),
            "the client leaves; after 1 s": cleaned(server),
            "a finished job is asked for again": asked_again(server),
            "HEAD": head(server, "/job"),
            "headers for proxies": headers(silent),
            "line ends in data": lines(lambda data: events(port, "/one?" + urlencode({"data": data}))),
            "a line end in `event`": injected(server, "event"),
            "a line end in `id`": injected(server, "id"),
            **flooded(server, send_timeout),
            "15 s of silence": heard.result(),
            "Ctrl-C with open streams": stopped(server, "/waits"),
        }


def of_nchan(server: Server) -> dict[str, str]:
    """Observe what of the same nchan has; it runs no code of an application."""
    port = server.port

    def write(data: str) -> Events:
        channel = f"{len(data)}{data[1]!r}"
        path = urlencode({"channel": channel})
        post(port, f"/events?{path}", data)
        return events(port, f"/waits?{path}")

    with Reader(port, "/waits?channel=silent") as silent, ThreadPoolExecutor(1) as beside:
        heard = beside.submit(silence, silent)
        cells = {
            "402 before the stream is made": refused(server, "/paid"),
            "HEAD": head(server, "/waits?channel=head"),
            "headers for proxies": headers(silent),
            "line ends in data": lines(write),
            "15 s of silence": heard.result(),
        }
        post(port, "/events?channel=open", "one")
        return {**cells, "Ctrl-C with open streams": stopped(server, "/waits?channel=open")}
