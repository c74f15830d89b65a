"""Loads examples as modules, and makes clients of them."""

import importlib.util
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from sse_asgi.testing import EventStreamClient

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = (
    "publish_subscribe",
    "who_visits",
    "login_chat",
    "mounted_stream",
    "dashboard/dashboard",
    "progress/progress",
    "llm_chat/app",
)

Load = Callable[[str], Any]


class Served(NamedTuple):
    """The clients of a running example: one for streams, and one for requests that end."""

    streams: EventStreamClient
    http: httpx.AsyncClient


def load_example(name: str) -> Any:
    """Run an example's file, and return it as a new module with a hub of its own."""
    path = EXAMPLES / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def load() -> Load:
    """Return load_example."""
    return load_example


@asynccontextmanager
async def served(example: Any) -> AsyncIterator[Served]:
    """Run an example's application, from its startup to its shutdown."""
    transport = httpx.ASGITransport(example.app)
    async with (
        EventStreamClient(example.app) as streams,
        httpx.AsyncClient(transport=transport, base_url="http://testserver") as http,
    ):
        yield Served(streams, http)


def cookies(http: httpx.AsyncClient) -> dict[str, str]:
    """Return the header in which a browser sends the cookies it has."""
    return {"cookie": "; ".join(f"{name}={value}" for name, value in http.cookies.items())}
