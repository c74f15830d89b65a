"""A network between a hub and its servers that can be cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from real_redis.launcher import RedisServer


class Proxy:
    """Hands connections on to servers, each to the next of them.

    Attributes:
        url: Where it listens, for RedisBackend.
        targets: The servers; a single one for all connections, unless a test wants them mixed up.
        open: Whether connections are accepted.
        flows: Set while what the servers send is handed on; else it waits in their buffers.
    """

    def __init__(self, *targets: RedisServer) -> None:
        self.targets = list(targets)
        self.open = True
        self.url = ""
        self.flows = asyncio.Event()
        self.flows.set()
        self._forgotten: set[int] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._count = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            writer.transport.abort()
            return
        target = self.targets[self._count % len(self.targets)]
        self._count += 1
        there, back = await asyncio.open_connection("127.0.0.1", target.port)
        self._writers += [writer, back]
        number = self._count
        await asyncio.gather(self._copy(reader, back, number), self._copy(there, writer, number, self.flows))

    async def _copy(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        number: int,
        flows: asyncio.Event | None = None,
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                if flows is not None:
                    await flows.wait()
                if number in self._forgotten:
                    continue
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    def forget(self) -> None:
        """Hand nothing on any more of the connections that there are, without ending them, as a firewall may."""
        self._forgotten.update(range(self._count + 1))

    def cut(self) -> None:
        """Lose every connection, and accept none."""
        self.open = False
        self.flows.set()
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.transport.abort()


@asynccontextmanager
async def proxied(*targets: RedisServer) -> AsyncIterator[Proxy]:
    """Run a proxy for these servers."""
    proxy = Proxy(*targets)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        proxy.cut()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)
