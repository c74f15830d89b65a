"""The example that uses hubs without EventSourceApp."""

import json

import pytest

from examples.conftest import Load, served

pytestmark = pytest.mark.anyio


async def test_a_visitor_is_announced_to_every_tab(load: Load) -> None:
    """The visit has an address and a time; each tab gets its own visit first."""
    async with served(load("who_visits")) as (streams, http):
        async with streams.stream("/visits") as one, streams.stream("/visits") as other:
            own = [json.loads((await tab.next_event()).data) for tab in (one, other)]
            page = await http.get("/")
            told = [json.loads((await tab.next_event()).data) for tab in (one, other)]
    assert page.text.startswith("<!doctype html>")
    assert [visit["who"] for visit in own] == ["you", "you"]
    assert told[0] == told[1]
    assert told[0]["who"] == "127.0.0.1"
    assert told[0]["time"] > own[1]["time"]


async def test_everybody_but_the_sender_reads_it(load: Load) -> None:
    """The data is a function of the reader's properties; a reader for whom it returns None gets no event."""
    async with served(load("who_visits")) as (streams, http):
        async with streams.stream("/chat?name=ada") as ada, streams.stream("/chat?name=bob") as bob:
            assert [(await one.next_event()).data for one in (ada, bob)] == ["Welcome, ada!", "Welcome, bob!"]
            await http.post("/chat?name=ada&text=one")
            await http.post("/chat?name=bob&text=two")
            assert (await bob.next_event()).data == "ada: one"
            assert (await ada.next_event()).data == "bob: two"


async def test_one_channel_or_several(load: Load) -> None:
    """A request names one or several channels; a reader of two channels gets an event of both once."""
    async with served(load("who_visits")) as (streams, http):
        async with streams.stream("/chat?name=ada&channel=a&channel=b") as ada:
            await ada.next_event()
            await http.post("/chat?name=bob&text=both&channel=a&channel=b")
            await http.post("/chat?name=bob&text=elsewhere")
            await http.post("/chat?name=bob&text=one&channel=b")
            assert [(await ada.next_event()).data for _ in range(2)] == ["bob: both", "bob: one"]


async def test_hubs_are_separate(load: Load) -> None:
    """The chat does not get a visit, although both channels have the same name."""
    async with served(load("who_visits")) as (streams, http), streams.stream("/chat?name=ada") as ada:
        await ada.next_event()
        await http.get("/")
        await http.post("/chat?name=bob&text=hello")
        assert (await ada.next_event()).data == "bob: hello"


async def test_readers_are_listed(load: Load) -> None:
    """The list has the names of one channel's readers."""
    async with served(load("who_visits")) as (streams, http):
        async with (
            streams.stream("/chat?name=bob") as bob,
            streams.stream("/chat?name=ada") as ada,
            streams.stream("/chat?name=eve&channel=other") as eve,
        ):
            for one in (bob, ada, eve):
                await one.next_event()
            listed = [(await http.get("/people", params=query)).json() for query in ({}, {"channel": "other"})]
    assert listed == [["ada", "bob"], ["eve"]]


async def test_somebody_is_dismissed(load: Load) -> None:
    """The reader's stream ends and those of others do not; 204 keeps the browser from reconnecting."""
    async with served(load("who_visits")) as (streams, http):
        async with streams.stream("/chat?name=ada") as ada, streams.stream("/chat?name=eve") as eve:
            for one in (ada, eve):
                await one.next_event()
            assert (await http.delete("/people/eve")).status_code == 204
            await eve.read()
            assert eve.complete
            async with streams.stream("/chat?name=eve") as again:
                assert again.status_code == 204
            await http.post("/chat?name=bob&text=gone")
            assert (await ada.next_event()).data == "bob: gone"


async def test_everything_can_be_closed(load: Load) -> None:
    """Every stream of both hubs ends with its last body message."""
    async with served(load("who_visits")) as (streams, http):
        async with streams.stream("/chat?name=ada") as ada, streams.stream("/visits") as tab:
            for one in (ada, tab):
                await one.next_event()
            await http.delete("/people")
            for one in (ada, tab):
                await one.read()
                assert one.complete
