"""Polls and streams give the same events with the same ids, on every backend, in every order of use."""

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sse_asgi import EventSourceApp, Hub, MemoryBackend
from sse_asgi.backends.redis import RedisBackend
from sse_asgi.decoder import DecodedEvent
from sse_asgi.testing import EventStreamClient

pytestmark = pytest.mark.anyio

CASES = [("memory", "asyncio"), ("memory", "trio"), ("redis", "asyncio")]  # RedisBackend runs on asyncio only
PUBLISH = st.lists(st.sampled_from("abc"), min_size=1, max_size=2, unique=True)
STEPS = st.lists(PUBLISH | st.sampled_from(["go on", "stay", "stream", "wait"]), max_size=12)


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def anyio_backend(case: tuple[str, str]) -> str:
    return case[1]


@pytest.fixture
def make_hubs(case: tuple[str, str], request: pytest.FixtureRequest) -> Any:
    """Return a function that makes two hubs: one that serves, and one of another process if the backend has several."""
    url = "" if case[0] == "memory" else request.getfixturevalue("shared_redis").url

    def make(size: int) -> tuple[Hub, Hub]:
        name = secrets.token_hex(8)
        if not url:
            hub = Hub(MemoryBackend(history_size=size))
            return hub, hub
        one, two = (RedisBackend(url, name=name, history_size=size) for _ in range(2))
        return Hub(one), Hub(two)

    return make


class Answer(NamedTuple):
    """A poll's answer in JSON."""

    events: list[DecodedEvent]
    last_event_id: str


class Reader:
    """Reads the channels a and b of an app, by polls and by streams."""

    def __init__(self, client: EventStreamClient) -> None:
        self.client = client

    async def poll(self, after: str | None, query: str = "") -> Answer:
        async with self.client.stream(f"/?poll=1{query}", headers={"accept": "*/*"}, last_event_id=after) as answer:
            told = json.loads(await answer.read())
        events = [DecodedEvent(one["event"], one["data"], one["id"]) for one in told["events"]]
        return Answer(events, told["last_event_id"])

    async def finished(self, after: str | None) -> list[DecodedEvent]:
        async with self.client.stream("/?poll=1", last_event_id=after) as answer:
            return [event async for event in answer]

    async def stream(self, after: str | None, count: int) -> list[DecodedEvent]:
        async with self.client.stream("/", last_event_id=after) as stream:
            return [await stream.next_event() for _ in range(count)]


@asynccontextmanager
async def reading(hubs: tuple[Hub, Hub]) -> AsyncIterator[Reader]:
    app = EventSourceApp(hubs[0], channels=["a", "b"])
    async with hubs[1], EventStreamClient(app) as client:
        yield Reader(client)


@pytest.mark.parametrize("size", [1000, 2])
@given(steps=STEPS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_way_of_reading_gives_the_same(make_hubs: Any, size: int, steps: list[Any]) -> None:
    """After every step, polls and streams give the same events and gaps, with the same ids, after the same id."""
    hubs = make_hubs(size)
    async with reading(hubs) as reader:
        after = (await reader.poll(None)).last_event_id
        pending: list[str] = []
        for number, step in enumerate(steps):
            if isinstance(step, list):
                await hubs[1].publish(step, number)
                pending += [str(number)] if {*step} & {"a", "b"} else []
                continue
            answer = await reader.poll(after, "&wait=5" if step == "wait" and pending else "")
            assert await reader.finished(after) == answer.events
            assert await reader.stream(after, len(answer.events)) == answer.events
            texts = [event.data for event in answer.events if event.event == "message"]
            assert texts == [text for text in pending if text in texts or size > len(steps)]
            if step != "stay":
                streamed = step == "stream" and answer.events
                after, pending = (answer.events[-1].id if streamed else answer.last_event_id), []


async def test_a_poll_has_the_events_that_were_published_before_it(make_hubs: Any) -> None:
    """The event may come from another process, and this one may be behind and have other readers."""
    hubs = make_hubs(1000)
    async with reading(hubs) as reader, reader.client.stream("/") as stream:
        after = (await reader.poll(None)).last_event_id
        for number in range(200):
            await hubs[1].publish("a", number)
            answer = await reader.poll(after)
            assert [event.data for event in answer.events] == [str(number)]
            after = answer.last_event_id
        assert [(await stream.next_event()).data for _ in range(200)] == [str(number) for number in range(200)]


async def test_polls_that_wait_lose_nothing(make_hubs: Any) -> None:
    """While two processes publish, successive polls get each event once, in the order of the log."""
    hubs = make_hubs(1000)
    got: list[DecodedEvent] = []
    async with reading(hubs) as reader, reader.client.stream("/") as stream:
        after = (await reader.poll(None)).last_event_id

        async def publish(hub: Hub, channel: str) -> None:
            for number in range(50):
                await hub.publish(channel, number)

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publish, hubs[0], "a")
                tasks.start_soon(publish, hubs[1], "b")
                while len(got) < 100:
                    answer = await reader.poll(after, "&wait=5")
                    got += answer.events
                    after = answer.last_event_id
        assert got == [await stream.next_event() for _ in range(100)]
