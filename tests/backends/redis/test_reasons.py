"""Error replies, and the advice for each of them."""

import asyncio
from collections.abc import Callable

import pytest

from real_redis.helpers import reason
from sse_asgi import Hub

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]


async def test_an_old_server_repeats_the_password(new_hub: NewHub, caplog: pytest.LogCaptureFixture) -> None:
    """What it says of HELLO is cut off before it is logged."""
    answer = b"-ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `me`, `secret`, \r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        await reader.read(-1)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with new_hub(url=f"redis://me:secret@127.0.0.1:{port}", timeout=0.2) as hub:
            text = await reason(hub)
    assert "too old" in text
    assert "secret" not in text + caplog.text
