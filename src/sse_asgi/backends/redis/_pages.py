"""One reading of a page for all who want it at the same time.

When thousands come back at once, most of them have missed the same.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

from ..._log.event import History

KEPT_SECONDS = 0.05


class Pages:
    """The pages that are being read, and for a moment those that several wanted.

    They must not change, but that what is trimmed meanwhile may still be in them.
    """

    def __init__(self) -> None:
        """Read none yet."""
        self._readings: dict[Hashable, _Reading] = {}

    async def share(self, wanted: Hashable, read: Callable[[], Coroutine[Any, Any, History]]) -> History:
        """Return a page that others want as well, or have it read; it is given up when nobody wants it any more.

        Args:
            wanted: What tells it from other pages.
            read: Reads it.

        Raises:
            Exception: What `read` raises.
        """
        reading = self._readings.get(wanted)
        if reading is None:
            reading = self._readings[wanted] = _Reading()
            reading.page = asyncio.create_task(self._read(wanted, reading, read))
        reading.asked += 1
        reading.waiting += 1
        try:
            return await asyncio.shield(reading.page)
        finally:
            reading.waiting -= 1
            if not (reading.waiting or reading.page.done()):
                reading.page.cancel()
                del self._readings[wanted]

    async def _read(
        self, wanted: Hashable, reading: "_Reading", read: Callable[[], Coroutine[Any, Any, History]]
    ) -> History:
        kept = False
        try:
            page = await read()
            # Whoever gets nowhere with it asks again, and must not be given the same without end.
            kept = reading.asked > 1 and (bool(page.entries) or page.next is None)
            return page
        finally:
            if kept:
                asyncio.get_running_loop().call_later(KEPT_SECONDS, self._readings.pop, wanted)
            elif self._readings.get(wanted) is reading:  # else it was given up
                del self._readings[wanted]


class _Reading:
    """A page that is read, and how many have asked for it and wait for it."""

    page: asyncio.Task[History]
    asked = waiting = 0
