"""The request of a command line: what is refused, what is sent, and the pieces of the answer."""

import asyncio
import gzip
import io
import sys
from pathlib import Path

import httpx
import pytest

from cli.scripted import GOOD, Answer, Asked, Scripted
from sse_asgi._cli.request import StreamRequest, explain, media_type, pieces

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The commands run on asyncio only."""
    return "asyncio"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"url": "example.com"}, "must begin with http:// or https:// and name a host"),
        ({"url": "http://"}, "must begin with http:// or https:// and name a host"),
        ({"url": "http://a", "headers": ["Authorization"]}, "a header must be 'Name: value'"),
        ({"url": "http://a", "headers": [": x"]}, "a header must be 'Name: value'"),
        ({"url": "http://a", "headers": ["A: x\r\nB: y"]}, "a header must be 'Name: value'"),
        ({"url": "http://a", "data": "@/nothing/here"}, "must be readable .No such file"),
    ],
)
def test_a_mistake_is_explained(options: dict[str, str], error: str) -> None:
    """The message says what the argument must be."""
    with pytest.raises(ValueError, match=error):
        StreamRequest.of(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "method", "sent", "content_type"),
    [
        (None, "", "GET", None),
        (None, "post", "POST", None),
        ("plain", "", "POST", None),
        ('{"a": 1}', "PUT", "PUT", "application/json"),
        (" [1]", "", "POST", "application/json"),
    ],
)
def test_a_body_is_posted(data: str | None, method: str, sent: str, content_type: str | None) -> None:
    """As JSON if it looks like JSON, unless another method is given."""
    request = StreamRequest.of("http://a/", data=data, method=method)
    assert (request.method, request.headers.get("Content-Type")) == (sent, content_type)
    assert request.body == (None if data is None else data.encode())


def test_a_given_content_type_wins() -> None:
    """In any case."""
    request = StreamRequest.of("http://a/", data="{}", headers=["content-type: text/plain"])
    assert request.headers == {"content-type": "text/plain"}


def test_a_body_comes_from_a_file_or_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte."""
    (tmp_path / "body").write_bytes(b"\xff file\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff stdin\n")))
    assert StreamRequest.of("http://a/", data=f"@{tmp_path}/body").body == b"\xff file\n"
    assert StreamRequest.of("http://a/", data="@-").body == b"\xff stdin\n"


async def read(server: Scripted, *, last_event_id: str = "", headers: tuple[str, ...] = ()) -> list[bytes]:
    request = StreamRequest.of(server.url, headers=headers)
    async with request.client() as client, request.open(client, last_event_id=last_event_id, silence=0.2) as response:
        assert media_type(response) == "text/event-stream"
        return [piece async for piece in pieces(response)]


async def test_it_asks_as_an_event_source_does() -> None:
    """With its headers; the caller's win, and a Last-Event-ID is sent as UTF-8."""

    async def script(asked: Asked, answer: Answer) -> None:
        await answer.begin()
        await answer.send(b"data: x\n\n")
        await answer.end()

    with Scripted(script) as server:
        assert await read(server) == [b"data: x\n\n"]
        await read(server, last_event_id="\u00e9", headers=("Accept: */*", "last-event-id: other"))
        await read(server, headers=("last-event-id: other",))
    first, second, third = (asked.headers for asked in server.asked)
    assert (first["accept"], first["cache-control"]) == ("text/event-stream", "no-cache")
    assert (first["accept-encoding"], "last-event-id" in first) == ("identity", False)
    assert (second["accept"], second["last-event-id"]) == ("*/*", "\u00e9")
    assert third["last-event-id"] == "other"


async def test_a_compressed_body_is_decompressed() -> None:
    """Also if a piece is not a whole block."""

    async def script(asked: Asked, answer: Answer) -> None:
        content = gzip.compress(b"data: x\n\n")
        await answer.begin(GOOD + b"Content-Encoding: gzip\r\n")
        await answer.send(content[:5])
        await answer.send(content[5:])
        await answer.end()

    with Scripted(script) as server:
        assert b"".join(await read(server)) == b"data: x\n\n"


async def test_what_went_wrong_is_explained() -> None:
    """In plain words, with the operating system's reason."""

    async def script(asked: Asked, answer: Answer) -> None:
        if asked.target.endswith("silent"):
            await answer.begin()
            await asyncio.sleep(5)
        elif asked.target.endswith("garbage"):
            await answer.begin(GOOD + b"Content-Encoding: gzip\r\n")
            await answer.send(b"not gzip")
        else:
            await answer.begin()

    seen = {}
    with Scripted(script) as server:
        port = server.port
        for name in ("silent", "garbage", "cut"):
            request = StreamRequest.of(f"http://127.0.0.1:{port}/{name}")
            with pytest.raises(Exception) as caught:  # noqa: PT011 - of two libraries
                async with request.client() as client, request.open(client, silence=0.1) as response:
                    assert [piece async for piece in pieces(response)] == []
            seen[name] = explain(caught.value)
    request = StreamRequest.of(f"https://127.0.0.1:{port}/", insecure=True)
    with pytest.raises(httpx.ConnectError) as refused:
        async with request.client() as client, request.open(client, silence=0.1):
            pass
    assert seen["silent"] == "the server sent nothing for too long"
    assert seen["garbage"].startswith("the body is not compressed as its Content-Encoding says (Error -3")
    assert seen["cut"].startswith("the connection was cut off (peer closed connection without")
    assert explain(refused.value) == "no connection (Connection refused)"
    assert explain(httpx.ConnectTimeout("")) == "no connection within 10 s"
    assert explain(httpx.ReadError("")) == "the connection was cut off (ReadError)"
