"""Publishing: one round trip. An event is sent once, unless an idempotency key makes it safe to send it again."""

import asyncio

from ..._log.names import RESERVED
from ..._log.position import Position, new_epoch
from ..._servers.shutdown import current_notice
from ...exceptions import BackendError, PublishUnknownError
from ..base import IDEMPOTENCY_SECONDS
from ._keeper import SessionKeeper
from ._link import LinkLostError
from ._message import PLAIN
from ._resp import Argument, ReplyError
from ._scripts import Storage
from ._session import MOVING_SECONDS, Session, is_elsewhere, is_moving


class Submitter:
    """Stores and announces the events of one hub."""

    def __init__(self, storage: Storage, timeout: float) -> None:
        """Publish to this log, and wait at most `timeout` seconds for Redis."""
        self._storage = storage
        self._timeout = timeout

    async def publish(
        self, keeper: SessionKeeper, channels: tuple[str, ...], payload: bytes, idempotency_key: str | None
    ) -> Position | None:
        """Store and announce a payload.

        Raises:
            BackendError: The event was not stored.
            PublishUnknownError: The event may have been stored.
        """
        send = self._store if self._storage.keeps else self._announce
        unknown: LinkLostError | None = None
        deadline = keeper.loop.time() + self._timeout
        while True:
            try:
                session = await _usable(keeper, deadline)
                return await send(keeper, session, channels, payload, idempotency_key)
            except TimeoutError:
                raise _failure(unknown, self._why_away(keeper)) from unknown
            except ReplyError as error:
                if is_moving(error) and keeper.loop.time() < deadline:
                    await asyncio.sleep(MOVING_SECONDS)
                elif not is_elsewhere(error):
                    raise _failure(unknown, f"Redis refused: {error}") from error
                else:
                    session.fail(str(error))
            except LinkLostError as error:
                if not error.sent:
                    continue
                if idempotency_key is None or unknown is not None:
                    msg = f"the connection to Redis was lost while publishing ({error}): it may have been stored"
                    raise PublishUnknownError(msg) from error
                unknown = error
                deadline = keeper.loop.time() + self._timeout

    def _why_away(self, keeper: SessionKeeper) -> str:
        if current_notice().heard:
            return "Redis is away, and this server stops"
        return f"Redis was away for {self._timeout:g} s" + (keeper.trouble and f": {keeper.trouble}")

    async def _store(
        self,
        keeper: SessionKeeper,
        session: Session,
        channels: tuple[str, ...],
        payload: bytes,
        idempotency_key: str | None,
    ) -> Position | None:
        keys = [self._storage.keys.meta, self._storage.keys.index, *map(self._storage.keys.stream, channels)]
        if idempotency_key is not None:
            keys.append(self._storage.keys.idempotency(idempotency_key))
        seconds = 0 if idempotency_key is None else IDEMPOTENCY_SECONDS
        known = keeper.inbox.position
        before = "" if known is None else known.epoch
        total = "" if channels[0].startswith(RESERVED) else self._storage.total
        arguments: list[Argument] = [new_epoch(), before, session.verbs[0], seconds, payload, total]
        for name in channels:
            arguments += (
                name,
                self._storage.keys.topic(name),
                self._storage.size(name),
                self._storage.ttl(name),
                min(self._storage.bytes(name), self._storage.total),
            )
        reply = await self._storage.scripts.publish.run(session.server.link, keys, arguments)
        text, _, problem = reply.decode(errors="replace").partition(" ")
        position = Position.parse(text)
        if position is None:
            msg = "the event was not published: what Redis remembers of its idempotency_key is not of this library"
            raise BackendError(msg)
        keeper.acknowledge(session, position)
        _check(problem)
        return position

    async def _announce(
        self,
        keeper: SessionKeeper,  # noqa: ARG002 - without history there are no positions
        session: Session,
        channels: tuple[str, ...],
        payload: bytes,
        idempotency_key: str | None,
    ) -> None:
        link, message = session.server.link, PLAIN + payload
        topics = [self._storage.keys.topic(name) for name in channels]
        if idempotency_key is None and len(topics) == 1:
            await link.call(session.verbs[0], topics[0], message)
        else:
            seconds = 0 if idempotency_key is None else IDEMPOTENCY_SECONDS
            keys = [self._storage.keys.idempotency(idempotency_key), *topics]
            problem = await self._storage.scripts.announce.run(link, keys, [session.verbs[0], seconds, message])
            _check((problem or b"").decode(errors="replace"))


async def _usable(keeper: SessionKeeper, deadline: float) -> Session:
    session = keeper.current.session or await _wait(keeper, deadline)
    if session.doubtful:
        await session.prove()
    return session


async def _wait(keeper: SessionKeeper, deadline: float) -> Session:
    """Wait for Redis, but not while the server stops: a stopping server waits for its requests, which may publish."""
    notice = current_notice()
    async with asyncio.timeout_at(deadline) as bound:

        def end() -> None:
            if not bound.expired():
                bound.reschedule(0)

        notice.listen(end)
        try:
            return await keeper.commands()
        finally:
            notice.unlisten(end)


def _check(problem: str) -> None:
    if problem:
        msg = f"the event was published in part, because Redis refused: {problem}"
        raise PublishUnknownError(msg)


def _failure(unknown: LinkLostError | None, text: str) -> BackendError:
    if unknown is None:
        return BackendError(f"the event was not published: {text}")
    return PublishUnknownError(f"the event may have been stored before the connection was lost, and then: {text}")
