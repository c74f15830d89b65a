"""Content that yields after its stream has ended is broken off."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from sse_asgi import EventSourceResponse
from sse_asgi._servers.shutdown import current_notice
from sse_asgi._stream.joining import JOIN_SECONDS
from stream.helpers import Server, directly

pytestmark = pytest.mark.anyio


async def yields_in_finally(log: list[str]) -> AsyncIterator[str]:
    try:
        while True:
            await asyncio.sleep(0.001)
            yield "x"
    finally:
        try:
            for _ in range(3):
                yield "goodbye"
        finally:
            log.append("closed")


async def yields_when_cancelled(log: list[str]) -> AsyncIterator[str]:
    try:
        while True:
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                for _ in range(3):
                    yield "goodbye"
            yield "x"
    finally:
        log.append("closed")


def yields_in_a_thread(log: list[str]) -> Iterator[str]:
    try:
        while True:
            time.sleep(0.001)
            yield "x"
    finally:
        try:
            yield "goodbye"
        finally:
            log.append("closed")


class Stubborn:
    """An async iterator that is not a generator, and swallows cancellations."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def __aiter__(self) -> "Stubborn":
        return self

    async def __anext__(self) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.001)
        return "x"

    async def aclose(self) -> None:
        self.log.append("closed")


@directly
@pytest.mark.parametrize("content", [yields_in_finally, yields_when_cancelled, yields_in_a_thread, Stubborn])
@pytest.mark.parametrize("how", ["the client has gone", "the server stops"])
async def test_what_yields_after_the_end_is_broken_off(
    content: Callable[[list[str]], Any], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends at its next yield, not after `cleanup_timeout`, and its own `finally` runs."""
    log: list[str] = []
    async with Server().serve(EventSourceResponse(content(log))) as server:
        await asyncio.sleep(2 * JOIN_SECONDS)
        if how == "the client has gone":
            server.gone.set()
        else:
            current_notice().hear()
            current_notice().heard = False
    assert log == ["closed"]
    assert caplog.text == ""


@directly
@pytest.mark.parametrize("goodbyes", [1, 2])
async def test_what_yields_while_it_is_closed_is_broken_off(goodbyes: int, caplog: pytest.LogCaptureFixture) -> None:
    """A generator suspended at a yield is broken off once; if it yields again, that is logged."""
    log: list[str] = []

    async def endless() -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * 70_000
        finally:
            try:
                yield "goodbye"
            finally:
                if goodbyes == 2:
                    yield "goodbye again"
                await asyncio.sleep(0.001)
                log.append("closed")

    async def until_it_has_gone() -> None:
        await server.gone.wait()

    server = Server(lambda: until_it_has_gone() if server.bodies else None)
    async with server.serve(EventSourceResponse(endless())):
        pass
    assert log == ["closed"] * (goodbyes == 1)
    assert ("async generator ignored GeneratorExit" in caplog.text) == (goodbyes == 2)
    assert "clean up" not in caplog.text
