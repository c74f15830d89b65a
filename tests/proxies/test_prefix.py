"""A stream below a prefix that a real proxy strips, for each way to tell the application about the prefix."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxies.conftest import Start
from proxies.peers import Haproxy, Nginx, Proxy, documented_haproxy, publish
from servers.processes import Server

WAYS = {"uvicorn --root-path": (("--root-path", "/api"), ""), "FastAPI(root_path=)": ((), "/api")}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def upstream(start: Start, way: str) -> Server:
    options, root_path = WAYS[way]
    return start(*options, app="proxies.prefixed:app", ROOT_PATH=root_path)


@pytest.fixture(params=["nginx", "HAProxy"])
def proxy(request: pytest.FixtureRequest, upstream: Server, tmp_path: Path) -> Iterator[Proxy]:
    """Run a proxy that strips the prefix as docs/proxies.md says."""
    proxy: Proxy
    if request.param == "nginx":
        pass_on = f"proxy_pass http://127.0.0.1:{upstream.port}/; proxy_set_header Host $http_host;"
        proxy = Nginx(tmp_path, upstream.port, locations=f"location /api/ {{ {pass_on} }}")
    else:
        text = documented_haproxy(upstream.port).replace("/events/", "/api/events/")
        strip = "default_backend app\n    http-request replace-path /api/(.*) /\\1\n"
        proxy = Haproxy(tmp_path, text.replace("default_backend app\n", strip))
    with proxy:
        yield proxy


def test_streams_work_below_the_prefix(proxy: Proxy, upstream: Server) -> None:
    """The mounted app finds its own path, for the stream and for its other resources."""
    with proxy.get("/api/events/") as reader:
        assert reader.status == 200
        reader.until(b"\n\n")
        assert publish(upstream.port, "below")
        reader.until(b"data: below\n\n")
    with proxy.get("/api/events/stats") as stats:
        assert json.loads(stats.rest())["hub"] == "up"
    with proxy.get("/api/events/nothing") as nothing:
        assert nothing.status == 404


def test_urls_have_the_prefix(proxy: Proxy) -> None:
    """A page needs the address that its browser can use."""
    with proxy.get("/api/address") as reader:
        assert json.loads(reader.rest()).endswith("/api/events/")


@pytest.mark.parametrize("way", ["uvicorn --root-path"], indirect=True)
def test_a_missing_slash_is_put_behind_the_prefix(proxy: Proxy) -> None:
    """Starlette redirects to a path with the prefix."""
    with proxy.get("/api/events") as reader:
        assert (reader.status, reader.headers["Location"].endswith(f":{proxy.port}/api/events/")) == (307, True)
