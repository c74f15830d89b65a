"""Clients that see the bytes of a response, its end, and what a browser would make of it."""

import http.client
import re
import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Self

from sse_asgi.decoder import DecodedEvent, EventDecoder

PATIENCE = 10.0
HEAD_PATIENCE = 3.0
ACCEPTED = (200, 201, 202)
CACHE = "Cache-Control: no-cache\r\n"


class Reader:
    """One response, read as it arrives. It is read only where a method says so; leaving the context disconnects.

    Attributes:
        content: The bytes of the body so far.
        ending: How the body ended: "" if it has not, "complete", "cut off", "closed" where only the end of the
            connection ends a body, or "not valid HTTP".
        status: The status of the response; 0 if it was cut off before its head.
        headers: The headers of the response, in lower case.
    """

    def __init__(self, port: int, path: str, *, method: str = "GET", buffer: int = 0, last_event_id: str = "") -> None:
        self.content = bytearray()
        self.ending, self.status = "", 0
        self.headers: dict[str, str] = {}
        self._raw = b""
        self._socket = socket.socket()
        if buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(("127.0.0.1", port))
        more = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n{CACHE}{more}\r\n"
        self._socket.sendall(head.encode())
        latest = time.monotonic() + HEAD_PATIENCE
        while b"\r\n\r\n" not in self._raw and not self.ending and (left := latest - time.monotonic()) > 0:
            self._receive(left, 1)  # what follows the head stays in the socket of a client that does not read
        self._read_head()

    def _receive(self, seconds: float, most: int = 1 << 16) -> None:
        self._socket.settimeout(seconds)
        try:
            chunk = self._socket.recv(most)
        except TimeoutError:
            return
        except OSError:
            chunk = b""
        self._raw += chunk
        if not chunk:
            self.ending = "cut off" if {"transfer-encoding", "content-length"} & {*self.headers} else "closed"

    def _read_head(self) -> None:
        head, _, self._raw = self._raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        if first:
            self.status = int(first.split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def _read_body(self) -> None:
        """Take what has arrived of the body, which is chunked, or has a length."""
        if "content-length" in self.headers:
            self.content += self._raw
            self._raw = b""
            if len(self.content) >= int(self.headers["content-length"]):
                self.ending = "complete"
        elif "transfer-encoding" not in self.headers:  # the end of the connection is the end of the body
            self.content += self._raw
            self._raw = b""
        while (found := re.match(rb"([0-9a-fA-F]+)[^\r]*\r\n", self._raw)) is not None:
            size, start = int(found[1], 16), found.end()
            if len(self._raw) < start + size + 2:
                break
            self.content += self._raw[start : start + size]
            self._raw = self._raw[start + size + 2 :]
            if not size:
                self.ending = "complete"
        if not self.ending and self._raw.startswith(b"HTTP/"):  # another head, inside this body
            self.ending = "not valid HTTP"

    @property
    def events(self) -> list[DecodedEvent]:
        """The events that a browser dispatches, without those that only hold a position."""
        return [event for event in EventDecoder().feed(bytes(self.content)) if event.event != "sse.position"]

    @property
    def last_event_id(self) -> str:
        """What a browser would send when it reconnects."""
        decoder = EventDecoder()
        decoder.feed(bytes(self.content))
        return decoder.last_event_id

    def until(self, fact: Callable[[], object], seconds: float = PATIENCE) -> bool:
        """Read until a fact is true; return False if it is not in time, or not by the end of the body."""
        latest = time.monotonic() + seconds
        self._read_body()
        while not fact():
            left = latest - time.monotonic()
            if left <= 0 or self.ending:
                return False
            self._receive(left)
            self._read_body()
        return True

    def until_quiet(self, seconds: float) -> None:
        """Read until nothing has come for so long."""
        size = -1
        while len(self.content) > size and not self.ending:
            size = len(self.content)
            self.until(lambda: len(self.content) > size, seconds)  # noqa: B023 (it is called at once)

    def rest(self, seconds: float = PATIENCE) -> Self:
        """Read to the end."""
        self.until(lambda: self.ending, seconds)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()


def post(port: int, path: str, body: str, *, patience: float = PATIENCE) -> int:
    """Post a body; return the status, or 0 without an answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=patience)) as connection:
        try:
            connection.request("POST", path, body.encode(), {"Content-Type": "text/plain"})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0


def shown(events: list[DecodedEvent]) -> str:
    """Show messages as code, and events of other names in italics."""
    return " ".join(f"`{one.data}`" if one.event == "message" else f"*{one.event}*" for one in events) or "nothing"


def resident(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    (found,) = re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found) / 1024
