"""This process's part in a hub: one task that lives through one session after another.

It connects, fences, subscribes to everything, catches up, and looks after the session until it ends. The order keeps
what is promised: publishing goes on as soon as the fence is passed, and the hub is up once what was published meanwhile
has been handed over. Readers notice nothing but the time that it takes.
"""

import asyncio
import contextlib
import logging
import random
from contextvars import Context

from ..._log.event import Entry
from ..._log.position import Position
from ...exceptions import HubClosedError
from ..base import Sink
from ._address import Addresses
from ._cursor import Row
from ._history import CATCH_UP, HistoryReader, Page, decode
from ._inbox import ANOTHER_LIFE, Channel, Inbox
from ._keys import Keys
from ._link import LinkLostError
from ._outage import Outage
from ._pages import Pages
from ._reasons import UnusableError, explain
from ._resp import ReplyError
from ._scripts import Scripts
from ._session import Session

logger = logging.getLogger("sse_asgi.backends.redis")

LOOK_SECONDS = 2.5
CLOSE_SECONDS = 1.0
READINGS = 3
AT_ONCE = 200
START_SECONDS = 2.5
SHORTEST_PAUSE = 0.02
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 0.5


class SessionKeeper:
    """Keeps a session, from the first hub that is opened in this process to the last that is closed.

    Attributes:
        loop: The event loop that it runs in.
        feed: The channels that are read.
        session: The one that is on, once its fence is passed.
        tried: Set once the first attempt to connect has ended, well or not.
        pages: Those that are being read.
        reading: Held while a page of history is read. When all readers read at once, as in another life of the log,
            a publish would wait behind the pages of all of them, for so long that Redis seems to be dead.
    """

    def __init__(
        self,
        addresses: Addresses,
        keys: Keys,
        scripts: Scripts,
        history_reader: HistoryReader,
        *,
        keeps: bool,
        timeout: float,
    ) -> None:
        """Begin; `close` ends it."""
        self.loop = asyncio.get_running_loop()
        self.inbox = Inbox(keys, keeps=keeps)
        self._fenced = asyncio.Event()
        self._live = asyncio.Event()
        self.tried = asyncio.Event()
        self.pages = Pages()
        self.reading = asyncio.Semaphore(READINGS)
        self._acknowledged: Position | None = None
        self._addresses = addresses
        self._keys = keys
        self._scripts = scripts
        self._history_reader = history_reader
        self._timeout = timeout
        self._run_id = b""  # of the server that was fenced last
        self.session: Session | None = None
        self._sessions: list[Session] = []
        self._outage = Outage(addresses.shown)
        self._closed = False
        self._was_live = False
        self._task = self.loop.create_task(self._run(), context=Context())  # not in that of the request that opens it
        self._late = self.loop.call_later(START_SECONDS, self._start_without, context=Context())

    @property
    def up(self) -> bool:
        """Whether there is no outage."""
        return self._outage.began is None

    @property
    def trouble(self) -> str:
        """Why there is no session, as far as it is known."""
        return self._outage.reason or self._addresses.waits_for

    async def close(self) -> None:
        """End the task and the connections."""
        self._closed = True
        self._late.cancel()
        self._fenced.set()
        self._live.set()
        self._task.cancel()
        closing = [closed for session in self._sessions for closed in session.close()]
        await asyncio.wait([self._task, *closing], timeout=CLOSE_SECONDS)

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            session = Session(self._keys, self.inbox, self._timeout, self._on_end)
            self._sessions = [*(one for one in self._sessions if not one.gone), session]
            self.inbox.fail, self.inbox.probe = session.fail, session.probe
            try:
                await self._begin(session)
                pause = FIRST_PAUSE
                self._tell(explain(await self._look_after(session)))
            except UnusableError as error:
                self._tell(error)
            except (ReplyError, LinkLostError) as error:
                self._tell(explain(str(error)))
            except Exception as error:
                if self._outage.is_new(repr(error)):  # not at each attempt
                    logger.exception("a session with Redis at %s failed", self._addresses.shown)
                self._tell(UnusableError(repr(error)))
            session.fail("it could not be used")
            self.tried.set()
            await asyncio.sleep(random.uniform(SHORTEST_PAUSE, pause))  # noqa: S311 - a spread, not a secret
            pause = min(pause * 2, LONGEST_PAUSE)

    def _start_without(self) -> None:
        """Hold up the start of an application no longer than a server that does not answer would."""
        if not self.tried.is_set() and self._addresses.waits_for:
            self._tell(UnusableError(self._addresses.waits_for))
            self.tried.set()

    async def _begin(self, session: Session) -> None:
        await session.open(self._addresses)
        self._run_id, self.inbox.clock = session.server.run, session.server.clock
        await session.fence(self._scripts, self._known())
        session.check()
        self.session = session
        self._fenced.set()
        await self._catch_up(session)
        session.check()
        self._live.set()
        self._was_live = True
        if self._outage.end(session.server.evicts):
            self._say(up=True)
        self.tried.set()

    async def _look_after(self, session: Session) -> str:
        """Look at it from time to time; return why it ended."""
        while session.reason is None:
            if session.doubtful:
                with contextlib.suppress(LinkLostError):
                    await session.prove()
            else:
                session.probe()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS * random.uniform(0.8, 1.2)):  # noqa: S311 - a spread
                    await session.ended.wait()
        return session.reason

    # What the backend asks for

    async def commands(self) -> Session:
        """Return the session that is on, once its fence is passed.

        Raises:
            HubClosedError: The hub was closed.
        """
        while self.session is None:
            self._check_open()
            await self._fenced.wait()
        return self.session

    async def subscribe(self, channels: dict[bytes, Channel]) -> None:
        """Have everything that is published to these channels arrive.

        Raises:
            HubClosedError: The hub was closed.
        """
        while missing := {topic: channel for topic, channel in channels.items() if not channel.subscribed}:
            with contextlib.suppress(LinkLostError):  # then the next session joins them
                await (await self._live_session()).subscribe(missing)
        await self._live_session()

    async def reach(self) -> None:
        """Hand over everything that was published so far.

        Raises:
            HubClosedError: The hub was closed.
            LinkLostError: The session ended.
        """
        await (await self._live_session()).subscribe({})

    async def follow(self, session: Session, epoch: str | None) -> None:
        """Be in the life of the log that a session has found.

        Raises:
            HubClosedError: The hub was closed.
        """
        known = self.inbox.position
        if session is self.session and self._live.is_set() and known is not None and known.epoch != epoch:
            session.fail(ANOTHER_LIFE)
        await self._live_session()

    async def _live_session(self) -> Session:
        while self.session is None or not self._live.is_set():
            self._check_open()
            await self._live.wait()
        return self.session

    def _check_open(self) -> None:
        if self._closed:
            what = "cannot read"
            raise HubClosedError(what)

    def unsubscribe(self, topics: list[bytes]) -> None:
        """Count a user less of these channels, and unsubscribe from those that have none left."""
        unused = [topic for topic in topics if self.inbox.remove_user(topic)]
        if unused and self.session is not None:
            self.session.unsubscribe(unused)

    def decode(self, row: Row, position: Position) -> Entry | None:
        """Read a row of history; None for one that is not ours."""
        try:
            return decode(row, position)
        except ValueError:
            self.inbox.ignore(f"an entry of the channel {row.channel!r}")
            return None

    # The life of a session

    def _on_end(self) -> None:
        self.session = None
        self._fenced.clear()
        self._live.clear()
        self.inbox.reset()

    def _tell(self, error: UnusableError) -> None:
        if self._outage.begin(error):
            self._say(up=False)

    def _say(self, *, up: bool) -> None:
        for sink in self.inbox.sinks:
            sink.state(up=up)

    def add(self, sink: Sink) -> None:
        """Tell one more sink, from where we are."""
        self.inbox.sinks.append(sink)
        if self.inbox.position is not None:
            sink.advance(self.inbox.position)
        if not self.up:
            sink.state(up=False)

    def _known(self) -> Position | None:
        position, acknowledged = self.inbox.position, self._acknowledged
        if position is None or acknowledged is None or position.epoch != acknowledged.epoch:
            return position or acknowledged
        return max(position, acknowledged)

    def acknowledge(self, session: Session, position: Position) -> None:
        """Remember a position that a publish returned: the fence wants to know the last one.

        Raises:
            LinkLostError: It is too late for that: the session has ended, and the next one is with another server.
        """
        if session.server.run != self._run_id:
            why = "another server had taken over when it answered"
            raise LinkLostError(why)
        known = self.inbox.position
        if any(one is not None and position.sequence <= one.sequence for one in (known, self._acknowledged)):
            return  # overtaken, or what an idempotency key remembers
        self._acknowledged = position
        if known is not None and known.epoch != position.epoch and self.session is not None:
            self.session.fail(ANOTHER_LIFE)

    # Catching up

    async def _catch_up(self, session: Session) -> None:
        while True:
            mark = await session.subscribe(dict(self.inbox.channels), hold=True)
            if mark is None:
                self._begin_plain()
            else:
                await self._catch_up_to(session, mark)
            if self.inbox.release_held():
                return

    def _begin_plain(self) -> None:
        """Without history nobody knows what was missed, so that the readers are told that something may be."""
        if self._was_live:
            self.inbox.lose("lost", None)

    async def _catch_up_to(self, session: Session, mark: Position) -> None:
        after = self.inbox.position
        if after is None or after.epoch != mark.epoch:
            self.inbox.begin(mark)
            return
        channels = [name for channel in self.inbox.channels.values() for name in channel.names]
        names = await self._history_reader.changed(session.server, channels, after)
        while names and after is not None:
            page = await self._history_reader.read(session.server, names, after, mark, CATCH_UP)
            if page.epoch != mark.epoch:
                raise LinkLostError(ANOTHER_LIFE)
            await self._hand_over(session, page, mark.epoch)
            after = page.next
        self.inbox.advance(mark)

    async def _hand_over(self, session: Session, page: Page, epoch: str) -> None:
        for name in {claim.stream.channel: None for claim in page.claims}:
            self.inbox.lose(None, (name,))  # its readers find out themselves, each from its own position
        for number, row in enumerate(page.rows, 1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)  # others have a turn, and the session may end
                session.check()
            position = Position(epoch, row.sequence)
            entry = self.decode(row, position)
            if entry is not None:  # its position is new: it is after all that was handed over
                self.inbox.deliver(entry, position)
