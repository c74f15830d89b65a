"""A hub under load from several event loops at once: nothing is lost, and the server lives on."""

import asyncio
import secrets
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import uvloop

from hub.loops import PATIENCE, new_hub
from real_redis.launcher import RedisServer
from servers.processes import Server


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("kind", ["asyncio-memory", "asyncio-redis"])
def test_loops_in_threads_lose_nothing(kind: str, loop: str, shared_redis: RedisServer) -> None:
    """Readers in a fourth loop get all events of three publishing loops, in the order of the ids."""
    hub = new_hub(kind, shared_redis)
    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop

    async def bot(name: int) -> None:
        for number in range(200):
            await hub.publish("a", f"{name} {number}", key=str(name))
            if number % 20 == 0:
                assert hub.stats().connections >= 1

    async def serve() -> list[list[tuple[str, str]]]:
        async with hub:
            readers = [await hub.subscribe("a", identity="ada").__aenter__() for _ in range(5)]
            threads = [threading.Thread(target=run, args=(bot(name),)) for name in range(3)]
            for thread in threads:
                thread.start()
            with anyio.fail_after(PATIENCE):
                seen = [[await anext(reader) for _ in range(600)] for reader in readers]
            for thread in threads:
                await anyio.to_thread.run_sync(thread.join)
            return [[(str(event.id), str(event.data)) for event in events] for events in seen]

    def run(main: Any) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main)

    seen = run(serve())
    assert all(events == seen[0] for events in seen)
    ids = [int(position.partition("-")[2]) for position, _ in seen[0]]
    assert ids == sorted(set(ids))
    for name in range(3):
        mine = [data for _, data in seen[0] if data.startswith(f"{name} ")]
        assert mine == [f"{name} {number}" for number in range(200)]


BOT = """
import asyncio, threading
from contextlib import asynccontextmanager
from starlette.applications import Starlette
from starlette.routing import Mount
from sse_asgi import EventSourceApp, EventSourceMiddleware, create_hub

hub = create_hub()

async def bot(name):
    while hub.stats().connections < 3:
        await asyncio.sleep(0.01)
    for number in range(300):
        await hub.publish("default", f"{name} {number}")
        await hub.publish("elsewhere", "x")
    await hub.history("default")

@asynccontextmanager
async def lifespan(app):
    for name in range(3):
        threading.Thread(target=lambda name=name: asyncio.run(bot(name)), daemon=True).start()
    yield

app = Starlette(routes=[Mount("/events", EventSourceApp(hub))], lifespan=lifespan)
app.add_middleware(EventSourceMiddleware, hub=hub)
"""


@pytest.mark.parametrize("kind", ["asyncio-memory", "asyncio-redis"])
def test_bots_in_threads_do_a_real_server_no_harm(kind: str, shared_redis: RedisServer, tmp_path: Path) -> None:
    """Uvicorn on uvloop goes on serving, and each client gets each event of three bots once."""
    (tmp_path / "with_bots.py").write_text(BOT)
    url = shared_redis.url if kind == "asyncio-redis" else "memory://"
    command = ("uvicorn", "with_bots:app", "--port", "{port}", "--loop", "uvloop", "--app-dir", str(tmp_path))
    server = Server.start(command, SSE_BACKEND_URL=url, SSE_HUB_NAME=secrets.token_hex(8))
    try:
        streams = [server.open("/events/") for _ in range(3)]
        for stream in streams:
            for name in range(3):
                stream.until(f"data: {name} 299\n".encode())
            text = stream.until(b"data: 2 299\n").decode()
            got = [
                line.removeprefix("data: ")
                for line in text.splitlines()
                if line.startswith("data: ") and "{" not in line
            ]
            assert sorted(got) == sorted(f"{name} {number}" for name in range(3) for number in range(300))
        assert server.process.poll() is None
    finally:
        server.remove()
