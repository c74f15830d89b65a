"""The floor: an asyncio Protocol on uvloop that writes the same bytes to every socket, and hardly reads HTTP."""

import asyncio
import sys
from collections import defaultdict
from urllib.parse import parse_qs

import uvloop
from control import publish_events

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
transports: defaultdict[str, set[asyncio.Transport]] = defaultdict(set)


class Server(asyncio.Protocol):
    channel = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        path, _, query = data.split(b" ", 2)[1].decode().partition("?")
        if path == "/publish":
            self.task = asyncio.get_running_loop().create_task(self.control(query))
            return
        self.channel = parse_qs(query)["channel"][0]
        transports[self.channel].add(self.transport)
        self.transport.write(HEAD)

    def connection_lost(self, _: Exception | None) -> None:
        transports[self.channel].discard(self.transport)

    async def control(self, query: str) -> None:
        await publish_events(publish, query)
        self.transport.write(DONE)


async def publish(channel: str, data: str) -> None:
    frame = f"data: {data}\n\n".encode()
    chunk = b"%x\r\n%b\r\n" % (len(frame), frame)
    for transport in transports[channel]:
        transport.write(chunk)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    await server.serve_forever()


uvloop.run(main())
