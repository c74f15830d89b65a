"""Closing the connection of a client that does not read, so that neither memory nor the server's end waits for it.

ASGI has no word for it. Observed: a response that has ended leaves some 4 MB and an open socket behind, until the
client reads again or the server is killed.
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

Address = tuple[str, int]

# Observed: granian deadlocked in 6 of 16 stops with stalled readers when a send was cancelled while its connection was
# being closed, and in none of 24 when the send had this time to return.
RETURN_SECONDS = 0.2

TOGETHER_SECONDS = 0.05
DESCRIPTORS = "/dev/fd"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def abort(scope: Scope, receive: Receive, timer: Timer) -> None:
    """Abort the connection of this request, unless that cannot, or must not, be done."""
    if any(one.abort(receive) for one in SERVERS):
        return
    client, server = scope.get("client"), scope.get("server")
    # Several streams share a connection of HTTP/2.
    if client and server and scope.get("http_version", "").startswith("1"):
        ends = _address(client), _address(server)
        timer.together(TOGETHER_SECONDS, _close_sockets, ends)  # going through all descriptors takes long


def _address(pair: Any) -> Address:
    return pair[0], int(pair[1] or 0)  # granian has the port as a str; of a Unix socket there is none


def _close_sockets(doomed: set[tuple[Address, Address]]) -> None:
    """Close the sockets between these addresses of a client and a server."""
    for number in _sockets():
        with contextlib.suppress(OSError):  # closed meanwhile, or not connected
            one = socket.socket(fileno=number)
            try:
                if (one.getpeername()[:2], one.getsockname()[:2]) in doomed and _has_unread(one):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                    one.shutdown(socket.SHUT_RDWR)  # of which the server hears as of a client that has gone
            finally:
                one.detach()


def _sockets() -> Iterator[int]:
    """Go through the file descriptors of this process, where the system lists them."""
    with contextlib.suppress(OSError):
        for path in Path(DESCRIPTORS).iterdir():
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.fstat(int(path.name)).st_mode):
                    yield int(path.name)


def _has_unread(one: socket.socket) -> bool:
    """Tell whether the client leaves something unread: an address can be what a proxy's header says."""
    import fcntl  # noqa: PLC0415 - where there is no list of descriptors there is no such module
    import termios  # noqa: PLC0415 - as above

    return any(fcntl.ioctl(one, termios.TIOCOUTQ, bytes(4)))
