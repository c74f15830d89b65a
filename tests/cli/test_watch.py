"""What is seen on one connection."""

import asyncio
import gzip

import anyio
import pytest

from cli.scripted import GOOD, Answer, Asked, Scripted
from sse_asgi._cli.request import StreamRequest
from sse_asgi._cli.watch import COMPLETE, Watch

pytestmark = pytest.mark.anyio
END = b"event: sse.end\nid: sse.end\ndata: {}\n\n"


@pytest.fixture
def anyio_backend() -> str:
    """The commands run on asyncio only."""
    return "asyncio"


async def test_each_piece_is_counted_with_its_time() -> None:
    """Events and comment lines, wherever the pieces are cut; the stream is open at the end of the watch."""

    async def script(asked: Asked, answer: Answer) -> None:
        await asyncio.sleep(0.05)
        await answer.begin()
        await answer.send(b":\nretry: 5\n:\n")
        await asyncio.sleep(0.2)
        await answer.send(b"data: a: b\n\nda")
        await asyncio.sleep(0.05)
        await answer.send(b"ta: c\n\n")
        await asyncio.sleep(5)

    with Scripted(script) as server:
        watch = Watch(StreamRequest.of(server.url), last_event_id="7")
        await watch.run(1.5)
    assert [(one.events, one.pings) for one in watch.arrivals] == [(0, 2), (1, 0), (1, 0)]
    assert [event.data for event, _ in watch.events] == ["a: b", "c"]
    assert (watch.end, watch.finished, watch.retry) == ("", False, True)
    assert server.asked[0].headers["last-event-id"] == "7"
    summary = watch.summary()
    assert (summary["status"], summary["events"], summary["pings"], summary["end"]) == (200, 2, 2, "open")
    assert 0.05 <= summary["head_after"] <= summary["first_bytes_after"] <= 1.5
    assert 0.2 <= watch.last_silence <= watch.longest_silence <= 1.5


@pytest.mark.parametrize(
    ("body", "method", "finished"), [(b"data: a\n\n", "GET", False), (END, "GET", True), (b"data: a\n\n", "POST", True)]
)
async def test_an_end_is_told_from_an_interruption(body: bytes, method: str, *, finished: bool) -> None:
    """A complete body of a GET says nothing; sse.end, and a complete answer to a POST, are the end."""

    async def script(asked: Asked, answer: Answer) -> None:
        await answer.begin(GOOD + b"Content-Encoding: gzip\r\n")
        await answer.send(gzip.compress(body)[:1])
        await answer.send(gzip.compress(body)[1:])
        await answer.end()

    with Scripted(script) as server:
        watch = Watch(StreamRequest.of(server.url, method=method), encoding="gzip")
        await watch.run(5)
    assert (watch.end, watch.finished, len(watch.arrivals)) == (COMPLETE, finished, 1)


async def test_a_server_that_is_not_there_is_the_end() -> None:
    """With the reason, and without a head."""
    watch = Watch(StreamRequest.of("http://127.0.0.1:1/"))
    await watch.run(5)
    assert (watch.response, watch.end) == (None, "no connection (Connection refused)")
    assert watch.summary()["first_bytes_after"] is None


async def test_a_fact_can_be_waited_for() -> None:
    """Until it is true."""
    watch = Watch(StreamRequest.of("http://127.0.0.1:1/"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch.run, 5)
        await watch.until(lambda: watch.end)
        assert watch.end
