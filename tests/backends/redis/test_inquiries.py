"""Calls that may block: one at a time for each key, and answers that come late."""

import asyncio
import time

import anyio
import pytest

from sse_asgi.backends.redis._inquiries import Inquiries

pytestmark = pytest.mark.anyio


PATIENCE = 30.0


async def test_a_look_up_that_outlives_its_loop() -> None:
    """A late answer is for the next caller; another loop asks anew, and old answers are not used."""
    inquiries, answers = Inquiries(), iter("abc")
    go_on = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow() -> str:
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(PATIENCE)
        return next(answers)

    with anyio.move_on_after(0.05):
        await inquiries.ask("key", slow)
    go_on.set()
    await asyncio.sleep(0.1)
    assert await inquiries.ask("key", slow) == "a"
    assert await asyncio.to_thread(lambda: asyncio.run(inquiries.ask("key", lambda: "other"))) == "other"
    assert await inquiries.ask("key", slow) == "b"


async def test_an_answer_that_is_old_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked up again."""
    monkeypatch.setattr("sse_asgi.backends.redis._inquiries.FRESH_SECONDS", -1)
    inquiries, answers = Inquiries(), iter("abc")

    def slow() -> str:
        time.sleep(0.1)
        return next(answers)

    with anyio.move_on_after(0.05):
        await inquiries.ask("key", slow)
    await asyncio.sleep(0.3)
    assert await inquiries.ask("key", lambda: next(answers)) == "b"


async def test_what_a_call_raises_is_raised() -> None:
    """In the event loop."""
    with pytest.raises(ZeroDivisionError):
        await Inquiries().ask("key", lambda: 1 // 0)


async def test_two_who_ask_the_same() -> None:
    """They get the answer of one call."""
    inquiries, answers = Inquiries(), iter("ab")

    def slow() -> str:
        time.sleep(0.1)
        return next(answers)

    assert set(await asyncio.gather(inquiries.ask("key", slow), inquiries.ask("key", slow))) == {"a"}
