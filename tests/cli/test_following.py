"""Following a stream: what ends it, what is waited for, and what is sent again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import anyio
import pytest

from cli.scripted import GOOD, Answer, Asked, Scripted
from sse_asgi._cli.following import Follower, Reconnect, StreamError
from sse_asgi._cli.request import StreamRequest
from sse_asgi.decoder import DecodedEvent

pytestmark = pytest.mark.anyio
END = b"event: sse.end\nid: sse.end\ndata: {}\n\n"


@pytest.fixture
def anyio_backend() -> str:
    """The commands run on asyncio only."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for real; the items have the waits."""

    async def pause(_: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(anyio, "sleep", pause)


async def follow(
    server: Scripted, *, last_event_id: str = "", data: str | None = None
) -> AsyncIterator[DecodedEvent | Reconnect]:
    follower = Follower(StreamRequest.of(server.url, data=data), last_event_id=last_event_id)
    async with aclosing(follower.follow()) as items:
        async for item in items:
            yield item


async def test_it_resumes_until_the_end() -> None:
    """A clean end, and a cut, are followed by a request with the last id; sse.end is the end."""
    bodies = iter([b"id: 1\ndata: a\n\nretry: 2000\n", b"data: b\n\n", b"id: 3\ndata: c\n\n" + END])

    async def script(asked: Asked, answer: Answer) -> None:
        await answer.begin()
        await answer.send(next(bodies))
        if len(server.asked) == 1:
            await answer.end()

    with Scripted(script) as server:
        items = [item async for item in follow(server)]
    reasons = [item.reason for item in items if isinstance(item, Reconnect)]
    waits = [item.wait for item in items if isinstance(item, Reconnect)]
    assert [item.event for item in items if isinstance(item, DecodedEvent)] == ["message"] * 3 + ["sse.end"]
    assert reasons[0] == "the stream ended"
    assert reasons[1].startswith("the connection was cut off")
    assert 2 <= waits[0] <= 3
    assert 0.4 <= waits[1] <= 4
    assert [asked.headers.get("last-event-id") for asked in server.asked] == [None, "1", "1"]


async def test_204_is_the_end() -> None:
    """Also at the first request, which has the id that was given."""

    async def script(asked: Asked, answer: Answer) -> None:
        await answer.refuse("204 No Content")

    with Scripted(script) as server:
        assert [item async for item in follow(server, last_event_id="sse.end")] == []
    assert server.asked[0].headers["last-event-id"] == "sse.end"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (("401 Unauthorized",), "answered 401 Unauthorized: give --header 'Authorization"),
        (("404 Not Found",), "answered 404 Not Found: check the path"),
        (("502 Bad Gateway",), "answered 502 Bad Gateway: look into the server's log"),
        (("200 OK", "Content-Type: text/html"), "its Content-Type must be text/event-stream .got text/html.: check"),
        (("200 OK",), "its Content-Type must be text/event-stream .got none.: check the URL"),
    ],
)
async def test_a_first_answer_that_is_no_stream_is_an_error(answer: tuple[str, ...], error: str) -> None:
    """A wrong address or missing rights are said at once, not tried again for ever."""

    async def script(asked: Asked, to: Answer) -> None:
        await to.refuse(*answer)

    with Scripted(script) as server, pytest.raises(StreamError, match=error):
        assert [item async for item in follow(server)] == []


def answers(*statuses: str) -> Callable[[Asked, Answer], object]:
    """Return a script that streams one event, and answers with these statuses afterwards, then with the end."""
    rest = iter(statuses)

    async def script(asked: Asked, answer: Answer) -> None:
        status = next(rest, None)
        if status == "stream" or status is None:
            await answer.begin(GOOD)
            await answer.send(b"data: x\n\n" if status else END)
            await answer.end()
        else:
            await answer.refuse(status)

    return script


async def test_a_restart_is_waited_for() -> None:
    """The statuses of a proxy without its application, and 429, are temporary once the stream has been read."""
    statuses = ["502 Bad Gateway", "503 Service Unavailable", "429 Too Many Requests"]
    with Scripted(answers("stream", *statuses)) as server:  # type: ignore[arg-type]
        items = [item async for item in follow(server)]
    reasons = [item.reason.partition("answered ")[2] for item in items[2:] if isinstance(item, Reconnect)]
    assert reasons == statuses


async def test_a_refusal_after_a_while_is_final() -> None:
    """A right that was taken away ends it."""
    with Scripted(answers("stream", "403 Forbidden")) as server:  # type: ignore[arg-type]
        with pytest.raises(StreamError, match="answered 403 Forbidden: give --header"):
            assert [item async for item in follow(server)] == []


async def test_a_server_that_is_not_there_is_an_error() -> None:
    """At the first request only."""
    request = StreamRequest.of("http://127.0.0.1:1/")
    message = "cannot read http://127.0.0.1:1/: no connection .Connection refused.: check the URL"
    with pytest.raises(StreamError, match=message):
        async for _ in Follower(request).follow():
            pass


async def test_a_complete_body_of_a_post_is_its_end() -> None:
    """It is not sent again; the events are those of the answer."""
    with Scripted(answers("stream")) as server:  # type: ignore[arg-type]
        items = [item async for item in follow(server, data="{}")]
    assert [item.data for item in items if isinstance(item, DecodedEvent)] == ["x"]
    assert [(asked.method, asked.body) for asked in server.asked] == [("POST", b"{}")]


@pytest.mark.parametrize("has_id", [True, False])
async def test_a_post_is_repeated_only_if_it_can_be_resumed(*, has_id: bool) -> None:
    """A second POST without an id could do a paid work twice."""

    async def script(asked: Asked, answer: Answer) -> None:
        await answer.begin()
        if len(server.asked) == 1:
            await answer.send(b"id: 7\ndata: x\n\n" if has_id else b"data: x\n\n")
        else:
            await answer.end()

    with Scripted(script) as server:
        if has_id:
            assert len([item async for item in follow(server, data="{}")]) == 2
            assert server.asked[1].headers["last-event-id"] == "7"
        else:
            with pytest.raises(StreamError, match="a POST without event ids is not sent twice: run the command again"):
                assert [item async for item in follow(server, data="{}")] == []
