"""The sink that records."""

import anyio
import pytest

from sse_asgi import MemoryBackend
from sse_asgi._log.position import Position
from sse_asgi.testing.contract._recorder import Tape, connected, put, settled, texts, types

pytestmark = pytest.mark.anyio


async def test_events_are_recorded() -> None:
    """With what they are, and the position behind them."""
    backend = MemoryBackend()
    async with connected(backend, "a") as tape:
        with anyio.move_on_after(0.01) as limit:
            await settled(tape, 1)
        assert limit.cancelled_caught
        position = await put(backend, "a", data="hello", key="k", once="o")
        await settled(tape, 1)
    assert (texts(tape.entries), types(tape.entries), tape.position) == (["hello"], [None], position)


def test_a_gap_and_an_outage_fail_the_test() -> None:
    """No test of the contract breaks a connection."""
    tape = Tape()
    tape.advance(Position("00000000", 1))
    tape.state(up=True)
    with pytest.raises(AssertionError):
        tape.state(up=False)
    with pytest.raises(AssertionError):
        tape.gap("trimmed", None)
