"""Two uvicorn servers in two threads of one process: clients open streams and leave, on both at once.

`two_loops.py LOOP SECONDS` prints the number of streams that were opened, and that were left, on each server.
"""

import contextlib
import http.client
import json
import socket
import sys
import threading
import time

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from sse_asgi import EventSourceApp, EventSourceMiddleware, Hub

STREAMS = 20
PATIENCE = 15.0


class Served:
    """One server, in a thread of its own."""

    def __init__(self, loop: str) -> None:
        self.hub = Hub()
        routes = [Route("/left", self.count), Mount("/", EventSourceApp(self.hub))]
        app = EventSourceMiddleware(Starlette(routes=routes), hub=self.hub)
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, loop=loop, log_level="error"))
        self.thread = threading.Thread(target=self.server.run)
        self.opened = 0
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port: int = self.server.servers[0].sockets[0].getsockname()[1]

    async def count(self, _: Request) -> Response:
        return PlainTextResponse(str(len(self.hub.subscriptions())))

    def visit(self, seconds: float) -> None:
        """Open streams and leave them, as browsers do, until the time is over."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            with contextlib.ExitStack() as clients:
                for client in [clients.enter_context(self._connect()) for _ in range(STREAMS)]:
                    content = b""
                    while b"\n\n" not in content.partition(b"\r\n\r\n")[2]:
                        received = client.recv(4096)
                        assert received, content
                        content += received
                    self.opened += 1

    def _connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return client

    def left(self) -> int:
        """Wait until no stream is left; return the number of those that stay."""
        ends = time.monotonic() + PATIENCE
        while (left := self._ask()) and time.monotonic() < ends:
            time.sleep(0.05)
        return left

    def _ask(self) -> int:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.request("GET", "/left")
            return int(connection.getresponse().read())

    def stop(self) -> None:
        """Stop the server, which must not need a second signal."""
        self.server.should_exit = True
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


def main() -> None:
    """Run both servers, and print the numbers."""
    sys.setswitchinterval(1e-6)  # so that both threads are often in the middle of the same code
    servers = [Served(sys.argv[1]) for _ in range(2)]
    visitors = [threading.Thread(target=server.visit, args=[float(sys.argv[2])]) for server in servers]
    for thread in visitors:
        thread.start()
    for thread in visitors:
        thread.join()
    found = {"opened": [server.opened for server in servers], "left": [server.left() for server in servers]}
    for server in servers:
        server.stop()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
