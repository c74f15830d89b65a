"""The library's own events in Chromium, Firefox and WebKit, which read ids by different rules."""

from collections.abc import Callable, Iterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Router
from starlette.types import ASGIApp

from browser.engines import Tab
from browser.peers import Wire, until
from sse_asgi import EventSourceApp, EventSourceResponse, Subscription

# Reads a stream as a page that ignores the library's own events, and records the others.
READ = """(url, ...types) => {
  window.got = [];
  window.source = new EventSource(url);
  source.onmessage = event => got.push(event.data);
  for (const type of types) source.addEventListener(type, event => got.push([event.type, event.data]));
}"""
GOT = "() => got"
CLOSED = "() => source.readyState === EventSource.CLOSED"


def mounted(wire: Wire) -> Callable[[Request], ASGIApp]:
    app = Router([Mount("/events", EventSourceApp(wire.hub, retry=50))])
    return lambda _: app


def test_a_finished_job_runs_once(tab: Tab, wire: Wire) -> None:
    """The page gets every event of the job; the browser reconnects once, gets 204 from the middleware, and gives up."""
    runs: list[int] = []

    def job() -> Iterator[str]:
        runs.append(1)
        yield "one"
        yield "two"

    wire.answers["/job"] = lambda _: EventSourceResponse(job(), retry=50)
    tab.call(READ, "/job")
    until(lambda: tab.call(CLOSED))
    assert tab.call(GOT) == ["one", "two"]
    assert [last for _, last in wire.asked("/job")] == [None, "sse.end"]
    assert len(runs) == 1


def test_a_page_can_hear_the_end(tab: Tab, wire: Wire) -> None:
    """A page that listens for the event gets it like any other."""
    wire.answers["/job"] = lambda _: EventSourceResponse(["one"], retry=50)
    tab.call(READ, "/job", "sse.end")
    until(lambda: tab.call(CLOSED))
    assert tab.call(GOT) == ["one", ["sse.end", '{"state":"finished"}']]


class Reader:
    """Answers each request with a subscription, and can end the open one."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.open: list[Subscription] = []

    def __call__(self, _: Request) -> ASGIApp:
        self.open.append(self._wire.hub.subscribe("news"))
        return EventSourceResponse(self.open[-1], retry=50)

    def end(self) -> None:
        """End the subscription in its own event loop, as a deploy does; the browser reconnects."""
        subscription = self.open[-1]
        until(lambda: subscription.joined)
        self._wire.call(subscription.end, "shutdown")


def test_a_reader_without_events_yet_misses_none(tab: Tab, wire: Wire) -> None:
    """A stream that ends before its first event is resumed from the position that it began with."""
    wire.answers["/news"] = reader = Reader(wire)
    before = wire.hub.publish_from_thread("news", "before")
    tab.call(READ, "/news", "sse.gap")
    until(lambda: reader.open)
    reader.end()
    wire.hub.publish_from_thread("news", "meanwhile")
    until(lambda: tab.call(GOT))
    wire.hub.publish_from_thread("news", "after")
    until(lambda: len(tab.call(GOT)) > 1)
    assert tab.call(GOT) == ["meanwhile", "after"]
    assert [last for _, last in wire.asked("/news")] == [None, before]


def test_a_quiet_reader_comes_back_from_where_the_hub_was(tab: Tab, wire: Wire) -> None:
    """A ping moves its position past events of other channels, and calls no listener."""
    wire.answers["/news"] = reader = Reader(wire)
    tab.call(READ, "/news", "sse.gap")
    until(lambda: reader.open and reader.open[-1].joined)
    elsewhere = wire.hub.publish_from_thread("other", "elsewhere")
    until(lambda: str(reader.open[-1].gate.written) == elsewhere)
    reader.end()
    until(lambda: len(wire.asked("/news")) > 1)
    wire.hub.publish_from_thread("news", "after")
    until(lambda: tab.call(GOT))
    assert tab.call(GOT) == ["after"]
    assert [last for _, last in wire.asked("/news")] == [None, elsewhere]


def test_a_gap_is_announced(tab: Tab, wire: Wire) -> None:
    """A page that listens for the gap gets it once, before the events that are still kept."""
    wire.hub.publish_from_thread("default", "kept")
    wire.answers["/events/"] = mounted(wire)
    tab.call(READ, "/events/?last_event_id=nonsense", "sse.gap")
    until(lambda: len(tab.call(GOT)) > 1)
    assert tab.call(GOT) == [["sse.gap", '{"reason":"malformed"}'], "kept"]


def two_polls_later(wire: Wire) -> None:
    polls = len(wire.asked("/events/"))
    until(lambda: len(wire.asked("/events/")) > polls + 1)


def test_polls_miss_nothing(tab: Tab, wire: Wire) -> None:
    """An EventSource that polls resumes after the last answer, also if that had no event."""
    wire.answers["/events/"] = mounted(wire)
    tab.call(READ, "/events/?poll=1", "sse.gap")
    for number in range(10):
        two_polls_later(wire)
        wire.hub.publish_from_thread("default", str(number))
    until(lambda: len(tab.call(GOT)) >= 10)
    assert tab.call(GOT) == [str(number) for number in range(10)]


def test_a_retry_line_needs_no_blank_line(tab: Tab, wire: Wire) -> None:
    """The reconnection time takes effect when its line ends, before its block ends."""
    wire.answers["/retry"] = lambda _: Response("retry: 200\n", media_type="text/event-stream")
    tab.call(READ, "/retry")
    until(lambda: len(wire.asked("/retry")) > 2)
    tab.call("() => source.close()")
    times = [when for when, _ in wire.asked("/retry")]
    # The engines' own defaults are 3 and 5 seconds.
    assert 0.15 < times[1] - times[0] < 2


def test_a_stream_that_ends_with_an_event_is_read_once(tab: Tab, wire: Wire) -> None:
    """The page gets the events up to that one; the browser asks once more, gets 204, and gives up."""
    app = Router([Mount("/events", EventSourceApp(wire.hub, retry=50, until="done"))])
    wire.answers["/events/"] = lambda _: app
    tab.call(READ, "/events/", "done")
    until(lambda: wire.hub.subscriptions() and wire.hub.subscriptions()[0].joined)
    for data, kind in (("1", None), ("2", "done"), ("3", None)):
        wire.hub.publish_from_thread("default", data, event=kind)
    until(lambda: tab.call(CLOSED))
    assert tab.call(GOT) == ["1", ["done", "2"]]
    assert [last for _, last in wire.asked("/events/")] == [None, "sse.end"]


def test_a_reader_that_is_cut_off_at_the_last_event_is_told_the_end(tab: Tab, wire: Wire) -> None:
    """It comes back with the id of that event, which is in the history, and does not wait for another one."""
    wire.hub.publish_from_thread("default", "1")
    last = wire.hub.publish_from_thread("default", "2", event="done")
    app = Router([Mount("/events", EventSourceApp(wire.hub, retry=50, until="done"))])
    wire.answers["/events/"] = lambda _: app
    tab.call(READ, f"/events/?last_event_id={last}", "done", "sse.end")
    until(lambda: tab.call(CLOSED))
    assert tab.call(GOT) == [["sse.end", '{"state":"finished"}']]


def test_polls_end_with_an_event(tab: Tab, wire: Wire) -> None:
    """An EventSource that polls stops as one that streams."""
    first = wire.hub.publish_from_thread("default", "1")
    wire.hub.publish_from_thread("default", "2", event="done")
    app = Router([Mount("/events", EventSourceApp(wire.hub, retry=50, until="done"))])
    wire.answers["/events/"] = lambda _: app
    tab.call(READ, f"/events/?poll=1&last_event_id={first}", "done")
    until(lambda: tab.call(CLOSED))
    assert tab.call(GOT) == [["done", "2"]]
