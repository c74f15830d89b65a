"""One reading of a page for all readers that want it at the same time.

When thousands of readers come back at once, most of them have missed the same events.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

from ..._log.event import History

KEPT_SECONDS = 0.05


class Pages:
    """The pages that are being read, and for KEPT_SECONDS the pages that several readers wanted.

    The result of a reading must not change with time, except that events may be trimmed meanwhile.
    """

    def __init__(self) -> None:
        """Begin without readings."""
        self._readings: dict[Hashable, _Reading] = {}

    async def share(self, wanted: Hashable, read: Callable[[], Coroutine[Any, Any, History]]) -> History:
        """Return the page of a reading that is under way, or start one. A reading without a reader is cancelled.

        Args:
            wanted: The arguments that name the page.
            read: Reads the page.

        Raises:
            Exception: The exception of `read`.
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
            # A reader that gets nowhere with a page asks again, and must not get the same page for ever.
            kept = reading.asked > 1 and (bool(page.entries) or page.next is None)
            return page
        finally:
            if kept:
                asyncio.get_running_loop().call_later(KEPT_SECONDS, self._readings.pop, wanted)
            elif self._readings.get(wanted) is reading:  # else it was cancelled
                del self._readings[wanted]


class _Reading:
    """One reading of a page; how many readers have asked for it, and how many wait for it."""

    page: asyncio.Task[History]
    asked = waiting = 0
