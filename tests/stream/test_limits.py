"""ConnectionLimit: the streams that it refuses, the requests that it counts, and the answer to a refused client."""

from typing import Any

import pytest
from starlette.requests import HTTPConnection

from sse_asgi import ConnectionLimit, EventSourceMiddleware
from sse_asgi.testing import EventStreamClient
from stream.limited import assert_refused, limited, plain

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("first", ["/ours", "/theirs"])
async def test_the_newest_is_refused_and_the_oldest_stays(first: str) -> None:
    """This holds for streams of any library. A closed stream makes room, and other responses are not counted."""
    limit = ConnectionLimit(1)
    async with EventStreamClient(limited(limit)) as client:
        async with client.stream(first) as stream:
            await stream.received(b"data: x\n\n")
            assert (await assert_refused(client, "/ours"))["x-ours"] == "1"
            headers = await assert_refused(client, "/theirs")
            assert headers["x-theirs"] == "1"
            assert "content-length" not in headers
            assert "content-encoding" not in headers
            async with client.stream("/plain") as other:
                await other.received(b"plain")
            assert not stream.complete
            assert limit.open == 1
        assert limit.open == 0
        async with client.stream("/ours") as again:
            await again.received(b"data: x\n\n")


async def test_each_key_has_its_own_limit() -> None:
    """A request without a key counts for the total only."""

    def user(request: HTTPConnection) -> str | None:
        return request.query_params.get("user")

    limit = ConnectionLimit(4, per_key=1, key=user)
    async with EventStreamClient(limited(limit)) as client:
        async with (
            client.stream("/ours?user=a") as a,
            client.stream("/theirs?user=b") as b,
            client.stream("/ours") as c,
            client.stream("/ours") as d,
        ):
            for stream in (a, b, c, d):
                await stream.received(b"data: x\n\n")
            assert limit.open == 4
            assert limit.open_by_key == {"a": 1, "b": 1}
            await assert_refused(client, "/ours")
        assert (limit.open, limit.open_by_key) == (0, {})
        async with client.stream("/ours?user=a") as a:
            await a.received(b"data: x\n\n")
            await assert_refused(client, "/ours?user=a")
            await assert_refused(client, "/theirs?user=a")


async def test_a_key_may_have_several() -> None:
    """The streams of a key are counted together."""
    limit = ConnectionLimit(per_key=2, key=lambda _: "everybody")
    async with EventStreamClient(limited(limit)) as client, client.stream("/ours") as one:
        await one.received(b"data: x\n\n")
        async with client.stream("/ours") as two:
            await two.received(b"data: x\n\n")
            assert limit.open_by_key == {"everybody": 2}
            await assert_refused(client, "/ours")
        assert limit.open_by_key == {"everybody": 1}


async def test_a_head_is_not_counted() -> None:
    """A HEAD opens no stream."""
    async with EventStreamClient(limited(1)) as client, client.stream("/ours") as stream:
        await stream.received(b"data: x\n\n")
        async with client.stream("/ours", method="HEAD") as head:
            await head.ended()
            assert (head.headers["x-ours"], head.content) == ("1", b"")


async def test_a_total_is_enough() -> None:
    """An int is a limit of that many streams."""
    async with EventStreamClient(limited(1)) as client, client.stream("/ours") as stream:
        await stream.received(b"data: x\n\n")
        await assert_refused(client, "/ours")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"total": 0}, r"total must be an int above 0 \(got 0\)"),
        ({"total": True}, r"total must be .* \(got True\)"),
        ({"total": 1.5}, r"total must be .* \(got 1.5\)"),
        ({"per_key": -1, "key": str}, r"per_key must be .* \(got -1\)"),
        ({"per_key": 1}, r"per_key and key go together \(got only per_key\)"),
        ({"key": str}, r"per_key and key go together \(got only key\)"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    """The constructor refuses it."""
    with pytest.raises(ValueError, match=message):
        ConnectionLimit(**options)


def test_what_is_no_limit_is_refused() -> None:
    """The constructors refuse it: the coroutine of an async key would differ for each request."""

    async def key(_: HTTPConnection) -> str:
        return "x"

    with pytest.raises(TypeError, match="key must be a plain function"):
        ConnectionLimit(per_key=1, key=key)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="max_connections must be an int, a ConnectionLimit or None, not str"):
        EventSourceMiddleware(plain, max_connections="1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"total must be .* \(got 0\)"):
        EventSourceMiddleware(plain, max_connections=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ping_interval must be above 0 seconds"):
        EventSourceMiddleware(plain, ping_interval=0)  # type: ignore[arg-type]


async def test_a_client_that_is_not_an_event_source_gets_a_503() -> None:
    """It would take an empty stream for a complete answer. Other headers, such as those of CORS, stay."""
    limit = ConnectionLimit(1)
    assert limit.enter({"type": "http", "headers": []}) is not None
    client = EventStreamClient(limited(limit))
    for path, own in (("/ours", "x-ours"), ("/theirs", "x-theirs")):
        async with client.stream(path, headers={"accept": "*/*"}) as stream:
            await stream.ended()
            assert (stream.status_code, stream.content, stream.complete) == (503, b"", True)
            assert 2 <= int(stream.headers["retry-after"]) <= 6
            assert stream.headers["content-length"] == "0"
            assert own in stream.headers
            assert not {"content-type", "content-encoding"} & set(stream.headers)
