"""What every backend with presence does."""

import json
from typing import Any

import anyio

from ...backends.base import Member
from ._base import Contract
from ._recorder import Tape, connected, put, settled, texts, types

ADA, BOB = Member("a", "Ada"), Member("a", 'Bob "\u00e9"\n')


def comings(tape: Tape) -> list[tuple[Any, str]]:
    names = [json.loads(text)["identity"] for text in texts(tape.entries)]
    return [*zip(types(tape.entries), names, strict=True)]


class PresenceContract(Contract):
    """The facts of presence."""

    async def test_who_comes_and_goes_is_published_once(self) -> None:
        """An identity joins with the first process that lists it, and leaves with the last; repeating does nothing."""
        backend = self.with_presence()
        async with connected(backend, "a") as tape:
            assert await backend.attend("one", lease=9, entered=[ADA, BOB]) == 2
            assert await backend.attend("one", lease=9, entered=[ADA, BOB]) == 2
            assert await backend.attend("two", lease=9, entered=[ADA]) == 1
            assert await backend.attend("one", lease=9, left=[ADA, BOB]) == 0
            assert await backend.attend("one", lease=9, left=[ADA]) == 0
            assert set(await backend.present("a")) == {"Ada"}
            await backend.attend("two", lease=9, left=[ADA])
            assert set(await backend.present("a")) == set()
            await settled(tape, 4)
        told = comings(tape)
        assert sorted(told[:2]) == [("sse.join", "Ada"), ("sse.join", BOB.identity)]
        assert told[2:] == [("sse.leave", BOB.identity), ("sse.leave", "Ada")]

    async def test_who_is_here_is_told_in_the_history(self) -> None:
        """A resuming reader gets the joins that it missed, at their positions."""
        backend = self.with_presence()
        async with connected(backend, "a"):
            first = await put(backend, "a")
            await backend.attend("one", lease=9, entered=[ADA])
            last = await put(backend, "a")
            history = await backend.history(("a",), first, last, 10)
        assert types(history.entries) == ["sse.join", None]
        assert first < history.entries[0].position < last

    async def test_who_comes_and_goes_pushes_no_event_out_of_the_history(self) -> None:
        """Joins and leaves are kept beside a channel's events, and rewinding does not count them."""
        backend = self.with_presence(history_size=3)
        async with connected(backend, "a") as tape:
            for number in range(3):
                await put(backend, "a", data=str(number))
            for _ in range(10):
                await backend.attend("one", lease=9, entered=[ADA])
                await backend.attend("one", lease=9, left=[ADA])
            await settled(tape, 23)
            last = tape.entries[-1].position
            assert last is not None
            for after in (None, await backend.rewind(("a",), 3, last)):
                kept = (await backend.history(("a",), after, last, 100)).entries
                assert texts(entry for entry in kept if types([entry]) == [None]) == ["0", "1", "2"]

    async def test_a_join_that_is_not_kept_is_missed_only_by_readers_before_it(self) -> None:
        """Joins have a bound of their own: a reader that missed one gets a gap, a reader that missed none does not."""
        backend = self.with_presence(history_size=2)
        async with connected(backend, "a", "b") as tape:
            await put(backend, "a")
            for _ in range(30):
                await backend.attend("one", lease=9, entered=[ADA])
                await backend.attend("one", lease=9, left=[ADA])
            await put(backend, "b")
            await settled(tape, 62)
            positions: Any = [entry.position for entry in tape.entries]
            read = [(await backend.history(("a",), after, positions[-1], 100)) for after in positions]
        missed = [60 - number for number in range(61)] + [0]
        assert read[0].reason == "trimmed"
        for page, count in zip(read, missed, strict=True):
            assert (page.reason is None) == (len(page.entries) == count)

    async def test_without_history_who_comes_is_only_announced(self) -> None:
        """With history_size=0 joins and leaves have no position either."""
        backend = self.with_presence(history_size=0)
        async with connected(backend, "a") as tape:
            await backend.attend("one", lease=9, entered=[ADA])
            await settled(tape, 1)
        assert [entry.position for entry in tape.entries] == [None]
        assert comings(tape) == [("sse.join", "Ada")]

    async def test_a_process_that_is_not_heard_of_is_gone(self) -> None:
        """When its lease has run out another one, that was heard of all the time, lets its members go."""
        backend = self.with_presence()
        async with connected(backend, "a") as tape:
            await backend.attend("lives", lease=0.1, entered=[BOB])
            await backend.attend("dies", lease=0.1, entered=[ADA, BOB])
            assert set(await backend.present("a")) == {"Ada", BOB.identity}
            await anyio.sleep(0.2)
            await backend.attend("lives", lease=0.1)
            assert set(await backend.present("a")) == {BOB.identity}
            assert await backend.attend("dies", lease=0.1) == 0
            await settled(tape, 3)
        assert comings(tape)[2:] == [("sse.leave", "Ada")]
