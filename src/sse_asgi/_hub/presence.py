"""Presence: keeps the backend's list of this process's identities equal to the identities of its readers.

This is a reconciliation, not a protocol. The wanted and the listed identities may differ at any time. One task of each
process makes them equal, and renews the process's lease every few seconds. A repeated call of the backend changes
nothing, so the next beat repairs every failure. The backend itself numbers and announces joins and leaves in the step
that changes its list, so two processes cannot announce them in the wrong order.
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

from .._log.logged import about
from .._loop.tasks import Child, spawn
from .._loop.timer import Timer, shared_timer
from .._loop.wakeup import Wakeup, new_wakeup
from ..backends.base import Backend, Member
from ..exceptions import SSEError

logger = logging.getLogger("sse_asgi.hub")

BATCH = 500
BEATS = 3
LEAVE_SECONDS = 1.0


class Presence:
    """The identities of this process's readers, on the channels where they are listed."""

    def __init__(self, backend: Backend, ttl: float, grace: float) -> None:
        """Start with no identities.

        Args:
            backend: Keeps the lists.
            ttl: Seconds after which the backend removes the identities of a silent process.
            grace: Seconds for which an identity that has left is still listed.
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
        """List the identity of a reader at the next beat, which comes at once."""
        self._readers[reader] = tuple(members)
        self._wanted.update(self._readers[reader])
        if self._task is None:
            self._changed, self._timer = new_wakeup(), shared_timer()
            self._task = spawn(self._run, context=Context())  # empty: the task outlives the request that starts it
        self._changed.set()

    def beat(self) -> None:
        """Check at once that the backend still has this process's list."""
        if self._task is not None:
            self._changed.set()

    def leave(self, reader: Hashable) -> None:
        """Remove a reader's identity after the grace period; do nothing if the reader is not listed."""
        members = self._readers.pop(reader, None)
        if members is not None:
            self._timer.after(self._grace, partial(self._let_go, members))

    def _let_go(self, members: tuple[Member, ...]) -> None:
        self._wanted.subtract(members)
        self._wanted = +self._wanted
        self._changed.set()

    async def present(self, channel: str) -> list[str]:
        """Return the identities on a channel, those of this process that are not listed yet included."""
        # This call expires the identities of dead processes. There may be no other process that does so.
        await self._backend.attend(self._process, lease=self._ttl)
        listed = await self._backend.present(channel)
        return sorted({*listed, *(identity for name, identity in self._wanted if name == channel)})

    async def close(self) -> None:
        """Let the lease of this process end after the grace period: its readers may reconnect to another process."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        # On an error the lease ends after the ttl.
        with anyio.move_on_after(LEAVE_SECONDS, shield=True), suppress(SSEError):
            await self._backend.attend(self._process, lease=self._grace)

    async def _run(self) -> None:
        while self._wanted or self._listed:
            try:
                complete = await self._attend()
            except Exception as error:
                complete = True
                if not self._failed:
                    unknown = not isinstance(error, SSEError)
                    logger.warning(
                        "updating presence failed, will retry: %s",
                        error,
                        exc_info=unknown,
                        extra=about("presence_failed"),
                    )
                self._failed = True
            else:
                self._failed = False
            if complete:
                beat = self._timer.after(self._ttl / BEATS, self._changed.set)
                await self._changed
                beat.cancel()
        self._task = None  # no await since the check: the next reader starts a new task

    async def _attend(self) -> bool:
        """Renew the lease and send up to BATCH changes; return True if no change is left."""
        wanted = self._wanted.keys()
        entered = set(islice((one for one in wanted if one not in self._listed), BATCH))
        left = set(islice((one for one in self._listed if one not in wanted), BATCH))
        count = await self._backend.attend(self._process, lease=self._ttl, entered=entered, left=left)
        self._listed = (self._listed | entered) - left
        if count != len(self._listed):
            # The backend lost some of the list. The rest of it expires; all identities are listed under a new name.
            self._process = _new_process()
            self._listed = set()
        return self._listed == set(wanted)


def _new_process() -> str:
    return uuid.uuid4().hex
