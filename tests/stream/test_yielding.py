"""The content that FastAPI makes of an endpoint that yields, and the headers that its Response parameter adds."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.responses import Response

from sse_asgi import EventSourceResponse
from sse_asgi._stream.framing import ChunkFraming
from sse_asgi._stream.yielding import FirstFraming, LateHeaders, replace_defaults, unwrapped
from sse_asgi.testing import EventStreamClient

NAMES = frozenset({b"cache-control"})
ROUTE = SimpleNamespace(dependant=SimpleNamespace(response_param_name="response"))


async def numbers(response: Any = None) -> AsyncIterator[int]:
    yield 1


@pytest.mark.anyio
async def test_the_generator_is_taken_out() -> None:
    """FastAPI's own generator, which sleeps after each item, is not iterated."""
    pytest.importorskip("fastapi.sse")  # an older FastAPI does not take endpoints that yield
    contents: list[Any] = []

    class Noted(EventSourceResponse):
        def __init__(self, content: Any, **options: Any) -> None:
            super().__init__(content, **options)
            made: Any = self.content
            contents.append((content.ag_code.co_name, made.ag_code.co_name))

    app = FastAPI()
    app.get("/", response_class=Noted)(numbers)
    async with EventStreamClient(app) as client, client.stream("/") as stream:
        assert b"data: 1" in await stream.read()
    assert contents == [("_async_stream_raw", "numbers")]


@pytest.mark.anyio
async def test_other_contents_are_left_alone() -> None:
    """Also a generator of that name that has another shape, or is over."""

    async def _async_stream_raw() -> AsyncIterator[int]:
        yield 1

    content = _async_stream_raw()
    assert unwrapped(content) is content
    assert [item async for item in content] == [1]
    assert unwrapped(content) is content
    assert unwrapped([1]) == [1]


def test_later_headers_replace_the_defaults() -> None:
    """Others may be there several times, like cookies."""
    headers = [(b"cache-control", b"a"), (b"set-cookie", b"1"), (b"set-cookie", b"2"), (b"cache-control", b"b")]
    replace_defaults(headers, NAMES)
    assert headers == [(b"set-cookie", b"1"), (b"set-cookie", b"2"), (b"cache-control", b"b")]


def late(headers: list[tuple[bytes, bytes]], given: Any) -> LateHeaders | None:
    return LateHeaders.of(ROUTE, numbers(given), headers, NAMES)


def test_a_head_is_completed() -> None:
    """By what the parameter has when the first item comes, in place of what it had when the endpoint was called."""
    given = Response()
    given.headers["x-dependency"] = "1"
    headers = [(b"cache-control", b"no-cache"), *given.raw_headers]
    found = late(headers, given)
    given.headers["x-dependency"] = "2"
    given.headers["cache-control"] = "private"
    head = {"status": 200, "headers": headers}
    assert found is not None
    found.complete(head)
    assert head == {"status": 200, "headers": [*given.raw_headers]}
    given.status_code = 201
    found.complete(head)
    assert head["status"] == 201


def test_another_content_has_no_late_headers() -> None:
    """No generator, no Response, or a Response whose headers FastAPI has not appended."""
    assert LateHeaders.of(ROUTE, [1], [], NAMES) is None
    assert late([], None) is None
    assert late([(b"x", b"y")], Response()) is None


def test_a_function_is_called_once_before_the_first_frame() -> None:
    """Also if there is none."""
    calls: list[str] = []
    framing = FirstFraming(ChunkFraming(), lambda: calls.append("first"))
    assert framing.write("data: 1\n\n") + framing.write("data: 2\n\n") == b"data: 1\n\ndata: 2\n\n"
    assert calls == ["first"]
    assert FirstFraming(ChunkFraming(), lambda: calls.append("second")).rest() == b""
    assert calls == ["first", "second"]
