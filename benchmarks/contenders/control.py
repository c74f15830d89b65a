"""The part that every contender written in Python shares: numbered events in bursts, and tokens.

`GET /publish?n=&size=&burst=&gap=&channels=` publishes n events of `size` bytes, in bursts of `burst` events, with
`gap` seconds between bursts. With more than one channel, each event goes to a random one. The data begin with the
event's number in its channel, and the time (CLOCK_MONOTONIC in ns).
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

Publish = Callable[[str, str], Awaitable[object]]

numbers: Counter[str] = Counter()
chance = random.Random(1)


def payload(channel: str, size: int) -> str:
    number = numbers[channel]
    numbers[channel] += 1
    return f"{number:08d} {time.monotonic_ns():020d} ".ljust(size, "x")


async def publish_events(publish: Publish, query: str) -> None:
    asked = dict(parse_qsl(query))
    count, size, burst = int(asked["n"]), int(asked["size"]), int(asked["burst"])
    gap, channels = float(asked["gap"]), int(asked["channels"])
    due = time.monotonic()
    for first in range(0, count, burst):
        for _ in range(min(burst, count - first)):
            channel = str(chance.randrange(channels)) if channels > 1 else "0"
            await publish(channel, payload(channel, size))
        due += gap
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def tokens(query: str, write: Callable[[str], Any] = str) -> AsyncIterator[Any]:
    """Yield what `write` makes of n small texts: `rate` a second; or one a turn of the event loop if `rest` is 1."""
    asked = dict(parse_qsl(query))
    rest, rate = asked["rest"] == "1", float(asked.get("rate", 0))
    due = time.monotonic() + (chance.random() / rate if rate else 0)  # models do not write in step
    for number in range(int(asked["n"])):
        if rate:
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        elif rest:
            await asyncio.sleep(0)
        yield write(f"{number:08d} {time.monotonic_ns():020d}")


def controlled(app: Any, publish: Publish) -> Any:
    """Add /publish to an ASGI application, without a coroutine of its own around the streams."""

    async def control(scope: Any, send: Any) -> None:
        await publish_events(publish, scope["query_string"].decode())
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    def wrapped(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        is_control = scope["type"] == "http" and scope["path"] == "/publish"
        return control(scope, send) if is_control else app(scope, receive, send)

    return wrapped
