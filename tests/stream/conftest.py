"""Fixtures for the tests of streams."""

from collections.abc import AsyncIterator

import pytest

from sse_asgi._servers.shutdown import current_notice
from stream.helpers import Server


@pytest.fixture
async def notice() -> AsyncIterator[None]:
    """Reset the shutdown notice of the event loop after the test."""
    yield
    current_notice().heard = False


@pytest.fixture
def known_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Server, and the servers of the test's own module, be known to take messages in any task."""
    monkeypatch.setattr("sse_asgi._servers.known.STEPPABLE", {Server.__module__, request.module.__name__})
