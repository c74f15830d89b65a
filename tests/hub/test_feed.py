"""SubscriptionFeed: the frames that a connection takes from a subscription."""

from typing import Any

import pytest

from hub.readers import framed, position_frame, take_all
from sse_asgi import Hub, MemoryBackend, ServerSentEvent
from sse_asgi._hub.subscription import PAGE

pytestmark = pytest.mark.anyio


async def test_no_position_is_written_before_the_newest_events() -> None:
    """A reader that is cut off before the first of them begins afresh, and gets them."""
    async with Hub() as hub:
        last = await hub.publish("a", "kept")
        async with framed(hub.subscribe("a", rewind=1)) as feed:
            assert feed.take() == f"id: {last}\ndata: kept\n\n".encode()


async def test_a_reader_for_which_nothing_is_kept_begins_with_a_position() -> None:
    """As any fresh reader does."""
    async with Hub() as hub:
        last = await hub.publish("b", "elsewhere")
        async with framed(hub.subscribe("a", rewind=1)) as feed:
            assert f"id: {last}\n".encode() in feed.take()
        async with framed(hub.subscribe("a", rewind=1, position_frames=False)) as feed:
            assert feed.take() == b""


async def test_a_fresh_stream_begins_with_the_position() -> None:
    """So that a reader who got no event yet resumes from the right place."""
    async with Hub() as hub:
        position = await hub.publish("a", "before")
        async with framed(hub.subscribe("a")) as feed:
            assert feed.take() == position_frame(position)
            assert feed.take() == b""


async def test_the_position_comes_after_the_initial_events() -> None:
    """Whoever is cut off among them gets them again: no id is ahead of an unsent event."""
    async with Hub() as hub, framed(hub.subscribe("a", initial=["1", "2"])) as feed:
        frames = feed.take()
    assert frames.index(b"id:") > frames.index(b"data: 2")


async def test_a_snapshot_brings_the_position_itself() -> None:
    """No id is written before it."""

    async def state() -> str:
        return "s"

    async with Hub() as hub, framed(hub.subscribe("a", snapshot=state)) as feed:
        frames = feed.take()
    assert frames.startswith(b"id: ")
    assert frames.count(b"id:") == 1


async def test_a_resumed_stream_writes_no_id_of_its_own() -> None:
    """The first id is the first event's."""
    async with Hub() as hub:
        first = await hub.publish("a", "1")
        second = await hub.publish("a", "2")
        async with framed(hub.subscribe("a", last_event_id=first)) as feed:
            assert feed.take() == f"id: {second}\ndata: 2\n\n".encode()


async def test_what_is_pending_goes_out_in_one_body() -> None:
    """Joined, up to 64 KiB; a larger event goes alone."""
    async with Hub(buffer_size=1000) as hub, framed(hub.subscribe("a")) as feed:
        feed.take()
        for number in range(100):
            await hub.publish("a", str(number))
        assert feed.take().count(b"data:") == 100
        for _ in range(10):
            await hub.publish("a", "x" * 20_000)
        await hub.publish("a", "y" * 100_000)
        sizes = []
        while body := feed.take():
            sizes.append(len(body))
    assert max(sizes[:-1]) <= 64 * 1024
    assert sizes[-1] > 100_000
    assert len(sizes) == 5


async def test_what_a_transform_makes_is_bounded_too() -> None:
    """A body is counted in the bytes that the reader gets, and each event is transformed once."""
    calls: list[str | None] = []

    def blow_up(event: ServerSentEvent, _: Any) -> str:
        calls.append(event.data)
        return "y" * 40_000

    async with Hub() as hub, framed(hub.subscribe("a", transform=blow_up)) as feed:
        feed.take()
        ids = [await hub.publish("a", str(number)) for number in range(3)]
        bodies = [feed.take() for _ in range(4)]
    assert [body.partition(b"\n")[0] for body in bodies] == [*(f"id: {one}".encode() for one in ids), b""]
    assert calls == ["0", "1", "2"]


async def test_a_ping_shows_a_position_that_moved() -> None:
    """Other channels were busy: the reader's id is kept from falling out of history; otherwise it is a bare comment."""
    async with Hub() as hub, framed(hub.subscribe("a")) as feed:
        feed.take()
        assert feed.ping() == b":\n"
        moved = await hub.publish("b", "elsewhere")
        assert feed.ping() == position_frame(moved)
        assert feed.ping() == b":\n"
        await hub.publish("a", "pending")
        assert feed.ping() == b":\n"


async def test_a_rendered_event_is_taken_once() -> None:
    """Callable data goes out with its id, and moves the reader behind it."""
    async with Hub(buffer_size=1) as hub, framed(hub.subscribe("a")) as feed:
        feed.take()
        published = await hub.publish("a", lambda _: "mine")
        assert feed.take() == f"id: {published}\ndata: mine\n\n".encode()
        for number in range(3):
            await hub.publish("a", str(number))
        assert feed.take() == b""
        await feed.run()
        assert [line for line in feed.take().splitlines() if b"data" in line] == [b"data: 0", b"data: 1", b"data: 2"]


async def test_a_filtered_event_moves_the_position_at_the_next_ping() -> None:
    """Skipped by transform: nothing is written until there is silence."""
    async with Hub() as hub, framed(hub.subscribe("a", transform=lambda *_: None)) as feed:
        feed.take()
        moved = await hub.publish("a", "filtered")
        assert feed.take() == b""
        assert feed.ping() == position_frame(moved)


async def test_a_ping_during_a_replay_shows_no_position() -> None:
    """Nothing may be ahead of what is still to be replayed."""
    async with Hub() as hub:
        first = await hub.publish("a", "0")
        for number in range(2 * PAGE - 40):
            await hub.publish("a", str(number))
        async with framed(hub.subscribe("a", last_event_id=first)) as feed:
            assert feed.ping() == b":\n"
            while feed.take():
                pass
            assert feed.needs_run
            assert feed.ping() == b":\n"


async def test_position_frames_can_be_turned_off() -> None:
    """No `sse.position`, neither at the start nor as a ping."""
    async with Hub() as hub, framed(hub.subscribe("a", position_frames=False)) as feed:
        assert feed.take() == b""
        await hub.publish("b", "elsewhere")
        assert feed.ping() == b":\n"


async def test_a_connection_cut_anywhere_resumes_without_loss() -> None:
    """Whatever prefix of its frames a reader got, its last id brings exactly the rest."""
    async with Hub(MemoryBackend(history_size=5)) as hub:
        first = await hub.publish("a", "0")
        for number in range(1, 9):
            await hub.publish("a", str(number))
        for start in (first, "bad"):
            async with framed(hub.subscribe("a", last_event_id=start)) as feed:
                frames = feed.take().split(b"\n\n")[:-1]
            for cut in range(1, len(frames) + 1):
                last_id = frames[cut - 1].splitlines()[0].removeprefix(b"id: ").decode()
                async with hub.subscribe("a", last_event_id=last_id) as resumed:
                    got = [frame.splitlines()[-1] for frame in frames[1:cut]]
                    rest = [f"data: {event.data}".encode() for event in await take_all(resumed)]
                    assert got + rest == [f"data: {number}".encode() for number in range(4, 9)]
