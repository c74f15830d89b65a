"""EventStreamClient: clients that are slow, that stop reading, and that disconnect."""

import anyio
import pytest
from starlette.types import Receive, Scope, Send

from sse_asgi.testing import EventStreamClient
from streaming_apps import HEAD, Probe, body, streaming

pytestmark = pytest.mark.anyio

SOON = 0.05
"""Seconds in which an event that must not happen would have happened."""


async def test_a_reader_takes_an_event_that_comes_in_large_parts() -> None:
    """A wait for an event reads, so an event that is larger than the limit arrives."""
    large = b"x" * 40_000
    async with EventStreamClient(streaming(b"data: ", large, large, large, b"\n\n")).stream("/") as stream:
        assert len((await stream.next_event(timeout=1)).data) == 3 * len(large)


async def test_a_body_that_is_not_an_event_stream_can_be_read() -> None:
    """read() takes any number of bytes, events or not."""
    large = b"x" * 40_000
    async with EventStreamClient(streaming(large, large, large)).stream("/") as stream:
        assert len(await stream.read(timeout=1)) == 3 * len(large)


async def test_disconnect_is_delivered() -> None:
    """The application receives its request, and http.disconnect when the client disconnects."""
    probe = Probe()
    async with EventStreamClient(probe).stream("/") as stream:
        await anyio.wait_all_tasks_blocked()
        assert [message["type"] for message in probe.received] == ["http.request"]
        stream.disconnect()
        await stream.ended()
    assert [message["type"] for message in probe.received] == ["http.request", "http.disconnect"]


async def test_leaving_disconnects_and_waits() -> None:
    """After the block the application has finished."""
    probe = Probe()
    async with EventStreamClient(probe).stream("/"):
        assert not probe.left.is_set()
    assert probe.left.is_set()


async def test_a_disconnect_is_received_when_the_response_has_ended() -> None:
    """An application that receives after its last body message gets http.disconnect, as from a server."""

    async def work(probe: Probe) -> None:
        await probe.send(body(b"", more=False))

    async with EventStreamClient(Probe(work)).stream("/") as stream:
        await stream.read()
        await stream.ended()


async def test_an_application_that_does_not_leave_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that ignores the disconnect is cancelled after GRACE_SECONDS."""
    monkeypatch.setattr("sse_asgi.testing._client.GRACE_SECONDS", SOON)
    cancelled = anyio.Event()

    async def deaf(_: Scope, __: Receive, send: Send) -> None:
        await send(HEAD)
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    async with EventStreamClient(deaf).stream("/"):
        pass
    with anyio.fail_after(5):
        await cancelled.wait()


async def test_ended_waits_for_the_application_after_the_last_byte() -> None:
    """ended() waits until the application returns, which may be long after the body has ended."""
    go_on = anyio.Event()

    async def work(probe: Probe) -> None:
        await probe.send(body(b"", more=False))
        await go_on.wait()

    probe = Probe(work)
    async with EventStreamClient(probe).stream("/") as stream:
        with pytest.raises(TimeoutError):
            await stream.ended(timeout=SOON)
        assert stream.complete
        go_on.set()
        await stream.ended()
        assert probe.left.is_set()
