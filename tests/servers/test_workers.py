"""Counting the workers: the running server's configuration decides, then the environment, never a command line."""

import pytest
import uvicorn

from servers.local import Unstarted, idle_app, in_task
from sse_asgi._servers.workers import worker_count

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


@pytest.mark.parametrize(("asked_for", "count"), [("4", 4), ("1", 1), ("", 1), ("many", 1)])
async def test_the_environment_asks_for_several(monkeypatch: pytest.MonkeyPatch, asked_for: str, count: int) -> None:
    """WEB_CONCURRENCY counts where no server is found."""
    monkeypatch.setenv("WEB_CONCURRENCY", asked_for)
    assert worker_count() == count


async def test_an_unknown_number_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server and without the variable, there is this process only."""
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    assert worker_count() == 1


async def test_a_running_server_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment does not count then."""
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    async with in_task(Unstarted(uvicorn.Config(idle_app, workers=2, log_level="error")).serve):
        assert worker_count() == 2


async def test_a_command_line_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is another program's, and only that program knows its meaning."""
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    monkeypatch.setattr("sys.argv", ["/bin/gunicorn", "-w", "4", "app:app"])
    assert worker_count() == 1
