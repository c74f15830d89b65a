"""granian: its workers are counted on the stack."""

from types import SimpleNamespace
from typing import Any

import pytest

from sse_asgi._servers.granian import Granian
from sse_asgi._servers.workers import worker_count

GRANIAN = """
def _spawn_workers(self, count):
    return _spawn_asgi_worker(2, count)

def _spawn_asgi_worker(worker_id, count):
    return run(count)

def run(count):
    return count()
"""


@pytest.fixture
def granian() -> dict[str, Any]:
    """Return functions with the names of granian's, as they call each other in a worker."""
    functions: dict[str, Any] = {"__name__": "granian.server.mp"}
    exec(GRANIAN, functions)
    return functions


def test_a_forked_worker_has_the_server_on_its_stack(granian: dict[str, Any]) -> None:
    """The server has the configured number."""
    assert granian["_spawn_workers"](SimpleNamespace(workers=4), Granian().workers) == 4


def test_a_spawned_worker_knows_its_number(granian: dict[str, Any]) -> None:
    """The number of the last worker is their count."""
    assert granian["_spawn_asgi_worker"](3, Granian().workers) == 3


def test_elsewhere_the_number_is_unknown() -> None:
    """Granian is not on the stack of this test."""
    assert Granian().workers() == 0


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_count_is_that_of_the_application(granian: dict[str, Any]) -> None:
    """The application asks for the count of any server, and gets granian's."""
    assert granian["_spawn_workers"](SimpleNamespace(workers=4), worker_count) == 4
    assert granian["_spawn_asgi_worker"](3, worker_count) == 3


def test_a_stream_of_http2_is_reset_alone() -> None:
    """The module of the object whose method is `receive` tells granian from other servers."""

    class Protocol:
        async def receive(self) -> Any:
            """Receive nothing."""

    assert Granian().breaks_off({}, Protocol().receive) is None
    Protocol.__module__ = "granian._granian"
    assert Granian().breaks_off({}, Protocol().receive) is True
