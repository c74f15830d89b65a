"""One reading of a page for all who want it at the same time.

When thousands come back at once, most of them have missed the same.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable

from ..._event import History

KEPT_SECONDS = 0.05  # a page does not change: in this time it could at most be trimmed


class Pages:
    """The pages that are being read, and for a moment those that several wanted."""

    def __init__(self) -> None:
        """Read none yet."""
        self._readings: dict[Hashable, _Reading] = {}

    async def share(self, wanted: Hashable, read: Callable[[], Awaitable[History]]) -> History:
        """Return a page that somebody reads already, or read it; where that one fails or is cancelled, another does.

        Args:
            wanted: What tells it from other pages.
            read: Reads it.

        Raises:
            BaseException: What `read` raises, for the one who has read.
        """
        while (reading := self._readings.get(wanted)) is not None:
            reading.shared = True
            if (page := await asyncio.shield(reading.page)) is not None:
                return page
        reading = self._readings[wanted] = _Reading()
        page = None
        try:
            page = await read()
            return page
        finally:
            reading.page.set_result(page)
            if page is not None and reading.shared:
                asyncio.get_running_loop().call_later(KEPT_SECONDS, self._readings.pop, wanted)
            else:
                del self._readings[wanted]


class _Reading:
    """A page, or None if whoever read it failed, and whether others want it."""

    def __init__(self) -> None:
        self.page: asyncio.Future[History | None] = asyncio.get_running_loop().create_future()
        self.shared = False
