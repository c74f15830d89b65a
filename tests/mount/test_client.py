"""The page's client as EventSourceApp sends it; tests/browser/test_client.py is about what it does."""

import gzip
import json
import tomllib

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from modules import SOURCE, TESTS
from mount.helpers import mounted, status

pytestmark = pytest.mark.anyio

FOLDER = SOURCE / "client"
SCRIPT = FOLDER / "sse-asgi.js"


async def test_it_is_a_module_of_javascript() -> None:
    """The type is one that browsers run; caches ask each time whether their copy is current."""
    async with mounted() as (_, client), client.stream("/events/client.js") as answer:
        assert await answer.read() == SCRIPT.read_bytes()
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.headers["content-length"] == str(SCRIPT.stat().st_size)
        assert answer.headers["cache-control"] == "no-cache"


async def test_a_head_has_the_headers_alone() -> None:
    """They are those of a GET."""
    async with mounted() as (_, client):
        async with client.stream("/events/client.js") as got, client.stream("/events/client.js", method="HEAD") as head:
            assert await head.read() == b""
            assert head.headers == got.headers


@pytest.mark.parametrize(("tags", "expected"), [("{}", 304), ('"other", W/{}', 304), ("*", 304), ('"other"', 200)])
async def test_a_current_copy_is_not_sent_again(tags: str, expected: int) -> None:
    """The answer to a tag that a cache has is 304, without a body."""
    async with mounted() as (_, client):
        async with client.stream("/events/client.js") as answer:
            tag = answer.headers["etag"]
        headers = {"if-none-match": tags.format(tag)}
        async with client.stream("/events/client.js", headers=headers) as answer:
            body = await answer.read()
            assert (answer.status_code, body == b"") == (expected, expected == 304)
            assert answer.headers["etag"] == tag


async def test_it_needs_no_permission_and_subscribes_nothing() -> None:
    """The page reads it before the user has signed in; `?channel=` means nothing there."""

    def refuse(_request: Request, _channels: tuple[str, ...]) -> None:
        raise HTTPException(401)

    async with mounted(authorize=refuse) as (hub, client):
        assert await status(client) == 401
        assert await status(client, "client.js?channel=x&poll=1") == 200
        assert not hub.subscriptions()
        async with client.stream("/events/client.js", method="POST") as answer:
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_every_page_may_import_it() -> None:
    """Its text is public; what it reads then is checked as ever."""
    headers = {"origin": "https://other.example"}
    async with mounted() as (_, client):
        async with client.stream("/events/client.js", headers=headers) as answer:
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
        assert await status(client, headers=headers) == 403


# The files


def test_it_is_small() -> None:
    """Under 3 KB gzipped, as servers and proxies send it."""
    assert len(gzip.compress(SCRIPT.read_bytes(), 9)) < 3 * 1024


def test_it_shows_text_as_text() -> None:
    """It makes no HTML of what it gets, runs no text, and needs no other file."""
    text = SCRIPT.read_text()
    assert not [word for word in ("innerHTML", "eval(", "Function(", "import ", "document.write") if word in text]


def test_the_package_of_npm_is_the_same_version() -> None:
    """Its version is that of the Python package, and it has no dependencies."""
    package = json.loads((FOLDER / "package.json").read_text())
    project = tomllib.loads((TESTS.parent / "pyproject.toml").read_text())["project"]
    assert (package["version"], package["license"]) == (project["version"], project["license"])
    assert not {"dependencies", "peerDependencies", "scripts"} & package.keys()
    assert {*package["files"], "README.md", "package.json"} == {path.name for path in FOLDER.iterdir()}
