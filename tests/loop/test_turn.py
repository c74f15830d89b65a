"""Turns of the event loop, told apart."""

import pytest

from sse_asgi._loop.running import checkpoint
from sse_asgi._loop.turn import current_turn

pytestmark = pytest.mark.anyio


async def test_a_turn_has_one_number_and_the_next_one_another(anyio_backend: str) -> None:
    """On trio, where turns are not told apart, all have the same number."""
    turn = current_turn()
    numbers = []
    for _ in range(3):
        numbers.append(turn.mark())
        assert turn.mark() == current_turn().number == numbers[-1]
        await checkpoint()
        await checkpoint()
    assert len({*numbers}) == (3 if anyio_backend == "asyncio" else 1)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_mark_tells_whether_the_event_loop_has_turned_since() -> None:
    """However many turns have gone by: nothing runs in those that nobody marked."""
    turn = current_turn()
    seen = turn.mark()
    assert turn.number == seen
    await checkpoint()
    assert turn.number == seen + 1
    for _ in range(3):
        await checkpoint()
    assert turn.number == seen + 1
