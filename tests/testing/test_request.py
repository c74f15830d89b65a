"""The request that an application receives from a test."""

from typing import Any

import anyio
import pytest

from sse_asgi.testing import EventStreamClient
from streaming_apps import Probe

pytestmark = pytest.mark.anyio


async def seen_by(client_headers: dict[str, str] | None = None, url: str = "/", **request: Any) -> Probe:
    """Make a request, and return the application that recorded it."""
    probe = Probe()
    async with EventStreamClient(probe, headers=client_headers).stream(url, **request):
        await anyio.wait_all_tasks_blocked()
    return probe


def header(probe: Probe, name: bytes) -> list[bytes]:
    return [value for key, value in probe.scope["headers"] if key == name]


async def test_a_request_is_that_of_a_browser() -> None:
    """Without options, the request is a GET of an event stream from testserver."""
    probe = await seen_by()
    assert (probe.scope["type"], probe.scope["method"], probe.scope["path"]) == ("http", "GET", "/")
    assert (header(probe, b"accept"), header(probe, b"host")) == ([b"text/event-stream"], [b"testserver"])
    assert header(probe, b"cache-control") == [b"no-cache"]
    assert header(probe, b"last-event-id") == []
    assert probe.received[0] == {"type": "http.request", "body": b"", "more_body": False}


async def test_method_and_body_are_sent() -> None:
    """The request has the given method and the given bytes."""
    probe = await seen_by(method="POST", body=b"payload")
    assert probe.scope["method"] == "POST"
    assert probe.received[0]["body"] == b"payload"


async def test_headers_of_the_request_win_over_the_clients() -> None:
    """Headers of the client and of the request are sent, each name once."""
    probe = await seen_by({"Accept": "a", "x-client": "c"}, headers={"accept": "b", "X-Request": "r"})
    assert (header(probe, b"accept"), header(probe, b"x-client")) == ([b"b"], [b"c"])
    assert header(probe, b"x-request") == [b"r"]


@pytest.mark.parametrize("last_event_id", ["7", "", "\N{LATIN SMALL LETTER E WITH ACUTE}"])
async def test_the_last_event_id_is_sent_as_its_header(last_event_id: str) -> None:
    """The header is UTF-8, as browsers send it."""
    probe = await seen_by(last_event_id=last_event_id)
    assert header(probe, b"last-event-id") == [last_event_id.encode()]


@pytest.mark.parametrize(
    ("url", "params", "query"),
    [
        ("/", {"a": True, "b": None, "c": 1.5, "d": [False, 2]}, b"a=true&b=&c=1.5&d=false&d=2"),
        ("/", [("a", "1"), ("b", 2), ("a", "3")], b"a=1&b=2&a=3"),
        ("/", None, b""),
        ("/?a=1", None, b"a=1"),
        ("/", {"a": "1"}, b"a=1"),
        ("/?a=1", {"b": ["2", "3"], "c": "x y&z"}, b"a=1&b=2&b=3&c=x+y%26z"),
    ],
)
async def test_params_are_added_to_the_query(url: str, params: Any, query: bytes) -> None:
    """The query of the URL comes first."""
    assert (await seen_by(url=url, params=params)).scope["query_string"] == query


async def test_cookies_are_one_header() -> None:
    """A request without cookies has none."""
    assert header(await seen_by(cookies={"a": "1", "b": "2"}), b"cookie") == [b"a=1; b=2"]
    assert header(await seen_by(), b"cookie") == []


async def test_the_path_is_decoded_and_the_raw_path_is_not() -> None:
    """The ASGI specification says so of percent-encoded paths."""
    probe = await seen_by(url="/a%20b/%C3%A9?x=%20")
    assert probe.scope["path"] == "/a b/\N{LATIN SMALL LETTER E WITH ACUTE}"
    assert probe.scope["raw_path"] == b"/a%20b/%C3%A9"


async def test_the_scope_can_be_overridden() -> None:
    """Other keyword arguments replace keys of the scope."""
    probe = await seen_by(root_path="/prefix", scheme="https")
    assert (probe.scope["root_path"], probe.scope["scheme"]) == ("/prefix", "https")


async def test_json_is_sent_as_the_body() -> None:
    """The body is JSON, and the Content-Type says so unless a header has another one."""
    probe = await seen_by(method="POST", json={"a": [1, "é"]})
    assert probe.received[0]["body"] == '{"a":[1,"é"]}'.encode()
    assert header(probe, b"content-type") == [b"application/json"]
    probe = await seen_by(method="POST", json=[], headers={"Content-Type": "application/x-json"})
    assert (probe.received[0]["body"], header(probe, b"content-type")) == (b"[]", [b"application/x-json"])


async def test_data_is_sent_as_a_form() -> None:
    """The fields are written as a browser writes a form, and a list is a field that is repeated."""
    probe = await seen_by(method="POST", data={"a": "x y&z", "b": ["1", "2"], "c": 3})
    assert probe.received[0]["body"] == b"a=x+y%26z&b=1&b=2&c=3"
    assert header(probe, b"content-type") == [b"application/x-www-form-urlencoded"]


async def test_no_body_is_the_same_as_none() -> None:
    """None leaves an option out, as in httpx."""
    probe = await seen_by(json=None, data=None, params=None, headers=None, cookies=None, last_event_id=None)
    assert (probe.received[0]["body"], header(probe, b"content-type")) == (b"", [])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"body": b"x", "json": {}}, "body= and json="),
        ({"json": 0, "data": {"a": "b"}}, "json= and data="),
        ({"body": b"x", "json": 1, "data": {"a": "b"}}, "body= and json= and data="),
    ],
)
async def test_a_request_has_one_body(options: Any, named: str) -> None:
    """Two of body=, json= and data= are a TypeError that names them."""
    with pytest.raises(TypeError, match=rf"^a request has one body \(got {named}\): give one of them"):
        await seen_by(**options)


async def test_data_must_be_fields() -> None:
    """Bytes are a TypeError that says where they belong."""
    with pytest.raises(TypeError, match=r"^data must be the fields of a form \(got bytes\): .*as body="):
        await seen_by(data=b"text")


@pytest.mark.parametrize(
    ("option", "advice"),
    [
        ("path_parms", r"did you mean path_params=\?"),
        ("wait", "known: app, .*body, .*json, .*"),
        ("content", r"did you mean body=\?"),
        ("query", r"did you mean params=\?"),
        ("cookis", r"did you mean cookies=\?"),
        ("metod", r"did you mean method=\?"),
        ("auth", r"give headers="),
        ("follow_redirects", r"a redirect is an answer like any other"),
        ("files", r"give the encoded form as body="),
        ("root_pth", r"did you mean root_path=\?"),
        ("jsn", r"did you mean json=\?"),
        ("timeout", r"give it to next_event\(\), read\(\) or received\(\)"),
    ],
)
async def test_unknown_options_are_refused(option: str, advice: str) -> None:
    """A TypeError names the option, and then the option that may be meant, or all options."""
    options: dict[str, Any] = {option: "x"}
    with pytest.raises(TypeError, match=f"EventStreamClient.stream has no option {option}=: {advice}"):
        await seen_by(**options)


async def test_a_body_must_be_bytes() -> None:
    """A str is a TypeError that says what to do."""
    with pytest.raises(TypeError, match=r"^body must be bytes \(got str\): encode it, or give json= or data= instead"):
        await seen_by(body="text")
