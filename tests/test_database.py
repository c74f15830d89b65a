"""A database and many streams: the pool of connections stays free, as docs/fastapi.md promises."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any

import anyio
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from sse_asgi import EventSourceMiddleware, EventSourceResponse, Hub
from sse_asgi.fastapi import assert_no_open_dependencies
from sse_asgi.testing import EventStreamClient

pytest.importorskip("fastapi.sse")  # an older FastAPI has neither scopes nor endpoints that yield
pytestmark = pytest.mark.anyio

STREAMS = 200
POOL = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 0.2}
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture
def anyio_backend() -> str:
    """SQLAlchemy runs on asyncio."""
    return "asyncio"


def application(engine: AsyncEngine, scope: Any) -> FastAPI:
    """Return an application whose streams read a session below another dependency, and later in their generator."""
    new_session = async_sessionmaker(engine)

    async def session() -> AsyncIterator[AsyncSession]:
        async with new_session() as opened:
            yield opened

    async def user(opened: Annotated[AsyncSession, Depends(session, scope=scope)]) -> int:
        return int(await opened.scalar(text("SELECT 7")) or 0)

    User = Annotated[int, Depends(user)]  # noqa: N806 - a type
    hub = Hub()
    app = FastAPI()
    app.add_middleware(EventSourceMiddleware, hub=hub)

    @app.get("/news")
    async def news(user: User) -> EventSourceResponse:
        return EventSourceResponse(hub.subscribe(f"user:{user}"))

    @app.get("/rows", response_class=EventSourceResponse)
    async def rows(user: User) -> AsyncIterable[int]:
        async with new_session() as opened:
            row = int(await opened.scalar(text("SELECT 8")) or 0)
        yield row
        await anyio.sleep_forever()

    @app.get("/plain")
    async def plain(opened: Annotated[AsyncSession, Depends(session)]) -> int:
        return int(await opened.scalar(text("SELECT 9")) or 0)

    return app


async def open_streams(engine: AsyncEngine) -> None:
    """Hold many streams open, and use the database meanwhile."""
    app = application(engine, "function")
    assert_no_open_dependencies(app)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(EventStreamClient(app))
        for number in range(STREAMS):
            path = ("/news", "/rows")[number % 2]
            stream = await stack.enter_async_context(client.stream(path))
            if path == "/rows":
                assert (await stream.next_event()).data == "8"
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        async with client.stream("/plain") as answer:
            assert await answer.read() == b"9"


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'database'}", **POOL)
    yield engine
    await engine.dispose()


async def test_200_open_streams_leave_the_pool_free(sqlite: AsyncEngine) -> None:
    """A session that is closed before the stream, and one for each query: both of two connections are free."""
    await open_streams(sqlite)


async def test_a_request_scoped_session_exhausts_the_pool(sqlite: AsyncEngine) -> None:
    """As many streams as connections, and no other request gets one: what the warning is about."""
    app = application(sqlite, None)
    with pytest.raises(AssertionError, match=r"user -> .*session open"):
        assert_no_open_dependencies(app)
    async with EventStreamClient(app) as client, client.stream("/news"), client.stream("/news"):
        assert sqlite.pool.checkedout() == 2  # type: ignore[attr-defined]
        with pytest.raises(PoolTimeoutError):
            async with client.stream("/plain"):
                pass


@pytest.fixture
def postgres() -> Iterator[str]:
    """Run Debian's PostgreSQL on a socket; it refuses to be run as root."""
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    home = tempfile.mkdtemp()
    if as_user:
        shutil.chown(home, "postgres")

    def run(program: str, *arguments: str) -> None:
        command = [*as_user, str(POSTGRES[-1] / program), "--pgdata", f"{home}/data", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=home)

    run("initdb", "--auth=trust", "--username=app", "--no-sync", "--no-instructions")
    options = f"-c listen_addresses= -c unix_socket_directories={home} -c fsync=off"
    run("pg_ctl", "start", "--wait", "--silent", f"--options={options}", f"--log={home}/log")
    yield f"postgresql+asyncpg://app@/postgres?host={home}"
    run("pg_ctl", "stop", "--mode=immediate", "--silent")
    shutil.rmtree(home)


@pytest.mark.skipif(not POSTGRES, reason="PostgreSQL is not installed")
async def test_200_open_streams_leave_postgresql_free(postgres: str) -> None:
    """No connection is in use or idle in a transaction."""
    engine = create_async_engine(postgres, **POOL)
    try:
        await open_streams(engine)
    finally:
        await engine.dispose()
