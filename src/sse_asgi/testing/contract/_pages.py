"""What every backend does with a history that is larger than a page, or than its bounds."""

import json
import math
from typing import Any

import anyio
import pytest

from ..._hub.hub import Hub
from ..._hub.subscription import PAGE
from ..._log.position import Position
from ...backends.base import PAGE_BYTES, Backend, Member
from ._base import Contract
from ._naive import NaiveLog
from ._recorder import connected, put, texts

ADA = Member("a", "Ada")


async def pages(backend: Backend, channels: tuple[str, ...], after: Any, upto: Position, limit: int = 256) -> Any:
    found = [await backend.history(channels, after, upto, limit)]
    while found[-1].next is not None:
        found.append(await backend.history(channels, found[-1].next, upto, limit))
    return found


class PagesContract(Contract):
    """The facts of pages, losses and rewinding."""

    async def test_a_page_is_bounded_in_bytes_over_all_its_channels(self) -> None:
        """A page ends before the event that would take it beyond PAGE_BYTES, over all of its channels."""
        backend = self.make_backend()
        async with connected(backend, "a", "b"):
            for number in range(20):
                last = await put(backend, "ab"[number % 2], data=chr(97 + number) * 40_000)
            found = await pages(backend, ("a", "b"), None, last)
        sizes = [sum(len(entry.frame) for entry in page.entries) for page in found]
        assert all(size <= PAGE_BYTES for size in sizes)
        assert [text[0] for page in found for text in texts(page.entries)] == list("abcdefghijklmnopqrst")

    async def test_an_event_larger_than_a_page_is_a_page_of_its_own(self) -> None:
        """A page has at least one entry, so that reading goes on."""
        backend = self.make_backend()
        async with connected(backend, "a"):
            for _ in range(3):
                last = await put(backend, "a", data="x" * (PAGE_BYTES + 1))
            assert [len(page.entries) for page in await pages(backend, ("a",), None, last)] == [1, 1, 1]

    async def test_history_is_bounded_in_bytes(self) -> None:
        """A channel keeps at most `history_bytes` of its newest events; a reader that missed one gets a gap."""
        backend = self.make_backend(history_bytes=100_000)
        async with connected(backend, "a", "b"):
            first = await put(backend, "b")
            for number in range(100):
                last = await put(backend, "a", data=f"{number:04}" * 2500)
            found = await pages(backend, ("a",), first, last)
            quiet = await backend.history(("b",), first, last, 10)
        entries = [entry for page in found for entry in page.entries]
        assert 0 < sum(len(entry.frame) for entry in entries) <= 100_000
        assert texts(entries)[-1] == "0099" * 2500
        assert (found[0].reason, quiet.reason) == ("trimmed", None)

    async def test_an_event_of_two_channels_is_missing_only_where_neither_holds_it(self) -> None:
        """While one channel holds it, a reader of both gets no gap, and a reader of the other one alone does."""
        backend = self.make_backend(history_size=2)
        async with connected(backend, "busy", "quiet"):
            first = await put(backend, "quiet")
            shared = await put(backend, "busy", "quiet", data="shared")
            await put(backend, "busy", data="2")
            last = await put(backend, "busy", data="3")
            both = await backend.history(("busy", "quiet"), first, last, 10)
            one = await backend.history(("busy",), first, last, 10)
            assert (await backend.history(("busy",), shared, last, 10)).reason is None
            await put(backend, "quiet", data="4")
            last = await put(backend, "quiet", data="5")
            neither = await backend.history(("busy", "quiet"), first, last, 10)
        assert (texts(both.entries), both.reason) == (["shared", "2", "3"], None)
        assert (texts(one.entries), one.reason) == (["2", "3"], "trimmed")
        assert (texts(neither.entries), neither.reason) == (["2", "3", "4", "5"], "trimmed")

    async def test_random_runs_agree_with_a_log_that_keeps_everything(self) -> None:
        """History is in order and has each event once; it has a reason exactly if an event is missing."""
        for seed in range(self.random_logs):
            backend = self.make_backend(history_size=1 + seed % 4, history_bytes=(80, 300, 1 << 20)[seed % 3])
            async with connected(backend, *"abcd"):
                await NaiveLog(backend, seed).run()

    async def test_the_newest_events_begin_where_rewind_says(self) -> None:
        """As many events follow the position as were asked for, over all the channels; None where no more are kept."""
        backend = self.make_backend()
        async with connected(backend, "a", "b", "c"):
            for number in range(30):
                last = await put(backend, "abc"[number % 3], data=str(number))
            for count in (1, 2, 7, 19):
                after = await backend.rewind(("a", "b"), count, last)
                found = await pages(backend, ("a", "b"), after, last)
                assert (
                    texts(entry for page in found for entry in page.entries)
                    == [str(number) for number in range(30) if number % 3 < 2][-count:]
                )
            assert await backend.rewind(("a", "b"), 20, last) is None
            assert await backend.rewind(("a", "b"), 10**6, last) is None
            assert await backend.rewind(("never used",), 1, last) is None

    async def test_rewind_counts_events_up_to_a_position(self) -> None:
        """An event for several of the channels counts once, and one after the position not at all."""
        backend = self.make_backend()
        async with connected(backend, "a", "b"):
            await put(backend, "a", data="0")
            await put(backend, "a", "b", data="1")
            upto = await put(backend, "b", data="2")
            await put(backend, "a", data="3")
            after = await backend.rewind(("a", "b"), 2, upto)
            assert texts((await backend.history(("a", "b"), after, upto, 10)).entries) == ["1", "2"]

    async def test_a_backend_need_not_rewind_itself(self) -> None:
        """The default, which reads all of the history, finds the same position."""
        backend = self.make_backend()
        async with connected(backend, "a", "b"):
            for number in range(600):
                last = await put(backend, "ab"[number % 2], data=str(number))
            if type(backend).attend is not Backend.attend:
                await backend.attend("one", lease=9, entered=[ADA])
            for count in (1, 100, 599, 600):
                ours = await backend.rewind(("a", "b"), count, last)
                theirs = await Backend.rewind(backend, ("a", "b"), count, last)
                reads = [await pages(backend, ("a", "b"), one, last) for one in (ours, theirs)]
                assert texts(e for page in reads[0] for e in page.entries) == texts(
                    e for p in reads[1] for e in p.entries
                )

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"last_event_id": "x"}, ["malformed"]),
            ({"last_event_id": "00000000-5"}, ["epoch"]),
            ({"rewind": math.inf}, []),
        ],
    )
    async def test_what_was_trimmed_before_is_no_gap_of_its_own(self, options: Any, told: list[str]) -> None:
        """A stream that begins with all that is kept has no second gap, and a fresh one none, over several pages."""
        size = PAGE + PAGE // 2
        async with Hub(self.make_backend(history_size=size)) as hub:
            for number in range(PAGE + 1):
                await hub.publish("quiet", f"quiet {number}")
            for number in range(2 * size):
                await hub.publish("busy", f"busy {number}")
            async with hub.subscribe("quiet", "busy", **options) as subscription:
                with anyio.fail_after(20):
                    events = [await anext(subscription) for _ in range(len(told) + PAGE + 1 + size)]
        assert [json.loads(event.data or "")["reason"] for event in events if event.event == "sse.gap"] == told
        assert [event.data for event in events if event.event is None] == [
            *(f"quiet {number}" for number in range(PAGE + 1)),
            *(f"busy {number}" for number in range(size, 2 * size)),
        ]
