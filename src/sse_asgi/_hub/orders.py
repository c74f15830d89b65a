"""Orders from hub to hub over the log itself: they reach every process, also one that was cut off meanwhile.

Only a hub with readers that an order can concern listens, from the position where it had the first of them.
"""

import json
import logging
import time
from collections import deque
from collections.abc import Collection, Mapping
from contextvars import Context
from itertools import takewhile
from typing import Any, NamedTuple

from .._log.event import ServerSentEvent, to_json
from .._log.position import Position
from .._loop.tasks import Child, spawn
from ..exceptions import HubClosedError
from .options import Options, check_identity
from .registry import CONTROL, Registry
from .subscription import Subscription

logger = logging.getLogger("sse_asgi")

ORDER = "disconnect"
RECENT = 1000

_MISSING = object()


class _Order(NamedTuple):
    """Whose streams are to end: what is None is not asked for."""

    properties: Any
    identity: str | None
    channels: frozenset[str] | None


def disconnect_order(properties: Any, identity: str | None, channels: Collection[str] | None) -> ServerSentEvent:
    """Write the order to end the streams that match.

    Raises:
        ValueError: It would match every reader, its properties cannot be written as JSON, or nobody has this identity.
        TypeError: Likewise.
    """
    check_identity(identity)
    if identity is None and (properties is None or properties == {}):
        msg = "say whose streams are to end, as in disconnect({'user': 7}) or disconnect(identity='ada')"
        raise ValueError(msg)
    wanted = {"properties": properties, "identity": identity, "channels": channels and sorted(channels)}
    return ServerSentEvent(wanted, event=ORDER)


class Orders:
    """Hears the orders, and carries them out on the readers of this process."""

    def __init__(self, registry: Registry) -> None:
        """Listen to nobody yet."""
        self._registry = registry
        self._recent: deque[tuple[float, _Order]] = deque(maxlen=RECENT)
        registry.recall = self._recall
        self._task: Child | None = None
        self._since: dict[None, Position | None] = {}

    def start(self) -> None:
        """Listen from now on; it works in every thread, and does not wait."""
        if self._task is not None:
            return
        # The first thread's stays: orders between its moment and the task's first turn are read from the log.
        self._since.setdefault(None, self._registry.position())
        if not self._registry.home.takes_over(self._begin):
            self._begin()

    def _begin(self) -> None:
        if self._task is None:
            position = self._since.setdefault(None, self._registry.position())
            after = "" if position is None else str(position)
            subscription = Subscription(self._registry, (CONTROL,), after, Options())
            # It lives as long as the hub, so it must not keep the context of the request that comes first.
            self._task = spawn(lambda: self._run(subscription), context=Context())

    async def _run(self, subscription: Subscription) -> None:
        try:
            async with subscription:
                async for event in subscription:
                    self._obey(event)
        except HubClosedError:
            pass
        except Exception:
            self._task = None
            self._since.clear()
            logger.exception("hub.disconnect is not heard any more: streams end when their authorisation does")

    def _obey(self, order: ServerSentEvent) -> None:
        if order.event == "sse.gap":
            logger.warning("orders of hub.disconnect were lost with the log: streams end when their authorisation does")
            return
        try:
            wanted = _read(order)
        except (ValueError, KeyError, TypeError):
            logger.warning("ignored what is no order of hub.disconnect on the channel %s", CONTROL)
            return
        self._recent.append((time.monotonic(), wanted))
        for reader in self._registry.subscriptions():
            _carry_out(wanted, reader)

    def _recall(self, reader: Subscription) -> None:
        """Carry out on a reader that enters what was heard since it was looked up what it may."""
        for _, order in takewhile(lambda heard: heard[0] >= reader.since, reversed(self._recent)):
            _carry_out(order, reader)


def _read(order: ServerSentEvent) -> _Order:
    if order.event != ORDER:
        raise ValueError(order.event)
    wanted = json.loads(order.data or "")
    channels = wanted["channels"]
    return _Order(wanted["properties"], wanted["identity"], None if channels is None else frozenset(channels))


def _carry_out(order: _Order, reader: Subscription) -> None:
    try:
        if _concerns(order, reader):
            reader.end("revoked")
    except Exception:
        what = type(reader.options.properties).__name__
        logger.exception("hub.disconnect could not compare the properties, a %s, of a stream, which goes on", what)


def _concerns(wanted: _Order, reader: Subscription) -> bool:
    return (
        (wanted.identity is None or wanted.identity == reader.options.identity)
        and (wanted.channels is None or not wanted.channels.isdisjoint(reader.channels))
        and (wanted.properties is None or _matches(wanted.properties, reader.options.properties))
    )


def _matches(wanted: Any, found: Any) -> bool:
    """Compare as JSON; of a mapping only what is wanted, also with the attributes of an object."""
    if isinstance(wanted, dict) and found is not _MISSING:
        return all(_matches(value, _member(found, name)) for name, value in wanted.items())
    try:
        return _sorted(wanted) == _sorted(json.loads(to_json(found)))  # as text, because 1 is no true
    except (TypeError, ValueError):
        return False


def _sorted(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _member(found: Any, name: str) -> Any:
    return found.get(name, _MISSING) if isinstance(found, Mapping) else getattr(found, name, _MISSING)
