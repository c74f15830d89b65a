"""SyncEventStreamClient: tests without async."""

from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from sse_asgi import EventSourceApp, EventSourceMiddleware, EventSourceResponse, Hub
from sse_asgi.testing import SyncEventStream, SyncEventStreamClient
from streaming_apps import Probe

SOON = 0.05
"""Seconds in which an event that must not happen would have happened."""


async def count(_: Request) -> EventSourceResponse:
    return EventSourceResponse(map(str, range(3)), retry=500)


def app_of(hub: Hub) -> Starlette:
    """Return an application with a stream of a hub, a POST that publishes, and a stream that ends."""

    async def say(request: Request) -> Response:
        await hub.publish("default", await request.json())
        return JSONResponse({"name": request.cookies.get("name")})

    routes = [Route("/say", say, methods=["POST"]), Route("/count", count), Mount("/", EventSourceApp(hub))]
    app = Starlette(routes=routes)
    app.add_middleware(EventSourceMiddleware, hub=hub)
    return app


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture(params=["asyncio", "trio"])
def client(request: pytest.FixtureRequest, hub: Hub) -> Iterator[SyncEventStreamClient]:
    with SyncEventStreamClient(app_of(hub), backend=request.param) as client:
        yield client


def test_a_stream_and_a_post(client: SyncEventStreamClient) -> None:
    """The stream goes on while the same client posts, with its cookies."""
    client.cookies["name"] = "Ada"
    with client.stream("/") as stream:
        assert (stream.status_code, stream.headers["content-type"]) == (200, "text/event-stream")
        answer = client.request("POST", "/say", json={"text": "hello"})
        assert (answer.json(), answer.complete) == ({"name": "Ada"}, True)
        event = stream.next_event()
        assert (event.data, stream.last_event_id) == ('{"text":"hello"}', event.id)
        assert not stream.complete
        stream.disconnect()
        stream.ended()


def test_iterating_gives_every_event_until_the_end(client: SyncEventStreamClient) -> None:
    """A `for` loop ends with the stream."""
    with client.stream("/count") as stream:
        assert [event.data for event in stream][:3] == ["0", "1", "2"]
        assert stream.retry == 500
        assert stream.read() == stream.content == stream.text.encode()


def test_a_function_is_called_in_the_event_loop(client: SyncEventStreamClient, hub: Hub) -> None:
    """call() takes functions with and without async, and their named arguments."""
    with client.stream("/") as stream:
        client.call(hub.publish, "default", "hello", event="greeting")
        assert stream.next_event()[:2] == ("greeting", "hello")
        assert client.call(hub.stats).connections == 1


@pytest.mark.parametrize(
    "wait",
    [
        lambda stream: stream.next_event(timeout=SOON),
        lambda stream: stream.read(timeout=SOON),
        lambda stream: stream.received(b"never", timeout=SOON),
        lambda stream: stream.ended(timeout=SOON),
    ],
    ids=["next_event", "read", "received", "ended"],
)
def test_every_wait_has_a_timeout(client: SyncEventStreamClient, wait: Callable[[SyncEventStream], Any]) -> None:
    """Each method that waits raises a TimeoutError after its timeout."""
    with client.stream("/") as stream, pytest.raises(TimeoutError):
        wait(stream)


def test_a_client_that_does_not_read() -> None:
    """After stall(), the application's next send waits until the client disconnects."""
    stalled: list[anyio.Event] = []

    async def work(probe: Probe) -> None:
        stalled.append(anyio.Event())
        await probe.send_event(b"a")
        await stalled[0].wait()
        await probe.send_event(b"b")

    app = EventSourceMiddleware(Starlette(routes=[Mount("/", Probe(work))]))
    with SyncEventStreamClient(app) as client, client.stream("/") as stream:
        assert stream.next_event().data == "a"
        stream.stall()
        client.call(stalled[0].set)
        with pytest.raises(TimeoutError):
            stream.received(b"b", timeout=SOON)


def test_the_applications_exception_is_raised(client: SyncEventStreamClient, hub: Hub) -> None:
    """In the test, as it is."""
    with pytest.raises(ValueError, match="Expecting value"):
        client.request("POST", "/say", body=b"no JSON")
    with pytest.raises(ValueError, match="at least one channel"):
        client.call(hub.publish, [], "hello")


@pytest.mark.parametrize("method", ["stream", "request"])
def test_unknown_options_are_refused(client: SyncEventStreamClient, method: str) -> None:
    """A TypeError names the method, and the option that may be meant."""
    options: Any = {"jsn": {}}
    with pytest.raises(TypeError, match=rf"^SyncEventStreamClient.{method} has no option jsn=: did you mean json=\?"):
        if method == "request":
            client.request("GET", "/", **options)
        else:
            with client.stream("/", **options):
                pass


def test_a_client_needs_its_block(hub: Hub) -> None:
    """Before and after the `with` block, a request is a RuntimeError that shows the block."""
    client = SyncEventStreamClient(EventSourceApp(hub))
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"with SyncEventStreamClient\(app\) as client"):
            client.call(hub.stats)
        with client:
            assert client.call(hub.stats).connections == 0


def test_a_startup_that_fails_is_raised() -> None:
    """And the event loop has ended."""

    async def app(*_: Any) -> None:
        await anyio.lowlevel.checkpoint()

    with pytest.raises(RuntimeError, match="ended its lifespan before its startup"):
        with SyncEventStreamClient(app):
            pytest.fail("there was no startup")


@pytest.mark.anyio
async def test_an_async_test_uses_the_other_client(hub: Hub) -> None:
    """A client that would block the running event loop is a RuntimeError that says so."""
    with pytest.raises(RuntimeError, match=r"use `async with EventStreamClient\(app\)` in an async test"):
        with SyncEventStreamClient(EventSourceApp(hub)):
            pytest.fail("it blocks")


def test_the_time_can_be_moved(client: SyncEventStreamClient) -> None:
    """advance() sends the pings that are due."""
    with client.stream("/") as stream:
        stream.received(b"sse.position")
        client.advance(15)
        assert stream.text.endswith("\n\n:\n")
