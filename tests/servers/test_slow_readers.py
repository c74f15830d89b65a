"""Clients that never read cost a bounded amount, disturb no other client, are cut off, and miss no event silently."""

import json
import re
import socket
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from typing import Self

import pytest
from h2.connection import H2Connection

from servers.kinds import KINDS
from servers.processes import Server, wait_until

Serve = Callable[..., Server]

STALLED = 30
EVENT_BYTES = 64 * 1024
BURST = 64  # history holds as many, so a reader that falls behind catches up
BURSTS = 256  # 1 GiB in all
BUFFER_KIB = 1024 + 64  # a reader's own buffer, and the server's buffer for a connection
HISTORY_KIB = 100 * EVENT_BYTES // 1024
SLACK_KIB = 48 * 1024  # the allocator keeps some memory


class Reader(threading.Thread):
    """A client that reads all the time, and collects the ids."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.client = connect(server)
        self.ids: list[int] = []
        self.tail = b""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.shutdown(socket.SHUT_RDWR)
        self.join()
        self.client.close()

    def run(self) -> None:
        with suppress(ConnectionResetError):  # the answer to bytes that are sent after the shutdown
            while content := self.client.recv(1 << 20):
                content = self.tail + content
                self.ids += map(int, re.findall(rb"id: \w+-(\d+)\n", content))
                self.tail = content[content.rfind(b"\n") + 1 :] if b"\n" in content else content

    def has(self, event_id: str) -> bool:
        return bool(self.ids) and self.ids[-1] >= int(event_id.partition("-")[2])


def connect(server: Server, **headers: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    client.sendall(f"GET /hub/ HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
    content = b""
    while b"\r\n\r\n" not in content:
        content += client.recv(300)
    return client


class Unwilling(threading.Thread):
    """A client of HTTP/2 that reads its connection, and never opens the stream's window beyond the first 64 KiB."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        connection = H2Connection()
        connection.initiate_connection()
        head = {":method": "GET", ":path": "/hub/", ":scheme": "http", ":authority": "x"}
        connection.send_headers(1, list(head.items()), end_stream=True)
        self.client = socket.create_connection(("127.0.0.1", server.port))
        self.client.sendall(connection.data_to_send())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.shutdown(socket.SHUT_RDWR)
        self.join()
        self.client.close()

    def run(self) -> None:
        with suppress(OSError):
            while self.client.recv(1 << 16):
                pass


def kib(server: Server) -> int:
    value: int = json.loads(server.get("/census"))["kib"]
    return value


def latency(server: Server, reader: Reader) -> float:
    """Return the seconds from the publication of a small event until a client has read it."""
    began = time.monotonic()
    last = server.get("/publish?data=x")
    wait_until(lambda: reader.has(last))
    return time.monotonic() - began


@pytest.mark.parametrize("name", ["uvicorn", "hypercorn", "granian", "gunicorn -k asgi"])
def test_a_gigabyte_that_thirty_do_not_read(serve: Serve, name: str) -> None:
    """Memory stays within the bounds, another client is not delayed, and the thirty are cut off."""
    server = serve(KINDS[name], SEND_TIMEOUT="1")
    stalled = [connect(server) for _ in range(STALLED)]
    with Reader(server) as reader:
        server.get(f"/publish?bytes={EVENT_BYTES}&times={BURST}")  # code and history are in memory then
        before, high, delays = kib(server), 0, []
        for number in range(BURSTS):
            last = server.get(f"/publish?bytes={EVENT_BYTES}&times={BURST}")
            wait_until(partial(reader.has, last))
            if number % 8 == 0:
                high = max(high, kib(server))
                delays.append(latency(server, reader))
        assert high - before < STALLED * BUFFER_KIB + HISTORY_KIB + SLACK_KIB, (before, high)
        assert statistics.median(delays) < 0.05
        assert reader.ids == sorted(set(reader.ids))
        assert len(reader.ids) > BURST * BURSTS
        wait_until(lambda: streams(server) == 1)
    for client in stalled:
        client.close()


def test_a_reader_that_was_cut_off_misses_no_event_silently(serve: Serve) -> None:
    """With its last id it gets the rest, or a gap if the rest was trimmed."""
    server = serve(KINDS["uvicorn"], SEND_TIMEOUT="0.5")
    first = server.get("/publish?data=first")
    stalled = connect(server, Last_Event_ID=first)
    server.get("/publish?data=second")
    server.get(f"/publish?bytes={EVENT_BYTES}&times=90")
    again = server.open("/hub/", **{"Last-Event-ID": first})
    assert b"sse.gap" not in again.until(b"data: second\n\n")
    again.close()
    server.get(f"/publish?bytes={EVENT_BYTES}&times=100")
    wait_until(lambda: streams(server) == 0)
    late = server.open("/hub/", **{"Last-Event-ID": first})
    assert b'event: sse.gap\ndata: {"reason":"trimmed"' in late.until(b"\n\n")
    stalled.close()


def streams(server: Server) -> int:
    value: int = json.loads(server.get("/census"))["listeners"]
    return value


@pytest.mark.parametrize("name", ["granian", "uvicorn --http zttp --http2", "hypercorn", "daphne"])
def test_a_reader_is_bounded_where_send_does_not_wait(serve: Serve, name: str) -> None:
    """Of these, only granian shows that a stream's window is closed. On the others, the lifetime ends the stream."""
    server = serve(KINDS[name], SEND_TIMEOUT="0.3", MAX_LIFETIME="2")
    with suppress(OSError), closing(connect(server)) if name == "daphne" else Unwilling(server):
        wait_until(lambda: streams(server) == 1)
        for _ in range(8):
            server.get(f"/publish?bytes={EVENT_BYTES}&times={BURST}")
        time.sleep(0.6)  # twice the `send_timeout`
        assert streams(server) == (name != "granian")
        wait_until(lambda: streams(server) == 0)
