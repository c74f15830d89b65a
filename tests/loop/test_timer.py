"""The timer that all connections of an event loop share: alike on asyncio and on trio."""

import asyncio
import contextvars
import gc
import math
import time
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from sse_asgi._loop.running import checkpoint
from sse_asgi._loop.timer import Alarm, Timer, shared_timer, spread

pytestmark = pytest.mark.anyio

PATIENCE = 5
ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


def test_a_spread_time_differs_by_up_to_a_fifth() -> None:
    """Many times are spread over the whole range, and an infinite one stays infinite."""
    times = [spread(10) for _ in range(1000)]
    assert 8 <= min(times) < 9
    assert 11 < max(times) <= 12
    assert spread(math.inf) == math.inf


class Bell:
    """Records the alarms that rang, and can be awaited."""

    def __init__(self) -> None:
        self.rung: list[str] = []
        self._changed = anyio.Event()

    def ring(self, name: str) -> Callable[[], None]:
        def callback() -> None:
            self.rung.append(name)
            self._changed.set()

        return callback

    async def heard(self, count: int) -> list[str]:
        with anyio.fail_after(PATIENCE):
            while len(self.rung) < count:
                self._changed = anyio.Event()
                await self._changed.wait()
        return self.rung


async def test_alarms_ring_in_the_order_of_their_times() -> None:
    """The sooner one rings first, whichever was set first."""
    timer, bell = Timer(), Bell()
    for delay in (0.03, 0.01, 0.02):
        timer.after(delay, bell.ring(str(delay)))
    assert await bell.heard(3) == ["0.01", "0.02", "0.03"]


async def test_alarms_of_one_time_ring_in_the_order_they_were_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the times are equal the first set rings first."""
    timer, bell = Timer(), Bell()
    with monkeypatch.context() as patch:
        now = time.monotonic()
        patch.setattr(timer, "now", lambda: now)
        for name in "abc":
            timer.after(0.01, bell.ring(name))
    assert await bell.heard(3) == ["a", "b", "c"]


async def test_an_object_that_is_scheduled_again_for_now_blocks_no_task() -> None:
    """An object that schedules itself for now, again and again, lets other tasks run before each call."""
    timer, turns, rung = Timer(), 0, []

    class Restless:
        def ring(self, now: float) -> None:
            rung.append(turns)
            if len(rung) < 10:
                timer.schedule(self, now, now)

    timer.schedule(Restless(), time.monotonic(), time.monotonic())
    with anyio.fail_after(5):
        while len(rung) < 10:
            turns += 1
            await checkpoint()
    assert len(set(rung)) > 1


async def test_a_callback_of_the_timer_may_set_another_alarm() -> None:
    """Each of them is set from inside the one before, while no other keeps the timer armed."""
    timer, done = Timer(), anyio.Event()

    def third() -> None:
        timer.after(0.01, done.set)

    def second() -> None:
        timer.after(0.01, third)

    timer.after(0.01, second)
    with anyio.fail_after(PATIENCE):
        await done.wait()


async def test_an_alarm_does_not_ring_before_its_time() -> None:
    """At least the delay has passed when the callback comes."""
    timer, bell = Timer(), Bell()
    begun = time.monotonic()
    timer.after(0.02, bell.ring("a"))
    await bell.heard(1)
    assert time.monotonic() - begun >= 0.02


async def test_a_cancelled_alarm_does_not_ring() -> None:
    """Others ring as if it had never been set."""
    timer, bell = Timer(), Bell()
    timer.after(0.01, bell.ring("cancelled")).cancel()
    timer.after(0.02, bell.ring("kept"))
    assert await bell.heard(1) == ["kept"]


async def test_a_cancelled_alarm_lets_go_of_its_callback() -> None:
    """The objects of the callback can be collected before the time is up."""

    class Holder:
        def ring(self) -> None:
            pytest.fail("a cancelled alarm rang")

    timer, holder = Timer(), Holder()
    gone = weakref.ref(holder)
    timer.after(60, holder.ring).cancel()
    del holder
    gc.collect()
    assert gone() is None


async def test_a_nearer_alarm_is_not_held_up_by_a_farther_one() -> None:
    """An alarm that is set later for sooner rings at its time, and again and again."""
    timer, bell = Timer(), Bell()
    timer.after(3600, bell.ring("far"))
    await checkpoint()
    for delay, name in ((60, "farther"), (0.01, "near")):
        timer.after(delay, bell.ring(name))
    assert await bell.heard(1) == ["near"]
    timer.after(0.01, bell.ring("next"))
    assert await bell.heard(2) == ["near", "next"]


@pytest.mark.parametrize("delay", [0, 0.01])
async def test_an_alarm_can_be_set_by_another(delay: float) -> None:
    """An alarm that a callback sets rings too, even without a delay."""
    timer, bell = Timer(), Bell()

    def again() -> None:
        bell.ring("first")()
        timer.after(delay, bell.ring("second"))

    timer.after(0.01, again)
    timer.after(0.012, bell.ring("between"))
    assert sorted(await bell.heard(3)) == ["between", "first", "second"]


async def test_an_alarm_can_be_cancelled_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """An alarm that a callback cancels does not ring, even if it is due at the same time."""
    timer, bell = Timer(), Bell()
    alarms: list[Alarm] = []

    def first() -> None:
        alarms[0].cancel()
        bell.ring("first")()

    with monkeypatch.context() as patch:
        now = time.monotonic()
        patch.setattr(timer, "now", lambda: now)
        timer.after(0.01, first)
        alarms.append(timer.after(0.01, bell.ring("cancelled")))
        timer.after(0.01, bell.ring("last"))
    assert await bell.heard(2) == ["first", "last"]


async def test_a_timer_that_has_rung_can_be_set_again() -> None:
    """An idle timer works as a new one."""
    timer, bell = Timer(), Bell()
    for count, name in enumerate("abc", start=1):
        timer.after(0.001, bell.ring(name))
        await bell.heard(count)
    assert bell.rung == ["a", "b", "c"]


@ASYNCIO
async def test_all_alarms_share_one_handle_on_asyncio() -> None:
    """On asyncio a thousand alarms cost the event loop one timer handle."""
    scheduled: Any = asyncio.get_running_loop()
    before = len(scheduled._scheduled)
    timer = Timer()
    for _ in range(1000):
        timer.after(3600, pytest.fail)
    assert len(scheduled._scheduled) == before + 1


async def test_an_event_loop_has_one_shared_timer() -> None:
    """Every task gets the same timer."""
    timers: list[Timer] = [shared_timer()]

    async def ask() -> None:
        timers.append(shared_timer())

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
    assert timers[0] is timers[1]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_another_event_loop_has_another_timer(backend: str) -> None:
    """Timers are not shared between event loops."""

    async def ask() -> Timer:
        return shared_timer()

    assert anyio.run(ask, backend=backend) is not anyio.run(ask, backend=backend)


async def test_an_alarm_that_fails_takes_no_other_with_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither of the same moment, nor of later ones."""
    monkeypatch.setattr("sse_asgi._loop.timer.COARSE_SECONDS", 0.0)
    timer, told, rung = Timer(), anyio.Event(), anyio.Event()

    def fail() -> None:
        raise ZeroDivisionError

    timer.after(0.01, fail)
    timer.after(0.01, told.set)
    timer.after(0.3, rung.set)
    with anyio.fail_after(5):
        await told.wait()
        await rung.wait()
    assert [record.message for record in caplog.records] == ["a callback of the timer failed"]


async def test_cancelled_alarms_are_freed() -> None:
    """After many short streams, whose pings would be due much later, only a few batches stay."""
    timer, rung = Timer(), anyio.Event()
    timer.after(0.01, rung.set)
    for _ in range(10_000):
        timer.after(1000, rung.set).cancel()
    kept = [timer.after(1000, rung.set) for _ in range(3)]
    alarms = [alarm for batch in timer._scheduled.values() for alarm in batch]
    assert len(alarms) == 1 + len(kept)
    assert len(timer._scheduled) < 100
    with anyio.fail_after(5):
        await rung.wait()
    for alarm in kept:
        alarm.cancel()


@pytest.mark.parametrize("delay", [0.05, 0.4])
async def test_a_limit_is_not_reached_before_what_came_in_has_had_its_turn(delay: float) -> None:
    """When the event loop was blocked beyond it, tasks that have something to do do it first, in several turns."""
    timer, ended = Timer(), anyio.Event()
    timer.limit(delay, ended.set)
    time.sleep(2 * delay)  # noqa: ASYNC251 - that is the point
    for _ in range(5):
        assert not ended.is_set()
        await checkpoint()
    with anyio.fail_after(PATIENCE):
        await ended.wait()


async def test_a_limit_can_be_cancelled_or_never_come() -> None:
    """It can be cancelled at its time, and an infinite limit is not scheduled."""
    timer, bell = Timer(), Bell()
    limits = [timer.limit(delay, bell.ring("limit")) for delay in (0.01, 0.01, math.inf)]
    timer.after(0.011, limits[0].cancel)
    timer.after(0.5, bell.ring("later"))
    assert await bell.heard(2) == ["limit", "later"]
    assert timer._scheduled == {}


async def test_a_block_is_broken_off_after_its_time() -> None:
    """As with anyio's own; one that ends in time is left alone, and nothing is owed for it."""
    timer = Timer()
    with anyio.fail_after(PATIENCE), timer.move_on_after(0.01) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    with timer.move_on_after(60) as scope:
        await checkpoint()
    assert not scope.cancelled_caught
    assert not any(timer._scheduled.values())


async def test_an_alarm_rings_in_the_context_of_no_request() -> None:
    """Otherwise the caller's context variables would live as long as the timer, and be seen in other callbacks."""
    timer, bell, seen = Timer(), Bell(), []
    colour.set("red")

    def look() -> None:
        seen.append(colour.get())
        bell.ring("looked")()
        if len(seen) == 1:
            timer.after(0.01, look)

    timer.after(0.01, look)
    await bell.heard(2)
    assert seen == ["none", "none"]


async def test_what_is_to_be_done_together_is_done_once() -> None:
    """One call gets all items of the delay; later items get another call."""
    timer, bell, done = Timer(), Bell(), []

    def do(items: set[str]) -> None:
        done.append(items)
        bell.ring("done")()

    for item in ("a", "b", "a"):
        timer.together(0.01, do, item)
    await bell.heard(1)
    timer.together(0.01, do, "c")
    await bell.heard(2)
    assert done == [{"a", "b"}, {"c"}]


async def test_an_alarm_that_has_rung_holds_no_other() -> None:
    """Keeping one alarm does not keep other alarms of the same time in memory."""
    timer, bell = Timer(), Bell()
    when = time.monotonic() + 0.01
    kept, other = Alarm(bell.ring("kept")), Alarm(bell.ring("other"))
    gone = weakref.ref(other.ring)
    for alarm in (kept, other):
        alarm.batch = timer.schedule(alarm, when, when - 0.01)
    del alarm, other
    assert await bell.heard(2) == ["kept", "other"]
    gc.collect()
    assert gone() is None


# A clock that tests move

SHORT = 0.01


async def test_a_task_sleeps_by_the_timer() -> None:
    """A sleep that is cancelled leaves nothing scheduled."""
    timer = shared_timer()
    began = timer.now()
    await timer.sleep(SHORT)
    assert timer.now() >= began + SHORT
    with anyio.move_on_after(SHORT):
        await timer.sleep(60)
    assert not any(timer._scheduled.values())


async def test_the_time_can_be_another_one() -> None:
    """What is due by it rings when the timer is told, at its exact time, and a limit at once looks again."""
    timer, rung, time = shared_timer(), [], 1e6
    timer.take_time_from(lambda: time)
    assert timer.next_time == math.inf
    timer.after(10.1, lambda: rung.append("alarm"))
    timer.limit(20.1, lambda: rung.append("limit"))
    assert 0 <= timer.next_time - (time + 10.1) < 0.00001
    time += 10.2
    timer.ring()
    assert rung == ["alarm"]
    time += 10
    timer.ring()
    assert (rung, timer.next_time) == (["alarm"], time)
    timer.ring()
    assert rung == ["alarm", "limit"]
