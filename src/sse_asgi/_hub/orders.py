"""Orders: how `hub.disconnect` ends streams, and `hub.cancel_run` stops a source, in every process.

An order is an event on a channel of the library's own, so backends need no second way to talk. A process that was cut
off from the backend reads the orders that it missed when it is back. A hub listens for orders only from the moment when
it has its first reader with an identity or properties, or its first run.
"""

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextvars import Context
from itertools import takewhile
from typing import Any, NamedTuple

from .._log.event import ServerSentEvent, to_json
from .._log.logged import about
from .._log.position import Position
from .._loop.tasks import Child, spawn
from ..exceptions import HubClosedError
from .options import Options, check_identity
from .registry import CONTROL, Registry
from .subscription import Subscription

logger = logging.getLogger("sse_asgi.hub")

ORDER = "disconnect"
RECENT = 1000

_MISSING = object()


class _Order(NamedTuple):
    """The readers whose streams end; None for a field matches every reader."""

    properties: Any
    identity: str | None
    channels: frozenset[str] | None


def disconnect_order(properties: Any, identity: str | None, channels: Collection[str] | None) -> ServerSentEvent:
    """Return the order, as an event, to end the streams that match.

    Raises:
        ValueError: The order would match every reader, its properties have NaN, or the identity cannot exist.
        TypeError: The properties cannot be written as JSON, or the identity is not a str.
    """
    check_identity(identity)
    if identity is None and (properties is None or properties == {}):
        msg = "say whose streams are to end, as in disconnect({'user': 7}) or disconnect(identity='ada')"
        raise ValueError(msg)
    wanted = {"properties": properties, "identity": identity, "channels": channels and sorted(channels)}
    return ServerSentEvent(wanted, event=ORDER)


class Orders:
    """Receives the orders, and carries them out in this process.

    Attributes:
        obey: For each further type of orders, a function that gets the order's data.
    """

    def __init__(self, registry: Registry) -> None:
        """Prepare to listen; `start` begins."""
        self._registry = registry
        self.obey: dict[str, Callable[[Mapping[str, Any]], None]] = {}
        self._recent: deque[tuple[float, _Order]] = deque(maxlen=RECENT)
        registry.recall = self._recall
        self._task: Child | None = None
        self._since: dict[None, Position | None] = {}

    def start(self) -> None:
        """Listen for orders from now on. The call works in every thread, and does not wait."""
        if self._task is not None:
            return
        # The first thread sets the position. Orders between then and the first turn of the task are read from the log.
        self._since.setdefault(None, self._registry.position())
        if not self._registry.home.takes_over(self._begin):
            self._begin()

    def _begin(self) -> None:
        if self._task is None:
            position = self._since.setdefault(None, self._registry.position())
            after = "" if position is None else str(position)
            subscription = Subscription(self._registry, (CONTROL,), after, Options())
            # An empty context: the task lives as long as the hub, and must not keep the first request's variables.
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
            logger.exception(
                "receiving orders of hub.disconnect failed: streams end only when their authorization does",
                extra=about("orders_failed"),
            )

    def _obey(self, order: ServerSentEvent) -> None:
        if order.event == "sse.gap":
            logger.warning(
                "orders of hub.disconnect were lost with the log: streams end only when their authorization does",
                extra=about("orders_lost"),
            )
            return
        try:
            if (obey := self.obey.get(order.event or "")) is not None:
                obey(json.loads(order.data or ""))
                return
            wanted = _read(order)
        except (ValueError, KeyError, TypeError):
            logger.warning(
                "hub.disconnect ignored a malformed order on the channel %s", CONTROL, extra=about("order_malformed")
            )
            return
        self._recent.append((time.monotonic(), wanted))
        for reader in self._registry.subscriptions():
            _carry_out(wanted, reader)

    def _recall(self, reader: Subscription) -> None:
        """Carry out, on a reader that enters, the orders received since the reader was authorized."""
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
        told = "hub.disconnect could not compare the properties (%s) of a stream, which goes on"
        logger.exception(told, what, extra=about("order_not_compared", channels=reader.channels))


def _concerns(wanted: _Order, reader: Subscription) -> bool:
    return (
        (wanted.identity is None or wanted.identity == reader.options.identity)
        and (wanted.channels is None or not wanted.channels.isdisjoint(reader.channels))
        and (wanted.properties is None or _matches(wanted.properties, reader.options.properties))
    )


def _matches(wanted: Any, found: Any) -> bool:
    """Compare as JSON. Of a mapping, compare only the wanted items, with items or attributes of `found`."""
    if isinstance(wanted, dict) and found is not _MISSING:
        return all(_matches(value, _member(found, name)) for name, value in wanted.items())
    try:
        return _sorted(wanted) == _sorted(json.loads(to_json(found)))  # compared as text, because 1 == True in Python
    except (TypeError, ValueError):
        return False


def _sorted(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _member(found: Any, name: str) -> Any:
    return found.get(name, _MISSING) if isinstance(found, Mapping) else getattr(found, name, _MISSING)
