"""The example of a mounted stream."""

import json

import pytest

from examples.conftest import Load, cookies, served

pytestmark = pytest.mark.anyio


async def test_the_query_chooses_the_channel(load: Load) -> None:
    """A query without a channel reads the default one; a query may name several."""
    example = load("mounted_stream")
    async with served(example) as (streams, http):
        async with (
            streams.stream("/stream/") as default,
            streams.stream("/stream/?channel=logs") as logs,
            streams.stream("/stream/?channel=logs&channel=sse") as both,
        ):
            await http.post("/hello")
            await http.post("/hello?channel=logs")
            assert "Hello, sse!" in (await default.next_event()).data
            assert "Hello, logs!" in (await logs.next_event()).data
            assert [json.loads((await both.next_event()).data)["message"] for _ in "ab"] == [
                "Hello, sse!",
                "Hello, logs!",
            ]


async def test_events_have_names(load: Load) -> None:
    """The event has the given name, and its data is JSON."""
    example = load("mounted_stream")
    async with served(example) as (streams, _), streams.stream("/stream/") as stream:
        event_id = await example.send_event("greeting", {"message": "hi"})
        assert await stream.next_event() == ("greeting", '{"message":"hi"}', event_id)


async def test_one_channel_is_for_admins(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other users get 403, also among other channels and on resuming; the password gives access."""
    monkeypatch.setenv("ADMIN_PASSWORD", "sesame")
    example = load("mounted_stream")
    async with served(example) as (streams, http):
        for query in ("channel=analytics", "channel=sse&channel=analytics"):
            async with streams.stream(f"/stream/?{query}") as stream:
                assert stream.status_code == 403
        event_id = await example.send_event("greeting", "x", "analytics")
        async with streams.stream("/stream/?channel=analytics", last_event_id=event_id) as stream:
            assert stream.status_code == 403
        assert (await http.post("/hello?channel=analytics")).status_code == 403
        assert (await http.post("/login", data={"password": "open"})).status_code == 403
        assert (await http.post("/login", data={"password": "sesame"})).status_code == 303
        async with streams.stream("/stream/?channel=analytics", headers=cookies(http)) as stream:
            assert (await http.post("/hello?channel=analytics")).status_code == 204
            assert "analytics" in (await stream.next_event()).data


async def test_without_a_password_no_login_works(load: Load) -> None:
    """If no password is set, an empty one is refused."""
    async with served(load("mounted_stream")) as (_, http):
        assert (await http.post("/login", data={"password": ""})).status_code == 403


async def test_the_page_has_the_streams_url(load: Load) -> None:
    """The URL is made from the route's name and the requested channel, and is escaped."""
    async with served(load("mounted_stream")) as (_, http):
        pages = [(await http.get("/", params=query)).text for query in ({}, {"channel": 'a"><b&'})]
    assert 'data-stream="http://testserver/stream/?channel=sse"' in pages[0]
    assert 'data-stream="http://testserver/stream/?channel=a%22%3E%3Cb%26"' in pages[1]
