"""daphne: the signal handlers of twisted wait for the streams, and requests are looked at in their queues."""

import asyncio
import os
import signal
from types import FrameType
from typing import Any

import anyio
import pytest

from servers.local import heard, until
from sse_asgi._servers.daphne import Daphne
from sse_asgi._servers.shutdown import ShutdownNotice


@pytest.mark.anyio
@pytest.mark.usefixtures("handlers")
async def test_a_handler_of_twisted_waits_for_the_streams() -> None:
    """It cancels all of them, as daphne's does, so it waits a moment more, until the middleware has ended too."""
    passed = []

    def previous(signum: int, _: FrameType | None) -> None:
        passed.append(signum)

    previous.__module__ = "twisted.internet._signals"
    signal.signal(signal.SIGTERM, previous)
    notice, event = ShutdownNotice(), anyio.Event()
    notice.listen(event.set)
    os.kill(os.getpid(), signal.SIGTERM)
    await heard(event)
    assert passed == []
    notice.unlisten(event.set)
    assert passed == []
    await until(lambda: passed == [signal.SIGTERM])


def test_another_handler_is_called_at_once() -> None:
    """Only twisted's must wait."""
    assert Daphne().delayed(signal.SIGTERM, lambda *_: None, lambda _: None) is None


def test_a_request_is_looked_at_in_its_queue() -> None:
    """Daphne's `receive` is the queue's `get`."""
    queue: asyncio.Queue[Any] = asyncio.Queue()
    look = Daphne().look(queue.get)
    assert look is not None
    assert look() is None
    queue.put_nowait({"type": "http.disconnect"})
    assert look() is True


@pytest.mark.parametrize(
    ("asgi", "answer"),
    [({"version": "3.0"}, False), ({"version": "3.0", "spec_version": "2.3"}, None), (None, None)],
)
def test_an_incomplete_response_is_not_broken_off(asgi: Any, answer: bool | None) -> None:  # noqa: FBT001 - a table
    """Its client would wait for ever. Other servers have a `spec_version`."""
    scope = {} if asgi is None else {"asgi": asgi}
    assert Daphne().breaks_off(scope, asyncio.Queue().get) is answer
