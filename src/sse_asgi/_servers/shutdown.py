"""Learning that the server is about to stop, which no ASGI message announces in time.

A server sends `lifespan.shutdown` after the last response has ended. So a stream that waits for that message keeps the
server from sending it. Each event loop has one ShutdownNotice, which asks the known servers and hears the signals.
"""

import math
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .._loop.running import LoopVar
from .._loop.timer import Alarm, shared_timer
from .known import running_servers
from .server import Address, AskedServer, Server, address_of
from .signals import Undo, hear_signals

WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
MAX_ADDRESSES = 64
POLL_SECONDS = 0.1
QUIET_SECONDS = 10.0
# A terminal and systemd signal every process of a server, and some parents pass the signal on to their workers.
SAME_SECONDS = 1.0

Scope = Mapping[str, Any]


class ShutdownNotice(Server):
    """The news that a server of this event loop stops, given to each of its streams.

    Streams may go on for a while, each for the `drain` that it listens with. A signal that comes SAME_SECONDS after the
    news, or later, gives the news again. Then they end at once.

    The notice is itself a Server: it stands for every server that cannot be asked or identified. Its streams get the
    news when any server of the loop stops, and its `heard` is True while any of them stops.
    """

    def __init__(self) -> None:
        """Begin without streams; nothing is watched yet."""
        super().__init__()
        self._watchers = 0
        self._listeners: dict[Callable[[], None], Server] = {}
        self._when_quiet: dict[Callable[[], None], tuple[Server | None, Alarm]] = {}
        self._undos: list[Undo] = []
        self._asked: list[AskedServer] = []
        self._at: dict[Address, Server] = {}
        self._next_look = Alarm()
        self._longest_drain = 0.0
        self._heard_at = math.inf

    @property
    def listeners(self) -> int:
        """The number of streams that listen."""
        return len(self._listeners)

    def left_of(self, drain: float) -> float:
        """Return how many seconds of a drain are left; 0 before a stop was heard."""
        return max(0.0, self._heard_at + drain - time.monotonic()) if self.heard else 0.0

    def watch(self, scope: Scope | None = None) -> Server:
        """Watch for a shutdown until `unwatch`; return the server of this scope."""
        if not self._watchers:
            self._timer = shared_timer()
            self._find()
            if not any(server.tells_of_signals for server in self._asked):
                self._undos = hear_signals(self)
        self._watchers += 1
        return self if scope is None else self._server_of(scope)

    def unwatch(self) -> None:
        """End one `watch`; the last call undoes every change."""
        self._watchers -= 1
        if not self._watchers:
            self._longest_drain = 0.0
            self._next_look.cancel()
            for undo in self._undos:
                undo()
            self._undos = []
            self._at.clear()
            for server in self._asked:  # the next watch finds the servers again
                self.forget(server)

    def stops(self, scope: Scope) -> bool:
        """Return True if the server of this scope was heard to stop; False if nothing watches for it."""
        return self._watchers > 0 and self._server_of(scope).heard

    def listen(self, callback: Callable[[], None], scope: Scope | None = None, *, drain: float = 0.0) -> None:
        """Call back when the server of this scope stops, at once if it stops already, and when a signal comes again.

        Args:
            callback: The callback.
            scope: The scope of a request. Without it, or where its server is not known, every server of the loop
                counts.
            drain: The most seconds for which the stream goes on after the first call.
        """
        server = self.watch(scope)
        self._longest_drain = max(self._longest_drain, drain)
        self._listeners[callback] = server
        server.streams += 1
        if server.heard:
            callback()

    def unlisten(self, callback: Callable[[], None]) -> None:
        """Forget a callback, because its stream has ended and cleaned up."""
        self._listeners.pop(callback).streams -= 1
        for one, (server, alarm) in list(self._when_quiet.items()):
            if self._is_quiet(server):
                alarm.cancel()
                self._settle(one)
        self.unwatch()

    def when_quiet(self, callback: Callable[[], None], server: Server | None = None) -> None:
        """Call back once when every stream of a server, or of all servers, has cleaned up; at once if there is none.

        That is at the latest QUIET_SECONDS after the longest drain.
        """
        if callback in self._when_quiet:
            return
        alarm = self._timer.after(self._longest_drain + QUIET_SECONDS, partial(self._settle, callback))
        self._when_quiet[callback] = server, alarm
        if self._is_quiet(server):
            alarm.cancel()
            self._settle(callback)

    def _is_quiet(self, server: Server | None) -> bool:
        return not (self.listeners if server is None else server.streams)

    def _settle(self, callback: Callable[[], None]) -> None:
        del self._when_quiet[callback]
        callback()

    def hear(self, server: Server | None = None) -> None:
        """Give the streams of a server, or all streams, the news that it stops; repeated calls do nothing."""
        if not self.heard:
            self._heard_at = time.monotonic()
        news = [one for one in (*(self._asked if server is None else [server]), self) if not one.heard]
        for one in news:
            one.heard = True
        for callback, one in list(self._listeners.items()) if news else ():
            if one in news:
                callback()

    def hear_signal(self, server: Server | None = None) -> None:
        """Give the news that a signal came, for a server or for all of them; give it again if it is old."""
        if not self.heard or time.monotonic() < self._heard_at + SAME_SECONDS:
            self.hear(server)
            return
        for callback, one in list(self._listeners.items()):
            if one.heard and (server is None or one in (server, self)):
                callback()

    def forget(self, server: Server) -> None:
        """Ask a server no more, because it has stopped; the event loop may still run others, or start another."""
        self._asked = [one for one in self._asked if one is not server]
        self._at.clear()
        self.heard = any(one.heard for one in self._asked)

    # Servers that can be asked

    def _server_of(self, scope: Scope) -> Server:
        if scope["type"] == "lifespan":
            self._find()
            state = scope.get("state")
            return next((one for one in self._asked if state is not None and one.state is state), self)
        address = address_of(scope.get("server"))
        if address not in self._at and len(self._at) < MAX_ADDRESSES:
            server = self._server_at(address)
            if server is self:  # its server may have started since the last look
                self._find()
                server = self._server_at(address)
            self._at[address] = server
        return self._at.get(address, self)

    def _server_at(self, address: Address) -> Server:
        for one in (address, *((host, address[1]) for host in WILDCARDS)):
            servers = [server for server in self._asked if one in server.addresses()]
            if servers:
                return servers[0] if len(servers) == 1 else self
        return self

    def _find(self) -> None:
        known = [one.key for one in self._asked]
        self._asked += [one for one in running_servers() if one.key not in known]
        self._look()

    def _look(self) -> None:
        self._next_look.cancel()
        for server in self._asked:
            if server.ended or server.stops():
                self.hear(server)
            if server.signals > server.signals_seen:
                server.signals_seen = server.signals
                self.hear_signal(server)
            if server.ended:
                self.forget(server)
        if self._asked:
            self._next_look = self._timer.after(POLL_SECONDS, self._look)


_notice: LoopVar[ShutdownNotice] = LoopVar(ShutdownNotice)


def current_notice() -> ShutdownNotice:
    """Return the notice of the running event loop."""
    return _notice.get()


def farewell(notice: ShutdownNotice) -> bytes:
    """Return a random `retry:` line, so that the clients of this process do not all reconnect at the same time.

    The range grows with the number of clients.
    """
    spread = 1000 + 2 * notice.listeners
    return b"retry: %d\n" % random.randint(500, 500 + spread)  # noqa: S311 - a spread, not a secret
