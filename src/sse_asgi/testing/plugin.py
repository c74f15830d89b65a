"""Fixtures for pytest: write `pytest_plugins = ["sse_asgi.testing.plugin"]` into the conftest.py at the top.

The plugin is not an entry point. pytest would then load it, and so the whole library, in every run of every project
that has the library installed, and before a coverage measurement begins.

PYTEST_DONT_REWRITE: nothing is asserted here, and pytest would warn if a test had imported this module before.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import pytest
from starlette.types import ASGIApp

from ._live import LiveServer
from ._redis import URL_VARIABLE, RedisServer
from ._sync import ClientFactory, SyncEventStreamClient


@pytest.fixture
def sse_client() -> Iterator[ClientFactory]:
    """Make clients for tests without `async`: call it with an application, which stops at the test's end."""
    with ExitStack() as stack:

        def client(
            app: ASGIApp,
            *,
            headers: Mapping[str, str] | None = None,
            cookies: Mapping[str, str] | None = None,
            backend: str = "asyncio",
        ) -> SyncEventStreamClient:
            made = SyncEventStreamClient(app, headers=headers, cookies=cookies, backend=backend)
            return stack.enter_context(made)

        yield client


@pytest.fixture
def sse_server() -> Iterator[Callable[[ASGIApp], LiveServer]]:
    """Start uvicorn: call it with an application, which stops at the test's end."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(LiveServer(app))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Start one redis-server for all tests: `redis_server.url`. It is the one of SSE_TEST_REDIS_URL, if that is set."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(RedisServer(os.environ.get(URL_VARIABLE)))
        except RuntimeError as error:
            pytest.fail(str(error), pytrace=False)
        yield server
