"""A stream that is cut off, behind real proxies: which clients see that."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxies.peers import CONFIGURATIONS, UPSTREAMS, Haproxy, Nginx, Proxy, for_every_path, location
from servers.clients import COMPLETE, CUT_OFF, curl
from servers.kinds import UVICORN
from servers.processes import Server


@pytest.fixture(scope="module", params=UPSTREAMS)
def http(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def upstream(http: str) -> Iterator[Server]:
    command = tuple(word.replace("app:app", "cut_app:app") for word in UVICORN)
    server = Server.start(command, "--http", http)
    yield server
    server.remove()


@pytest.mark.parametrize("name", ["default", "keep-alive", "HAProxy"])
def test_http11_to_the_application_shows_the_break(name: str, http: str, upstream: Server, tmp_path: Path) -> None:
    """By default nginx speaks HTTP/1.0, where h11 ends a body with the connection, so a break looks like the end."""
    proxy: Proxy
    if name == "HAProxy":
        proxy = Haproxy(tmp_path, for_every_path(upstream.port))
    else:
        options, own = CONFIGURATIONS[name]
        proxy = Nginx(tmp_path, upstream.port, locations=location(own), options=options)
    hidden = (name, http) == ("default", "h11")
    with proxy:
        url = f"http://127.0.0.1:{proxy.port}/ours"
        assert curl(f"{url}?max_lifetime=0.3", "POST") == (COMPLETE if hidden else CUT_OFF)
        assert curl(f"{url}?count=2", "POST") == COMPLETE
