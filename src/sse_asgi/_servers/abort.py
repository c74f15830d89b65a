"""Aborting the connection of a client that does not read, so that neither memory nor the server's end waits for it.

ASGI has no message for this. Observed: a response that has ended keeps about 4 MB and an open socket, until the client
reads again or the server is killed.
"""

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.types import Receive, Scope

from .._loop.timer import Timer
from .known import SERVERS
from .server import Address

# Observed: granian deadlocked in 6 of 16 stops with stalled readers when a send was cancelled while its connection was
# being closed, and in none of 24 when the send had this time to return.
RETURN_SECONDS = 0.2

TOGETHER_SECONDS = 0.05
DESCRIPTORS = "/dev/fd"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def abort(scope: Scope, receive: Receive, timer: Timer) -> None:
    """Abort the connection of this request; do nothing where the connection is shared or cannot be found."""
    if any(server.abort(receive) for server in SERVERS):
        return
    client, server = scope.get("client"), scope.get("server")
    # Several streams share one connection of HTTP/2.
    if client and server and scope.get("http_version", "").startswith("1"):
        ends = _end(client), _end(server)
        timer.together(TOGETHER_SECONDS, _close_sockets, ends)  # one search serves many clients; it takes long


def _end(pair: Any) -> Address:
    """Return one end of a connection as its socket names it."""
    return pair[0], int(pair[1] or 0)  # granian's port is a str; a Unix socket has no port


def _close_sockets(doomed: set[tuple[Address, Address]]) -> None:
    """Close the sockets between these addresses of a client and a server."""
    for descriptor in _sockets():
        with contextlib.suppress(OSError):  # closed in the meantime, or not connected
            one = socket.socket(fileno=descriptor)
            try:
                if (one.getpeername()[:2], one.getsockname()[:2]) in doomed and _has_unread(one):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                    one.shutdown(socket.SHUT_RDWR)  # the server sees a client that has disconnected
            finally:
                one.detach()


def _sockets() -> Iterator[int]:
    """Iterate over the sockets' file descriptors of this process; there are none where the system has no list."""
    with contextlib.suppress(OSError):
        for path in Path(DESCRIPTORS).iterdir():
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.fstat(int(path.name)).st_mode):
                    yield int(path.name)


def _has_unread(one: socket.socket) -> bool:
    """Return True if the client has not taken all bytes: an address alone may come from a proxy's header."""
    import fcntl  # noqa: PLC0415 - this module is missing where descriptors are not listed
    import termios  # noqa: PLC0415 - as above

    return any(fcntl.ioctl(one, termios.TIOCOUTQ, bytes(4)))
