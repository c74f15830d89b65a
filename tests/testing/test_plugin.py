"""The plugin for pytest: its fixtures, as a user's tests take them."""

from collections.abc import Callable

import httpx
import pytest
from starlette.types import ASGIApp

from sse_asgi import EventSourceApp, Hub
from sse_asgi.testing import ClientFactory, LiveServer, RedisServer

pytest_plugins = ["pytester", "sse_asgi.testing.plugin"]


def test_a_client_for_an_application(sse_client: ClientFactory) -> None:
    """The factory gives clients whose applications have started."""
    hub = Hub()
    client = sse_client(EventSourceApp(hub), cookies={"name": "Ada"})
    with client.stream("/") as stream:
        client.call(hub.publish, "default", "hello")
        assert stream.next_event().data == "hello"


def test_a_server_for_an_application(sse_server: Callable[[ASGIApp], LiveServer]) -> None:
    """The factory starts a server for each application."""
    servers = [sse_server(EventSourceApp(Hub())) for _ in range(2)]
    assert [httpx.get(f"{server.url}/?poll=1").status_code for server in servers] == [200, 200]


def test_a_redis_server(redis_server: RedisServer) -> None:
    """It is a real one."""
    assert redis_server.url.startswith("redis://127.0.0.1:")


USER = """
import threading
import pytest
from sse_asgi import EventSourceApp, Hub

HUB = Hub()

def test_client(sse_client):
    sse_client(EventSourceApp(HUB))
    assert HUB.state == "up"

def test_server(sse_server):
    assert sse_server(EventSourceApp(Hub())).url.startswith("http://127.0.0.1:")
    assert "uvicorn of a test" in [thread.name for thread in threading.enumerate()]

def test_all_has_stopped():
    assert HUB.state == "closed"
    names = [thread.name for thread in threading.enumerate()]
    assert "uvicorn of a test" not in names

def test_redis(redis_server):
    assert redis_server.url == "redis://elsewhere"
"""


def test_the_fixtures_stop_what_they_start(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the test. A Redis that is named by the environment is taken as it is."""
    pytester.makepyfile(USER)
    monkeypatch.setenv("SSE_TEST_REDIS_URL", "redis://elsewhere")
    result = pytester.runpytest_inprocess("-p", "sse_asgi.testing.plugin", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=4)


def test_without_redis_a_test_fails_with_the_reason(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what to install: a skipped test would hide that nothing was tested."""
    pytester.makepyfile("def test_redis(redis_server): pass")
    monkeypatch.delenv("SSE_TEST_REDIS_URL", raising=False)
    monkeypatch.setenv("PATH", str(pytester.path))
    result = pytester.runpytest_inprocess("-p", "sse_asgi.testing.plugin", "-p", "no:cacheprovider")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["redis-server is not installed: *apt install redis-server*"])
