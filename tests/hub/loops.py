"""Other threads and other event loops, for tests of a hub that is called from them."""

import secrets
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from real_redis.launcher import RedisServer
from sse_asgi import Hub, Settings, create_hub

PATIENCE = 30.0


def new_hub(kind: str, redis: RedisServer) -> Hub:
    url = redis.url if kind.endswith("redis") else "memory://"
    return create_hub(Settings(backend_url=url, hub_name=secrets.token_hex(8)))


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a thread that is not one of anyio's, because those know the event loop that started them."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(function(*arguments))
        except BaseException as error:  # noqa: BLE001 - raised below
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    await anyio.to_thread.run_sync(thread.join)
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


async def in_other_loop(other: str, function: Callable[[], Awaitable[Any]]) -> Any:
    """Run an async function in an event loop of another thread."""
    return await in_thread(partial(anyio.run, function, backend=other))


def as_async(function: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
    async def call() -> Any:
        return function()

    return call
