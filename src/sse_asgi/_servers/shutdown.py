"""Learning that the server is about to stop, which no ASGI message announces in time.

A server sends `lifespan.shutdown` after the last response has ended. So a stream that waits for that message keeps the
server from sending it. Each event loop has one ShutdownNotice, which asks the known servers and hears the signals.
"""

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import anyio.lowlevel

from .._loop.timer import Alarm, shared_timer
from .known import running_servers
from .server import Address, AskedServer, Server, address_of
from .signals import Undo, hear_signals

WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
MAX_ADDRESSES = 64
POLL_SECONDS = 0.1
QUIET_SECONDS = 10.0

Scope = Mapping[str, Any]


class ShutdownNotice(Server):
    """The news that a server of this event loop stops, given once to each of its streams.

    The notice is itself a Server: it stands for every server that cannot be asked or identified. Its streams get the
    news when any server of the loop stops, and its `heard` is True while any of them stops.
    """

    def __init__(self) -> None:
        """Begin without streams; nothing is watched yet."""
        super().__init__()
        self._watchers = 0
        self._listeners: dict[Callable[[], None], Server] = {}
        self._when_quiet: dict[Callable[[], None], tuple[Server, Alarm]] = {}
        self._undos: list[Undo] = []
        self._asked: list[AskedServer] = []
        self._at: dict[Address, Server] = {}
        self._next_look = Alarm()

    @property
    def listeners(self) -> int:
        """The number of streams that listen."""
        return len(self._listeners)

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
            self._next_look.cancel()
            for undo in self._undos:
                undo()
            self._undos = []
            self._at.clear()
            for server in self._asked:  # the next watch finds the servers again
                self.forget(server)

    def listen(self, callback: Callable[[], None], scope: Scope | None = None) -> None:
        """Call back when the server of this scope stops: at once if it stops already.

        Without a scope, or where the scope's server is not known, call back when any server of the loop stops.
        """
        server = self.watch(scope)
        self._listeners[callback] = server
        server.streams += 1
        if server.heard:
            callback()

    def unlisten(self, callback: Callable[[], None]) -> None:
        """Forget a callback, because its stream has ended and cleaned up."""
        self._listeners.pop(callback).streams -= 1
        for one, (server, alarm) in list(self._when_quiet.items()):
            if not server.streams:
                alarm.cancel()
                self._settle(one)
        self.unwatch()

    def when_quiet(self, callback: Callable[[], None], server: Server | None = None) -> None:
        """Call back once when every stream of a server has cleaned up, at the latest after QUIET_SECONDS.

        That is at once if the server has no stream.
        """
        if callback in self._when_quiet:
            return
        server = server or self
        alarm = self._timer.after(QUIET_SECONDS, partial(self._settle, callback))
        self._when_quiet[callback] = server, alarm
        if not server.streams:
            alarm.cancel()
            self._settle(callback)

    def _settle(self, callback: Callable[[], None]) -> None:
        del self._when_quiet[callback]
        callback()

    def hear(self, server: Server | None = None) -> None:
        """Give the streams of a server, or all streams, the news that it stops; repeated calls do nothing."""
        news = [one for one in (*(self._asked if server is None else [server]), self) if not one.heard]
        for one in news:
            one.heard = True
        for callback, one in list(self._listeners.items()) if news else ():
            if one in news:
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
            if server.ended:
                self.forget(server)
        if self._asked:
            self._next_look = self._timer.after(POLL_SECONDS, self._look)


_notice: anyio.lowlevel.RunVar[ShutdownNotice] = anyio.lowlevel.RunVar("_notice")


def current_notice() -> ShutdownNotice:
    """Return the notice of the running event loop."""
    notice = _notice.get(None)
    if notice is None:
        notice = ShutdownNotice()
        _notice.set(notice)
    return notice


def farewell(notice: ShutdownNotice) -> bytes:
    """Return a random `retry:` line, so that the clients of this process do not all reconnect at the same time.

    The range grows with the number of clients.
    """
    spread = 1000 + 2 * notice.listeners
    return b"retry: %d\n" % random.randint(500, 500 + spread)  # noqa: S311 - a spread, not a secret
