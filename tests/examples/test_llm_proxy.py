"""The example that passes a service's stream on, against a service that speaks HTTP by hand."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import SocketStream

from examples.conftest import Load, Served, served
from sse_asgi.dialects import OPENAI

pytestmark = pytest.mark.anyio

Answer = Callable[[SocketStream], Awaitable[None]]
PATH = "/v1/chat/completions"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
BODY = b': hello\r\n\r\nid: 7\r\ndata: {"choices":[{"delta":{"content":"\xe2\x82\xac"}}]}\r\n\r\ndata: [DONE]\n\n'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Service:
    """Reads one request after the other, and answers as a test says."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.requests: list[bytes] = []
        self.closed = anyio.Event()

    async def serve(self, client: SocketStream) -> None:
        async with client:
            self.requests.append(await client.receive())
            try:
                await self._answer(client)
                while True:
                    await client.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                self.closed.set()


@asynccontextmanager
async def proxy(load: Load, monkeypatch: pytest.MonkeyPatch, answer: Answer) -> AsyncIterator[tuple[Served, Service]]:
    """Serve the example in front of a service."""
    service = Service(answer)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        monkeypatch.setenv("UPSTREAM", f"http://127.0.0.1:{port}/v1")
        monkeypatch.setenv("UPSTREAM_KEY", "sesame")
        tasks.start_soon(listener.serve, service.serve)
        async with served(load("llm_proxy/llm_proxy")) as clients:
            yield clients, service
        tasks.cancel_scope.cancel()


async def test_a_stream_is_passed_on(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte, however it is cut; the service gets the body and the key."""

    async def answer(client: SocketStream) -> None:
        await client.send(HEAD)
        for start in range(0, len(BODY), 3):
            await client.send(chunk(BODY[start : start + 3]))
        await client.send(chunk(b""))

    async with proxy(load, monkeypatch, answer) as (clients, service):
        async with clients.streams.stream(PATH, method="POST", body=b'{"stream":true}') as stream:
            assert await stream.read() == BODY
    assert b"POST /v1/chat/completions HTTP/1.1\r\n" in service.requests[0]
    assert b"Bearer sesame" in service.requests[0]


async def test_a_service_that_breaks_off_is_an_error(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a complete answer; half a frame is not sent."""

    async def answer(client: SocketStream) -> None:
        await client.send(HEAD + chunk(b"data: {}\n\n"))
        await anyio.sleep(0.05)
        await client.send(chunk(b'data: {"half'))
        await client.aclose()

    async with proxy(load, monkeypatch, answer) as (clients, _):
        async with clients.streams.stream(PATH, method="POST", body=b"{}") as stream:
            await stream.ended()
            with pytest.raises(Exception, match=r"peer closed connection|connection broken"):
                stream.check()
    assert stream.content == b"data: {}\n\n" + OPENAI.failed(ValueError()) + OPENAI.end()


async def test_a_client_that_goes_closes_the_request(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service sees it at once."""

    async def answer(client: SocketStream) -> None:
        await client.send(HEAD + chunk(b"data: {}\n\n"))

    async with proxy(load, monkeypatch, answer) as (clients, service):
        async with clients.streams.stream(PATH, method="POST", body=b"{}") as stream:
            await stream.received(b"data: {}")
            stream.disconnect()
            with anyio.fail_after(2):
                await service.closed.wait()


async def test_other_answers_keep_their_status(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error, or an answer that was not to be streamed."""

    async def answer(client: SocketStream) -> None:
        await client.send(b"HTTP/1.1 429 No\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")

    async with proxy(load, monkeypatch, answer) as (clients, _):
        async with clients.streams.stream(PATH, method="POST", body=b"{}") as stream:
            assert await stream.read() == b"{}"
    assert (stream.status_code, stream.headers["content-type"]) == (429, "application/json")


async def test_a_service_that_cannot_be_reached_is_a_bad_gateway(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a status of its own."""
    monkeypatch.setenv("UPSTREAM", "http://127.0.0.1:1/v1")
    async with served(load("llm_proxy/llm_proxy")) as clients:
        async with clients.streams.stream(PATH, method="POST", body=b"{}") as stream:
            assert stream.status_code == 502
