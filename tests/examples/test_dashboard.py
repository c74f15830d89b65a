"""The example of a dashboard, as its clients see it; tests/browser has its page."""

import json
from typing import Any

import anyio
import pytest

from examples.conftest import Load, served
from sse_asgi import BackendError

pytestmark = pytest.mark.anyio


@pytest.fixture
def dashboard(load: Load) -> Any:
    """Return a dashboard that measures a hundred times a second."""
    example = load("dashboard/dashboard")
    example.SECONDS = 0.01
    return example


async def test_it_begins_with_the_state(dashboard: Any) -> None:
    """`init` has the whole state, and each following `delta` has the new value of one room."""
    async with served(dashboard) as (streams, _), streams.stream("/events/") as stream:
        init = await stream.next_event()
        known = json.loads(init.data)
        while len(known) < 3:
            delta = await stream.next_event()
            assert delta.event == "delta"
            known |= json.loads(delta.data)
    assert init.event == "init"
    assert set(known) == set(dashboard.ROOMS)


async def test_ids_are_the_same_for_everybody(dashboard: Any) -> None:
    """Two clients that connect at different times get each event with the same id."""
    async with served(dashboard) as (streams, _):
        async with streams.stream("/events/") as early:
            await early.next_event()
            async with streams.stream("/events/") as late:
                deltas = [await late.next_event() for _ in range(4)][1:]
                seen = [await early.next_event()]
                while deltas[-1] not in seen:
                    seen.append(await early.next_event())
    assert set(deltas) <= set(seen)


async def test_who_comes_back_gets_the_deltas_that_were_missed(dashboard: Any) -> None:
    """A client that reconnects gets the deltas that history keeps, without the state."""
    async with served(dashboard) as (streams, _):
        async with streams.stream("/events/") as stream:
            last = [await stream.next_event() for _ in range(3)][-1]
        async with streams.stream("/events/") as other:
            for _ in range(5):
                missed = await other.next_event()
        async with streams.stream("/events/", last_event_id=last.id) as again:
            got = [await again.next_event()]
            while missed not in got:
                got.append(await again.next_event())
    assert {event.event for event in got} == {"delta"}


async def test_who_cannot_be_given_the_deltas_gets_the_state(dashboard: Any) -> None:
    """After a gap, such as a restart of the server, the client gets the state."""
    async with served(dashboard) as (streams, _), streams.stream("/events/", last_event_id="01234567-1") as stream:
        assert [(await stream.next_event()).event for _ in range(3)] == ["sse.gap", "init", "delta"]


async def test_polls_go_on_where_the_stream_was(dashboard: Any) -> None:
    """A poll has the reconnection time as its interval, and does not repeat the state."""
    async with served(dashboard) as (streams, http):
        async with streams.stream("/events/") as stream:
            last = [await stream.next_event() for _ in range(3)][-1]
            assert stream.retry == 2000
        answer: dict[str, Any] = {"events": [], "last_event_id": last.id}
        with anyio.fail_after(5):
            while not answer["events"]:
                await anyio.sleep(0.01)
                query = {"poll": 1, "last_event_id": answer["last_event_id"]}
                answer = (await http.get("/events/", params=query)).json()
    assert answer["retry"] == 2000
    assert {event["event"] for event in answer["events"]} == {"delta"}


async def test_any_page_may_read(dashboard: Any) -> None:
    """Streams, polls and preflights of another origin have the headers that its page needs."""
    origin = {"origin": "https://static.example"}
    async with served(dashboard) as (streams, http):
        async with streams.stream("/events/", headers=origin) as stream:
            heads = [dict(stream.headers)]
        heads.append(dict((await http.get("/events/?poll=1", headers=origin)).headers))
        heads.append(dict((await http.options("/events/", headers=origin)).headers))
    assert [head["access-control-allow-origin"] for head in heads] == ["*"] * 3
    assert heads[2]["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
    for name in ("Cache-Control", "Last-Event-ID", "X-Requested-With"):
        assert name in heads[2]["access-control-allow-headers"]


async def test_the_sensor_outlives_the_backend(dashboard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that cannot be published is still in the state, and measuring goes on."""
    failures: list[int] = []

    def fail(*_: object, **__: object) -> None:
        failures.append(1)
        msg = "away"
        raise BackendError(msg)

    monkeypatch.setattr(dashboard.hub, "publish_from_thread", fail)
    async with served(dashboard):
        with anyio.fail_after(5):
            while len(failures) < 4:
                await anyio.sleep(0.01)
    assert set(dashboard.state) == set(dashboard.ROOMS)
