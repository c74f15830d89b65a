"""Clock: moves the time of the event loop that runs, for tests of what happens after seconds or hours."""

import asyncio

import anyio

from .._loop.running import on_asyncio, running_loop
from .._loop.timer import shared_timer

MOST_TURNS = 1000
QUIET_TURNS = 5  # what a callback schedules, and not a task, takes some turns


class Clock:
    """The time of an event loop. It goes on as always, and `advance` moves it forward.

    Everything that the library times in this event loop follows it: pings, `start_timeout`, `send_timeout`,
    `max_lifetime`, `cleanup_timeout`, `revalidate`, the wait of polls, presence, the leases and patience of runs, and
    all that a MemoryBackend keeps for a time. These do not: Redis, tickets and `expires_at`, which have the time of
    day, and the sleeps of the application.

    Make it before streams are opened: earlier deadlines are rounded up, to a quarter of a second. It cannot be taken
    back, because time never goes back; the next test has an event loop of its own.
    """

    def __init__(self) -> None:
        """Take over the time of the event loop that runs.

        Raises:
            RuntimeError: No event loop runs here.
        """
        if running_loop() is None:
            msg = (
                "Clock() moves the time of the event loop that runs, and none runs here: make it inside an async test, "
                "or use SyncEventStreamClient.advance"
            )
            raise RuntimeError(msg)
        self._timer = shared_timer()
        self._moved = 0.0
        before = self._timer.now
        self._timer.take_time_from(lambda: before() + self._moved)

    def now(self) -> float:
        """Return the time, in seconds from an arbitrary point, like time.monotonic."""
        return self._timer.now()

    async def advance(self, seconds: float) -> None:
        """Move the time forward. What is due on the way happens in its order, each when the last has had its effects.

        It returns when every other task of the event loop waits for something.

        Args:
            seconds: How far, 0 or more.

        Raises:
            ValueError: `seconds` is negative or not finite.
        """
        if not 0 <= seconds < float("inf"):
            msg = f"seconds must be 0 or more, and finite (got {seconds}): time does not go back"
            raise ValueError(msg)
        await settle()
        end = self.now() + seconds
        while (due := self._timer.next_time) <= end:
            self._move_to(due)
            await settle()
        self._move_to(end)
        await settle()

    def _move_to(self, when: float) -> None:
        self._moved += max(0.0, when - self.now())
        self._timer.ring()


async def settle() -> None:
    """Let the event loop turn until every other task waits for something."""
    if not on_asyncio():
        await anyio.wait_all_tasks_blocked()
        return
    this, quiet = asyncio.current_task(), 0
    for _ in range(MOST_TURNS):  # a task that never waits must not hold up the test
        await asyncio.sleep(0)
        waiting = all(_waits(task) for task in asyncio.all_tasks() if task is not this)
        quiet = quiet + 1 if waiting else 0
        if quiet == QUIET_TURNS:
            return


def _waits(task: asyncio.Task[object]) -> bool:
    future = getattr(task, "_fut_waiter", None)  # asyncio tells it nowhere else; anyio looks here too
    return future is not None and not future.done()
