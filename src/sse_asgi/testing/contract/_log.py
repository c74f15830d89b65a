"""What every backend does: positions, delivery, history."""

from ..._hub.hub import Hub
from ._base import Contract
from ._recorder import connected, put, settled, texts


class LogContract(Contract):
    """The facts of a log without its bounds."""

    async def test_positions_grow_in_one_sequence(self) -> None:
        """All events of a log are numbered in one increasing sequence, on any channel."""
        backend = self.make_backend()
        async with connected(backend, "a", "b"):
            positions = [await put(backend, name) for name in "abab"]
        assert len({position.epoch for position in positions}) == 1
        assert [p.sequence for p in positions] == sorted({p.sequence for p in positions})

    async def test_delivery_is_in_the_order_of_the_log(self) -> None:
        """A sink gets each event once, in the order of positions, with its channels, key and frame."""
        backend = self.make_backend()
        async with connected(backend, "a", "b") as tape:
            for number in range(20):
                await put(backend, "ab"[number % 2], data=str(number), key="k")
            await settled(tape, 20)
        assert texts(tape.entries) == [str(number) for number in range(20)]
        assert [entry.channels for entry in tape.entries[:2]] == [("a",), ("b",)]
        assert {entry.key for entry in tape.entries} == {"k"}
        assert tape.entries[0].frame == f"id: {tape.entries[0].position}\ndata: 0\n\n".encode()

    async def test_what_was_published_can_be_reached(self) -> None:
        """Everything that was published before is delivered when `reach` returns."""
        backend = self.make_backend()
        async with connected(backend, "a") as tape:
            for number in range(50):
                await put(backend, "a", data=str(number))
                await backend.reach()
                assert texts(tape.entries)[-1] == str(number)

    async def test_several_channels_are_one_event(self) -> None:
        """An event that is published to several channels has one position, one delivery and one place in history."""
        backend = self.make_backend()
        async with connected(backend, "a", "b") as tape:
            position = await put(backend, "a", "b")
            await settled(tape, 1)
            history = await backend.history(("a", "b"), None, position, 10)
        assert [entry.position for entry in tape.entries] == [position]
        assert [entry.position for entry in history.entries] == [position]

    async def test_idempotency_key_stores_once(self) -> None:
        """Publishing again with the same key stores and delivers nothing, and returns the first position."""
        backend = self.make_backend()
        async with connected(backend, "a") as tape:
            first = await put(backend, "a", data="1", once="key")
            again = await put(backend, "a", data="2", once="key")
            other = await put(backend, "a", data="3", once="other")
            await settled(tape, 2)
        assert first == again != other
        assert texts(tape.entries) == ["1", "3"]

    async def test_history_pages_in_order(self) -> None:
        """Pages follow each other by their next position, and the last one has none."""
        backend = self.make_backend()
        async with connected(backend, "a", "b", "c"):
            for number in range(10):
                last = await put(backend, "abc"[number % 3], data=str(number))
            seen, after, pages = [], None, 0
            while True:
                page = await backend.history(("a", "b"), after, last, 3)
                seen += texts(page.entries)
                pages += 1
                assert page.reason is None
                if page.next is None:
                    break
                after = page.next
        assert seen == ["0", "1", "3", "4", "6", "7", "9"]
        assert pages == 3

    async def test_history_is_bounded_by_both_ends(self) -> None:
        """Only entries after the one position and up to the other are returned."""
        backend = self.make_backend()
        async with connected(backend, "a"):
            positions = [await put(backend, "a", data=str(number)) for number in range(6)]
            page = await backend.history(("a",), positions[1], positions[3], 10)
        assert texts(page.entries) == ["2", "3"]
        assert page.next is None

    async def test_history_outlives_readers(self) -> None:
        """Events of a channel without readers are kept."""
        backend = self.make_backend()
        async with connected(backend):
            start = await put(backend, "other")
            await backend.subscribe(("a",))
            await backend.unsubscribe(("a",))
            last = await put(backend, "a", data="kept")
            assert texts((await backend.history(("a",), start, last, 10)).entries) == ["kept"]

    async def test_unknown_channel_has_no_history(self) -> None:
        """A channel that nothing was published to has an empty history, and misses nothing."""
        backend = self.make_backend()
        async with connected(backend):
            position = await put(backend, "a")
            page = await backend.history(("b",), position, position, 10)
        assert (list(page.entries), page.next, page.reason) == ([], None, None)

    async def test_trimmed_is_exact_at_the_boundary(self) -> None:
        """A reader gets a gap only if the first event after its position is not kept."""
        backend = self.make_backend(history_size=3)
        async with connected(backend):
            positions = [await put(backend, "a", data=str(number)) for number in range(10)]
            reasons = [(await backend.history(("a",), p, positions[-1], 10)).reason for p in positions]
            rest = await backend.history(("a",), positions[0], positions[-1], 10)
        kept = 10 - len(rest.entries)
        assert reasons == ["trimmed"] * (kept - 1) + [None] * (11 - kept)
        assert texts(rest.entries) == [str(number) for number in range(kept, 10)]

    async def test_trimming_concerns_only_its_channel(self) -> None:
        """The trimming of a busy channel is not a gap for readers of a quiet one."""
        backend = self.make_backend(history_size=2)
        async with connected(backend):
            start = await put(backend, "quiet")
            for _ in range(50):
                last = await put(backend, "busy")
            assert (await backend.history(("quiet",), start, last, 10)).reason is None
            assert (await backend.history(("quiet", "busy"), start, last, 10)).reason == "trimmed"

    async def test_position_of_another_life_is_an_epoch_gap(self) -> None:
        """A position of another epoch is answered with all that is kept, and the reason."""
        backend = self.make_backend()
        async with connected(backend):
            last = await put(backend, "a", data="1")
            foreign = last._replace(epoch="0" * 8 if last.epoch != "0" * 8 else "1" * 8)
            page = await backend.history(("a",), foreign, last, 10)
        assert (texts(page.entries), page.reason) == (["1"], "epoch")

    async def test_position_from_the_future_is_a_fork(self) -> None:
        """A position that this log never gave out is answered with all that is kept, and the reason."""
        backend = self.make_backend()
        async with connected(backend):
            last = await put(backend, "a", data="1")
            page = await backend.history(("a",), last._replace(sequence=last.sequence + 1000), last, 10)
        assert (texts(page.entries), page.reason) == (["1"], "fork")

    async def test_position_reaches_a_sink_before_subscribing_returns(self) -> None:
        """A hub that has had no event yet knows the position of the log."""
        backend = self.make_backend()
        async with connected(backend):
            last = await put(backend, "a")
        async with connected(backend, "a") as tape:
            assert tape.position == last

    async def test_two_hubs_on_one_backend_see_the_same(self) -> None:
        """An event published on one hub reaches the readers of another one, under the same id."""
        backend = self.make_backend()
        async with Hub(backend) as one, Hub(backend) as two, two.subscribe("a") as subscription:
            published = await one.publish("a", "hello")
            event = await anext(subscription)
        assert (event.data, event.id) == ("hello", published)

    async def test_no_history_means_no_positions(self) -> None:
        """With history_size=0 events are delivered without a position."""
        backend = self.make_backend(history_size=0)
        async with connected(backend, "a") as tape:
            assert await backend.subscribe(("a",)) is None
            assert await put(backend, "a", data="plain") is None
            await settled(tape, 1)
        assert tape.entries[0].position is None
        assert tape.entries[0].frame == b"data: plain\n\n"
