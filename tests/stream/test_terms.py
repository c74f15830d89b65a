"""Terms: equal ones are shared, within an event loop."""

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from sse_asgi import EventSourceResponse
from sse_asgi._stream.terms import MAX_SHARED, Terms
from sse_asgi.testing import EventStreamClient

pytestmark = pytest.mark.anyio


async def terms_of(*options: dict[str, Any]) -> list[Terms]:
    """Serve a stream with each of these options, and return their terms."""
    found = []
    for one in options:
        response = EventSourceResponse([], **one)
        async with EventStreamClient(response).stream("/") as stream:
            await stream.read()
        found.append(response._terms)
    return found


async def test_equal_terms_are_kept_once() -> None:
    """An event loop shares them, but not for ever. Terms with a function, which may hold its request, are not."""
    one, two, other = await terms_of({"retry": 5}, {"retry": 5}, {"retry": 6})
    assert one is two
    assert other.greeting == b"retry: 6\n"
    mine, yours = await terms_of({"on_error": str}, {"on_error": str})
    assert mine is not yours
    await terms_of(*({"retry": number} for number in range(100, 100 + MAX_SHARED)))
    (again,) = await terms_of({"retry": 5})
    assert again is not one


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_event_loops_share_no_terms(backend: str) -> None:
    """The next event loop has its own terms."""
    one, two = (anyio.run(terms_of, {"retry": 5}, backend=backend) for _ in range(2))
    assert one == two
    assert one[0] is not two[0]
