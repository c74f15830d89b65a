"""Who is here: the identities of this process's readers, kept in step with what the backend has listed for it.

What is wanted and what is listed may differ at any time; one task makes them equal again, and tells the backend every
few seconds that this process lives. Whatever goes wrong, the next beat repairs: the backend's calls may be repeated.
"""

import logging
import uuid
from collections import Counter
from collections.abc import Hashable, Iterable
from contextlib import suppress
from contextvars import Context
from functools import partial
from itertools import islice

import anyio

from .._loop.tasks import Child, spawn
from .._loop.timer import Timer, shared_timer
from .._loop.wakeup import Wakeup, new_wakeup
from ..backends.base import Backend, Member
from ..exceptions import SSEError

logger = logging.getLogger("sse_asgi")

BATCH = 500
BEATS = 3
LEAVE_SECONDS = 1.0


class Presence:
    """This process's part in the lists of a hub."""

    def __init__(self, backend: Backend, ttl: float, grace: float) -> None:
        """List nobody.

        Args:
            backend: Keeps the lists.
            ttl: Seconds after which a process that is not heard of is gone.
            grace: Seconds for which whoever has left is still listed.
        """
        self._backend = backend
        self._ttl = ttl
        self._grace = grace
        self._process = _new_process()
        self._wanted: Counter[Member] = Counter()
        self._listed: set[Member] = set()
        self._readers: dict[Hashable, tuple[Member, ...]] = {}
        self._failed = False
        self._task: Child | None = None
        self._changed: Wakeup
        self._timer: Timer

    def enter(self, reader: Hashable, members: Iterable[Member]) -> None:
        """List a reader, soon."""
        self._readers[reader] = tuple(members)
        self._wanted.update(self._readers[reader])
        if self._task is None:
            self._changed, self._timer = new_wakeup(), shared_timer()
            self._task = spawn(self._run, context=Context())  # it outlives the request that comes first
        self._changed.set()

    def beat(self) -> None:
        """See at once whether the backend still has its lists."""
        if self._task is not None:
            self._changed.set()

    def leave(self, reader: Hashable) -> None:
        """Forget a reader, after the grace; nothing happens if it is not listed."""
        members = self._readers.pop(reader, None)
        if members is not None:
            self._timer.after(self._grace, partial(self._let_go, members))

    def _let_go(self, members: tuple[Member, ...]) -> None:
        self._wanted.subtract(members)
        self._wanted = +self._wanted
        self._changed.set()

    async def present(self, channel: str) -> list[str]:
        """Return who is here, those included whom this process has not listed yet."""
        await self._backend.attend(self._process, lease=self._ttl)  # there may be nobody else who misses the dead
        listed = await self._backend.present(channel)
        return sorted({*listed, *(identity for name, identity in self._wanted if name == channel)})

    async def close(self) -> None:
        """Leave, as a process that others will miss after the grace: its readers may come back by way of another."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        with anyio.move_on_after(LEAVE_SECONDS, shield=True), suppress(SSEError):  # else it is missed a little later
            await self._backend.attend(self._process, lease=self._grace)

    async def _run(self) -> None:
        while self._wanted or self._listed:
            try:
                complete = await self._attend()
            except Exception as error:
                complete = True
                if not self._failed:
                    unknown = not isinstance(error, SSEError)
                    logger.warning("who is here cannot be told, and is tried again: %s", error, exc_info=unknown)
                self._failed = True
            else:
                self._failed = False
            if complete:
                beat = self._timer.after(self._ttl / BEATS, self._changed.set)
                await self._changed
                beat.cancel()
        self._task = None  # in the same breath: whoever enters now begins another

    async def _attend(self) -> bool:
        """Tell of this process, and of some of the changes; return whether all is told."""
        wanted = self._wanted.keys()
        entered = set(islice((one for one in wanted if one not in self._listed), BATCH))
        left = set(islice((one for one in self._listed if one not in wanted), BATCH))
        count = await self._backend.attend(self._process, lease=self._ttl, entered=entered, left=left)
        self._listed = (self._listed | entered) - left
        if count != len(self._listed):
            # Its list was lost, or part of it: what is left expires, while all are listed under another name.
            self._process = _new_process()
            self._listed = set()
        return self._listed == set(wanted)


def _new_process() -> str:
    return uuid.uuid4().hex
