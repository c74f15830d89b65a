"""The stages of the current session."""

import asyncio
from typing import Any

import pytest

from sse_asgi import HubClosedError
from sse_asgi.backends.redis._current import CurrentSession

pytestmark = pytest.mark.anyio

SESSION: Any = object()


async def test_commands_wait_for_the_fence_and_readers_for_more() -> None:
    """A task that waits gets the session at its stage."""
    current = CurrentSession()
    command, reader = asyncio.create_task(current.fenced()), asyncio.create_task(current.live())
    await asyncio.sleep(0)
    current.set_fenced(SESSION)
    assert await command is SESSION
    assert not reader.done()
    assert (current.is_live, current.was_live) == (False, False)
    current.set_live()
    assert await reader is SESSION
    assert (current.is_live, current.was_live) == (True, True)


async def test_a_session_that_has_ended_is_not_given() -> None:
    """Also to a task that was woken up for it; a reader waits for the next session."""
    current = CurrentSession()
    tasks = [asyncio.create_task(current.fenced()), asyncio.create_task(current.live())]
    await asyncio.sleep(0)
    current.set_fenced(SESSION)
    current.set_live()
    current.clear()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    assert (current.session, current.is_live, current.was_live) == (None, False, True)
    other: Any = object()
    current.set_fenced(other)
    current.set_live()
    assert await asyncio.gather(*tasks) == [other, other]


async def test_closing_ends_all_waits() -> None:
    """Those of now and later ones, with the error of a closed hub."""
    current = CurrentSession()
    tasks = [asyncio.create_task(current.fenced()), asyncio.create_task(current.live())]
    await asyncio.sleep(0)
    current.close()
    for wait in (*tasks, current.fenced(), current.live()):
        with pytest.raises(HubClosedError, match="cannot read: the hub was closed"):
            await wait
