"""Polls and the other options of an app: access, CORS, transforms, snapshots, limits."""

import time
from typing import Any

import anyio
import pytest
from starlette.exceptions import HTTPException

from mount.helpers import status
from mount.polls import LONG, data, poll, polled
from sse_asgi import (
    ChannelSigner,
    EventSourceApp,
    EventSourceMiddleware,
    Grant,
    Hub,
    ServerSentEvent,
)
from sse_asgi.testing import EventStreamClient

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("query", ["&last_event_id=", "&lastEventId="])
async def test_the_id_may_be_in_the_query(query: str) -> None:
    """A poll takes the id from the query as a stream does."""
    async with polled() as (hub, client):
        first = await hub.publish("default", "1")
        await hub.publish("default", "2")
        assert data(await poll(client, query=f"{query}{first}")) == ["2"]


async def test_the_interval_is_the_apps_retry() -> None:
    """It is the time that browsers wait too."""
    async with polled(retry=7000) as (_, client):
        assert (await poll(client))["retry"] == 7000


async def test_initial_events_and_a_snapshot_come_first() -> None:
    """Only a fresh poll has them, as a stream."""

    async def snapshot() -> str:
        return "state"

    async with polled(initial=["hello"], snapshot=snapshot) as (hub, client):
        answer = await poll(client)
        assert [(one["id"] is None, one["data"]) for one in answer["events"]] == [(True, "hello"), (False, "state")]
        await hub.publish("default", "x")
        assert data(await poll(client, answer["last_event_id"])) == ["x"]


async def test_the_transform_is_the_readers() -> None:
    """It gets the properties that authorize returned; a filtered event moves the position."""

    def only(event: ServerSentEvent, wanted: str) -> ServerSentEvent | None:
        return ServerSentEvent(f"<{event.data}>") if event.data == wanted else None

    async with polled(authorize=lambda *_: "1", transform=only) as (hub, client):
        start = (await poll(client))["last_event_id"]
        await hub.publish("default", "1")
        last = await hub.publish("default", "2")
        answer = await poll(client, start)
        assert (data(answer), answer["last_event_id"]) == (["<1>"], last)


async def test_access_is_that_of_a_stream() -> None:
    """Channels, authorize and origins are checked as for a stream."""

    def refuse(*_: Any) -> None:
        raise HTTPException(401)

    async with polled() as (_, client):
        assert await status(client, "?poll=1&channel=other") == 403
        assert await status(client, "?poll=1", headers={"origin": "https://evil.example"}) == 403
    async with polled(authorize=refuse) as (_, client):
        assert await status(client, "?poll=1") == 401


async def test_a_client_that_polls_may_read_across_origins() -> None:
    """The answer has the CORS headers."""
    async with polled(cors_origins="https://other.example") as (_, client):
        async with client.stream("/events/?poll=1", headers={"origin": "https://other.example"}) as answer:
            assert answer.headers["access-control-allow-origin"] == "https://other.example"


async def test_the_middleware_leaves_it_as_it_is() -> None:
    """The middleware takes it for a stream of this library."""
    hub = Hub()
    app = EventSourceMiddleware(EventSourceApp(hub), hub=hub)
    async with EventStreamClient(app) as client, client.stream("/?poll=1") as answer:
        await answer.read()
        assert answer.headers["content-length"] == str(len(answer.content))


async def test_a_grant_that_expires_ends_the_waiting() -> None:
    """It ends a poll as it ends a stream; the next poll is authorised afresh."""
    grant = Grant(expires_at=time.time() + 0.3)
    async with polled(authorize=lambda *_: grant) as (_, client):
        with anyio.fail_after(5):
            assert (await poll(client, query=f"&wait={LONG:g}"))["events"] == []
        assert await status(client, "?poll=1") == 401


async def test_a_ticket_is_enough() -> None:
    """The poll has the ticket's channels and properties."""
    signer = ChannelSigner("a secret of some length")
    async with polled(tickets=signer, transform=lambda event, suffix: f"{event.data}{suffix}") as (hub, client):
        query = f"&ticket={signer.ticket(['a'], properties='!')}"
        start = (await poll(client, query=query))["last_event_id"]
        await hub.publish("a", "x")
        assert data(await poll(client, start, query)) == ["x!"]
        assert await status(client, "?poll=1") == 401
