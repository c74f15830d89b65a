"""SubscriptionFeed: the frames that a connection takes from a subscription."""

from typing import Any

import pytest

from hub.readers import framed, position_frame, take_all
from sse_asgi import Hub, MemoryBackend, ServerSentEvent
from sse_asgi._hub.delivery import BODY_LIMIT, Delivery
from sse_asgi._hub.feed import SubscriptionFeed
from sse_asgi._hub.subscription import PAGE
from sse_asgi._log.event import Entry, RenderedEvent
from sse_asgi._loop.wakeup import new_wakeup

pytestmark = pytest.mark.anyio


async def test_no_position_is_written_before_the_newest_events() -> None:
    """A reader that is cut off before the first of them begins afresh, and gets them."""
    async with Hub() as hub:
        last = await hub.publish("a", "kept")
        async with framed(hub.subscribe("a", rewind=1)) as feed:
            assert feed.take() == f"id: {last}\ndata: kept\n\n".encode()


async def test_a_reader_for_which_nothing_is_kept_begins_with_a_position() -> None:
    """The frame is left out with position_frames=False."""
    async with Hub() as hub:
        last = await hub.publish("b", "elsewhere")
        async with framed(hub.subscribe("a", rewind=1)) as feed:
            assert f"id: {last}\n".encode() in feed.take()
        async with framed(hub.subscribe("a", rewind=1, position_frames=False)) as feed:
            assert feed.take() == b""


async def test_a_fresh_stream_begins_with_the_position() -> None:
    """A reader that got no event yet resumes from the right place."""
    async with Hub() as hub:
        position = await hub.publish("a", "before")
        async with framed(hub.subscribe("a")) as feed:
            assert feed.take() == position_frame(position)
            assert feed.take() == b""


async def test_the_position_comes_after_the_initial_events() -> None:
    """A reader that is cut off among them gets them again: no id is ahead of an unsent event."""
    async with Hub() as hub, framed(hub.subscribe("a", initial=["1", "2"])) as feed:
        frames = feed.take()
    assert frames.index(b"id:") > frames.index(b"data: 2")


async def test_a_snapshot_brings_the_position_itself() -> None:
    """No id is written before the snapshot."""

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
    """Frames are joined up to 64 KiB. A larger event goes alone."""
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
    """The bytes that the reader gets are counted, and each event is transformed once."""
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
    """A busy channel elsewhere moves the reader's id, which stays in history. Otherwise a ping is a bare comment."""
    async with Hub() as hub, framed(hub.subscribe("a")) as feed:
        feed.take()
        assert feed.ping() == b":\n"
        moved = await hub.publish("b", "elsewhere")
        assert feed.ping() == position_frame(moved)
        assert feed.ping() == b":\n"
        await hub.publish("a", "pending")
        assert feed.ping() == b":\n"


async def test_a_rendered_event_is_taken_once() -> None:
    """Callable data goes out with its id, and moves the reader's position."""
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
    """An event that the transform skips writes no frame, until a ping does."""
    async with Hub() as hub, framed(hub.subscribe("a", transform=lambda *_: None)) as feed:
        feed.take()
        moved = await hub.publish("a", "filtered")
        assert feed.take() == b""
        assert feed.ping() == position_frame(moved)


async def test_a_ping_during_a_replay_shows_no_position() -> None:
    """No id may be ahead of an event that is still to be replayed."""
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
    """`sse.position` is written neither at the start nor as a ping."""
    async with Hub() as hub, framed(hub.subscribe("a", position_frames=False)) as feed:
        assert feed.take() == b""
        await hub.publish("b", "elsewhere")
        assert feed.ping() == b":\n"


async def test_a_connection_cut_anywhere_resumes_without_loss() -> None:
    """For each prefix of its frames that a reader got, its last id brings exactly the rest."""
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


# The events that a connection is sent in the publisher's turn


class Connection:
    """A connection's writer that records its calls, and takes the frames that wait when it is told to."""

    def __init__(self) -> None:
        """Rest."""
        self.rests = True
        self.told: list[str] = []
        self.sent = b""
        self.feed: SubscriptionFeed

    def send(self, delivery: Delivery) -> bool:
        """Send one event, if it rests."""
        self.told.append("send")
        self.sent += delivery.entry.frame if self.rests else b""
        return self.rests

    def send_later(self, delivery: Delivery) -> None:
        """Record the call."""
        self.told.append("later")

    def send_waiting(self) -> None:
        """Send the frames that wait, if it rests."""
        self.told.append("waiting")
        self.sent += self.feed.take_plain() if self.rests else b""

    def send_now(self, body: bytes) -> bool:
        """Fail, because a subscription's frames are taken, not sent."""
        raise AssertionError(body)


async def connected(hub: Hub, **options: Any) -> tuple[Connection, SubscriptionFeed]:
    """Enter a subscription for a connection, and take the frames that a stream begins with."""
    connection = Connection()
    connection.feed = feed = SubscriptionFeed(hub.subscribe("a", **options))
    feed.attach(new_wakeup(), connection)
    await feed.run()
    feed.take()
    return connection, feed


def delivery(data: str, *, at_once: bool) -> Delivery:
    """Return an event that is delivered."""
    return Delivery(Entry(ServerSentEvent(data), None, ("a",)), 0.0, at_once=at_once)


async def test_an_event_goes_at_once_where_nothing_waits_before_it() -> None:
    """Otherwise it is held, and sent with the events that follow."""
    async with Hub() as hub:
        connection, feed = await connected(hub)
        feed.offer(delivery("1", at_once=True))
        assert (connection.told, connection.sent) == (["send"], b"data: 1\n\n")
        feed.offer(delivery("2", at_once=False))
        feed.offer(delivery("3", at_once=True))
        assert connection.told == ["send", "later", "later"]
        late = delivery("4", at_once=True)
        connection.rests = False
        feed.offer(late)
        assert (late.held, feed.channels, feed.kind) == (1, ("a",), "subscription")
        connection.rests = True
        assert feed.take_plain() == b"data: 2\n\ndata: 3\n\ndata: 4\n\n"
        assert feed.take_plain() == b""
        await feed.close()


async def test_an_event_is_held_where_the_connection_does_not_rest() -> None:
    """The connection's own task takes it."""
    async with Hub() as hub:
        connection, feed = await connected(hub)
        connection.rests = False
        feed.offer(delivery("1", at_once=True))
        assert (connection.told, connection.sent) == (["send", "later"], b"")
        assert feed.take() == b"data: 1\n\n"
        await feed.close()


@pytest.mark.parametrize(("rests", "left"), [(True, b"data: 3\n\n"), (False, b"")])
async def test_a_full_buffer_is_sent_before_it_overflows(*, rests: bool, left: bytes) -> None:
    """Events overflow only where the connection cannot be sent to."""
    async with Hub(buffer_size=2) as hub:
        connection, feed = await connected(hub)
        connection.rests = rests
        for number in (1, 2, 3):
            feed.offer(delivery(str(number), at_once=False))
        assert connection.told == ["later", "later", "waiting", "later"]
        assert connection.sent == (b"data: 1\n\ndata: 2\n\n" if rests else b"")
        if rests:
            assert feed.take_plain() == left
        else:  # without a position there is no history to read: the oldest were dropped, which is announced
            assert feed.take().startswith(b'event: sse.gap\ndata: {"reason":"overflow"}\n\ndata: 2')
        await feed.close()


async def test_an_event_that_differs_for_each_reader_is_taken_by_the_connections_task() -> None:
    """Callable data has no shared frame; with a transform no event has, so the connection is not used at all."""
    async with Hub() as hub:
        connection, feed = await connected(hub)
        feed.offer(Delivery(Entry(RenderedEvent(lambda _: "mine", None, None), None, ("a",)), 0.0, at_once=True))
        assert (connection.told, feed.take_plain()) == ([], b"")
        assert feed.take() == b"data: mine\n\n"
        await feed.close()
        connection, feed = await connected(hub, transform=lambda event, _: event)
        feed.offer(delivery("1", at_once=True))
        assert connection.told == []
        assert feed.take() == b"data: 1\n\n"
        await feed.close()


async def test_a_reader_that_was_ended_is_offered_nothing() -> None:
    """The connection ends it."""
    async with Hub() as hub:
        subscription = hub.subscribe("a")
        async with framed(subscription) as feed:
            feed.take()
            subscription.end("revoked")
            feed.offer(delivery("late", at_once=True))
            assert (feed.ended, feed.take()) == ("revoked", b"")


# The life of a feed


async def test_a_feed_enters_its_subscription_once_and_leaves_it() -> None:
    """Closing a feed that never ran does nothing."""
    async with Hub() as hub:
        subscription = hub.subscribe("a")
        feed = SubscriptionFeed(subscription)
        await feed.close()
        feed.attach(new_wakeup(), None)
        assert (feed.immediate, feed.joined, feed.needs_run) == (True, False, True)
        await feed.run()
        assert (feed.joined, feed.needs_run) == (True, False)
        assert hub.subscriptions() == [subscription]
        await feed.reach()
        feed.stop()
        assert feed.last_words(b"bye") == b"bye"
        await feed.close()
        assert hub.subscriptions() == []
        with pytest.raises(RuntimeError, match="entered once"):
            feed.attach(new_wakeup(), None)


# Up to an event


async def test_the_last_event_ends_the_feed() -> None:
    """Nothing that was published after it is taken, and no position."""
    async with Hub() as hub, framed(hub.subscribe("a", until="done")) as feed:
        feed.take()
        await hub.publish("a", "1")
        await hub.publish("a", "2", event="done")
        await hub.publish("a", "3")
        assert (feed.take().count(b"data:"), feed.ended) == (2, "finished")
        await hub.publish("a", "4")
        assert (feed.take(), feed.take_plain(), feed.ping(), feed.needs_run) == (b"", b"", b":\n", False)


async def test_the_last_event_waits_for_its_turn() -> None:
    """It does not end the feed before it is taken, also where it does not fit into the body before it."""
    async with Hub() as hub, framed(hub.subscribe("a", until="done", position_frames=False)) as feed:
        await hub.publish("a", "x" * BODY_LIMIT)
        last = await hub.publish("a", "y", event="done")
        assert (len(feed.take()) > BODY_LIMIT, feed.ended) == (True, None)
        assert feed.take() == f"id: {last}\nevent: done\ndata: y\n\n".encode()
        assert feed.ended == "finished"


async def test_a_carrier_does_not_send_for_a_reader_whose_events_are_looked_at() -> None:
    """Its own task takes the events, and finds the last one."""
    async with Hub() as hub:
        connection, feed = await connected(hub, until="done")
        await hub.publish("a", "x", event="done")
        assert (connection.told, feed.take_plain()) == ([], b"")
        assert feed.take().endswith(b"event: done\ndata: x\n\n")
        await feed.close()
