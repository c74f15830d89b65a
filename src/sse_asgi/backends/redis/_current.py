"""The current session and its stages, with the tasks that wait for them.

The stages are: no session, fenced (commands may be sent), live (every published event was delivered), and at last
closed. A session that ends leads back to no session; `close` may come at any stage.
"""

import asyncio

from ...exceptions import CLOSED, HubClosedError
from ._session import Session


class CurrentSession:
    """The session that is used now.

    Attributes:
        session: The session, once its fence is passed; None while there is no session.
        run_id: The server that was fenced last.
        was_live: True if this session or an earlier one was live.
    """

    __slots__ = ("_closed", "_fenced", "_live", "run_id", "session", "was_live")

    def __init__(self) -> None:
        """Begin without a session."""
        self.session: Session | None = None
        self.run_id = b""
        self.was_live = False
        self._fenced = asyncio.Event()
        self._live = asyncio.Event()
        self._closed = False

    @property
    def is_live(self) -> bool:
        """True while a session is live."""
        return self._live.is_set()

    def set_fenced(self, session: Session) -> None:
        """Let commands use a session."""
        self.session = session
        self._fenced.set()

    def set_live(self) -> None:
        """Let readers rely on the session."""
        self.was_live = True
        self._live.set()

    def clear(self) -> None:
        """Note that the session has ended, or that its beginning has failed."""
        self.session = None
        self._fenced.clear()
        self._live.clear()

    def close(self) -> None:
        """Wake up the tasks that wait for a session which will not come."""
        self._closed = True
        self._fenced.set()
        self._live.set()

    async def fenced(self) -> Session:
        """Return the session, once its fence is passed.

        Raises:
            HubClosedError: The hub was closed.
        """
        while self.session is None:
            self._check_open()
            await self._fenced.wait()
        return self.session

    async def live(self) -> Session:
        """Return the session, once it is live.

        Raises:
            HubClosedError: The hub was closed.
        """
        while self.session is None or not self._live.is_set():
            self._check_open()
            await self._live.wait()
        return self.session

    def _check_open(self) -> None:
        if self._closed:
            action = "cannot read"
            raise HubClosedError(action, CLOSED)
