"""An app whose client polls, the polls, and their answers."""

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio

from mount.helpers import mounted
from sse_asgi import Hub
from sse_asgi.testing import EventStreamClient

LONG = 30.0  # seconds that no test waits


def polled(hub: Hub | None = None, **options: Any) -> AbstractAsyncContextManager[tuple[Hub, EventStreamClient]]:
    return mounted(hub, accept="*/*", **options)


async def poll(client: EventStreamClient, after: str | None = None, query: str = "", **options: Any) -> Any:
    async with client.stream(f"/events/?poll=1{query}", last_event_id=after, **options) as answer:
        body = await answer.read()
        assert (answer.status_code, answer.complete) == (200, True), body
        return json.loads(body)


@asynccontextmanager
async def waiting(client: EventStreamClient, hub: Hub, query: str = "", **options: Any) -> AsyncIterator[list[Any]]:
    """Begin a poll that waits, and have its answer when the block ends."""
    answers: list[Any] = []

    async def wait() -> None:
        answers.append(await poll(client, query=f"&wait={LONG:g}{query}", **options))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await until_read(hub)
            yield answers


async def until_read(hub: Hub) -> None:
    """Wait until a subscription is caught up."""
    while not hub.subscriptions():
        await anyio.sleep(0)
    await anyio.wait_all_tasks_blocked()


def data(answer: Any) -> list[str]:
    return [event["data"] for event in answer["events"]]
