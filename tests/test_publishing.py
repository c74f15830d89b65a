"""Publishing over HTTP: who may, what bodies there are, what is answered, and that no body breaks it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Mount
from starlette.types import Message

from sse_asgi import BackendError, EventSourceApp, Hub, MemoryBackend, Pattern, PublishUnknownError
from sse_asgi._mount import publishing as publishing_module
from sse_asgi._mount.problem import problem
from sse_asgi._servers.shutdown import current_notice
from sse_asgi.testing import EventStreamClient

pytestmark = pytest.mark.anyio

JSON = "application/json"
TEXT = "text/plain"
FORM = "application/x-www-form-urlencoded"
PARTS = "multipart/form-data; boundary=limit"


def anybody(*_: Any) -> None:
    """Let everybody publish."""


@asynccontextmanager
async def mounted(hub: Hub | None = None, **options: Any) -> AsyncIterator[tuple[Hub, EventStreamClient]]:
    hub = hub or Hub()
    events = EventSourceApp(hub, **{"publish": anybody, **options})
    app = Starlette(routes=[Mount("/events", events)], lifespan=hub.lifespan)
    async with EventStreamClient(app, headers={"accept": "*/*"}) as client:
        yield hub, client


class Answered:
    """What a POST was answered."""

    def __init__(self, status: int, headers: Any, content: bytes) -> None:
        self.status = status
        self.headers = headers
        self.content = content
        self.json: Any = json.loads(content) if content else None


async def post(
    client: EventStreamClient, body: bytes | str = "x", kind: str = TEXT, query: str = "", **headers: str
) -> Answered:
    given = {"content-type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    sent = body.encode() if isinstance(body, str) else body
    async with client.stream(f"/events/{query}", method="POST", headers=given, body=sent) as answer:
        content = await answer.read()
        assert answer.complete
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert json.loads(content)["status"] == answer.status_code
        return Answered(answer.status_code, answer.headers, content)


async def kept(hub: Hub, *channels: str) -> list[tuple[str | None, str | None]]:
    return [(event.event, event.data) for event in await hub.history(*(channels or ("default",)))]


def form(*fields: tuple[str, str]) -> bytes:
    """Write a form in parts, as browsers do."""
    parts = (f'--limit\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields)
    return ("".join(parts) + "--limit--\r\n").encode()


# What is published


async def test_it_answers_with_the_id() -> None:
    """202 and the id of the event, as JSON that no cache keeps."""
    async with mounted() as (hub, client):
        answer = await post(client)
        [event] = await hub.history("default")
        assert (answer.status, answer.json) == (202, {"id": event.id})
        assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("application/json", "no-store")


async def test_without_history_there_is_no_id() -> None:
    """Null."""
    async with mounted(Hub(MemoryBackend(history_size=0))) as (_, client):
        assert (await post(client)).json == {"id": None}


async def test_a_reader_gets_it() -> None:
    """As any other event."""
    async with mounted() as (_, client):
        async with client.stream("/events/", headers={"accept": "text/event-stream"}) as stream:
            answer = await post(client, '{"n": 1}', JSON, "?event=count")
            event = await stream.next_event()
            assert (event.event, event.data, event.id) == ("count", '{"n":1}', answer.json["id"])


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        ("a text\nof two lines ", TEXT, (None, "a text\nof two lines ")),
        ("é", "Text/Plain; charset=UTF-8", (None, "é")),
        ('{"a": [1, null]}', JSON, (None, '{"a":[1,null]}')),
        ('"text"', JSON, (None, "text")),
        ("0", JSON, (None, "0")),
        ("false", JSON, (None, "false")),
        ("data=a+b%26c%C3%A9", FORM, (None, "a b&cé")),
        ("data=x&event=said&other=y", FORM, ("said", "x")),
        (form(("data", "é\nx"), ("other", "y")), PARTS, (None, "é\nx")),
        (form(("event", "said"), ("data", "x=1&y")), PARTS, ("said", "x=1&y")),
        (form(("data", "--limi\r\n\r\nx")), PARTS.replace("limit", '"limit"'), (None, "--limi\r\n\r\nx")),
    ],
)
async def test_bodies(body: bytes | str, kind: str, expected: tuple[str | None, str]) -> None:
    """A text and a JSON value are the data; a form has a field of it, and may name the type."""
    async with mounted() as (hub, client):
        assert (await post(client, body, kind)).status == 202
        assert await kept(hub) == [expected]


async def test_the_type_may_be_in_the_query() -> None:
    """Its first value; a form's own wins."""
    async with mounted() as (hub, client):
        await post(client, query="?event=a&event=b")
        await post(client, "data=x&event=c", FORM, "?event=a")
        assert await kept(hub) == [("a", "x"), ("c", "x")]


async def test_channels_are_those_of_the_query_and_the_form() -> None:
    """All of them, in one event."""
    async with mounted(channels=["a", "b", "c"]) as (hub, client):
        ids = {(await post(client, "data=x&channel=b&channel=c", FORM, "?channel=a")).json["id"]}
        for name in "abc":
            ids |= {event.id for event in await hub.history(name)}
        assert len(ids) == 1


async def test_an_idempotency_key_publishes_once() -> None:
    """The second request gets the first one's id; another channel's key is another."""
    async with mounted(channels="*") as (hub, client):
        ids = [(await post(client, idempotency_key="k")).json["id"] for _ in range(2)]
        other = (await post(client, query="?channel=other", idempotency_key="k")).json["id"]
        assert ids[0] == ids[1] != other
        assert len(await kept(hub)) == 1


@pytest.mark.parametrize(("body", "query"), [("mine", ""), ("x", "?event=mine")])
async def test_an_idempotency_key_is_that_of_one_event(body: str, query: str) -> None:
    """Nobody hides another client's event by having used its key before."""
    async with mounted() as (hub, client):
        first = (await post(client, "x", idempotency_key="1")).json["id"]
        assert (await post(client, body, TEXT, query, idempotency_key="1")).json["id"] != first
        assert len(await kept(hub)) == 2


# Who may


async def test_publishing_is_off_without_a_function() -> None:
    """405, and the methods that there are."""
    async with mounted(publish=None) as (_, client):
        async with client.stream("/events/", method="POST") as answer:
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_other_methods_are_405_with_post_among_the_allowed() -> None:
    """And the preflight tells so, with the header that publishers send."""
    async with mounted(cors_origins="https://other.example") as (_, client):
        async with client.stream("/events/", method="PUT") as answer:
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
        async with client.stream("/events/", method="OPTIONS", headers={"origin": "https://other.example"}) as answer:
            assert answer.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS, POST"
            assert "Idempotency-Key" in answer.headers["access-control-allow-headers"]


async def test_the_function_must_be_one() -> None:
    """Not True."""
    with pytest.raises(TypeError, match="publish must be a function"):
        EventSourceApp(Hub(), publish=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_the_function_decides(kind: str) -> None:
    """From the request and the channels; its refusal is a problem with its headers, and nothing is published."""

    def check(request: Request, channels: tuple[str, ...]) -> None:
        if request.headers.get("authorization") != "Bearer secret":
            raise HTTPException(401, f"no key for {channels[0]}", {"WWW-Authenticate": "Bearer"})

    async def check_later(request: Request, channels: tuple[str, ...]) -> None:
        check(request, channels)

    async with mounted(publish=check if kind == "sync" else check_later) as (hub, client):
        answer = await post(client)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.json == {
            "type": "about:blank",
            "title": "Unauthorized",
            "status": 401,
            "detail": "no key for default",
        }
        assert await kept(hub) == []
        assert (await post(client, authorization="Bearer secret")).status == 202


async def test_the_function_may_read_the_body() -> None:
    """To check a signature of it."""
    seen: list[Any] = []

    async def check(request: Request, _: Any) -> None:
        seen.append(await request.body())
        seen.append(await request.is_disconnected())

    async with mounted(publish=check) as (_, client):
        await post(client, "signed")
    assert seen == [b"signed", True]


async def test_the_function_that_chooses_the_channels_may_read_the_body_too() -> None:
    """Both of them may."""
    seen: list[bytes] = []

    async def choose(request: Request) -> str:
        return str((await request.json())["room"])

    async def check(request: Request, _: Any) -> None:
        seen.append(await request.body())

    async with mounted(channels=choose, publish=check) as (hub, client):
        assert (await post(client, '{"room":"a"}', JSON)).status == 202
        assert await kept(hub, "a") == [(None, '{"room":"a"}')]
    assert seen == [b'{"room":"a"}']


@pytest.mark.parametrize(
    ("options", "query", "status"),
    [
        ({}, "?channel=any", 202),
        ({}, "?channel=sse.presence", 403),
        ({"channels": ["a"]}, "?channel=a", 202),
        ({"channels": ["a"]}, "?channel=b", 403),
        ({"channels": "*"}, "?channel=sse.x", 403),
        ({"channels": "*"}, "?channel=", 400),
        ({"channels": "*", "max_channels": 1}, "?channel=a&channel=b", 400),
        ({"channels": lambda _: []}, "", 403),
        ({"channels": lambda _: "mine"}, "?channel=other", 202),
    ],
)
async def test_channels_are_those_that_are_served(options: dict[str, Any], query: str, status: int) -> None:
    """Without `channels` any that the function lets through; the library's own never."""
    async with mounted(**options) as (_, client):
        assert (await post(client, query=query)).status == status


async def test_of_several_channels_one_publishes_to_those_that_one_names() -> None:
    """400 otherwise, and not all of them; a function that chooses several means it."""
    async with mounted(channels=["a", "b", "room:*"]) as (hub, client):
        assert (await post(client)).status == 400
        assert await kept(hub, "a", "b") == []
        assert (await post(client, "data=x&channel=a&channel=b", FORM)).status == 202
    async with mounted(channels=lambda _: ["a", "b"]) as (_, client):
        assert (await post(client)).status == 202


async def test_a_pattern_is_not_published_to() -> None:
    """It gathers what is published to the channels that match, each of which may be named."""
    async with mounted(Hub(patterns=["orders.*"]), channels=["orders.*"]) as (hub, client):
        assert (await post(client, query="?channel=orders.*")).status == 403
        assert (await post(client)).status == 403
        assert (await post(client, query="?channel=orders.1")).status == 202
        assert await kept(hub, Pattern("orders.*")) == [(None, "x")]


async def test_a_foreign_origin_publishes_nothing() -> None:
    """A listed one does, and can read every answer."""
    async with mounted(cors_origins="https://other.example") as (hub, client):
        assert (await post(client, origin="https://evil.example")).status == 403
        assert await kept(hub) == []
        for body, status in (("x", 202), ("", 400)):
            answer = await post(client, body, origin="https://other.example")
            assert answer.status == status
            assert answer.headers["access-control-allow-origin"] == "https://other.example"


async def test_any_origin_may_read_and_not_publish() -> None:
    """A browser sends a form of any page, with the visitor's cookies; the server's own pages are not foreign."""
    async with mounted(cors_origins="*") as (hub, client):
        answer = await post(client, origin="https://evil.example")
        assert (answer.status, "access-control-allow-origin" in answer.headers) == (403, False)
        ask = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        async with client.stream("/events/", method="OPTIONS", headers=ask) as preflight:
            assert preflight.status_code == 403
        ask["Access-Control-Request-Method"] = "GET"
        async with client.stream("/events/", method="OPTIONS", headers=ask) as preflight:
            assert preflight.status_code == 204
        assert await kept(hub) == []
        assert (await post(client, origin="http://testserver")).status == 202


# What is refused


@pytest.mark.parametrize(
    ("body", "kind", "hint"),
    [
        ("", TEXT, "no data"),
        (b"\xff", TEXT, "utf-8"),
        ("", JSON, "Expecting value"),
        ("{", JSON, "Expecting"),
        ("null", JSON, "no data"),
        ('""', JSON, "no data"),
        ("NaN", JSON, "not JSON"),
        ('"\\ud800"', JSON, "surrogate"),
        (b'"\xff"', JSON, "utf-8"),
        ("[" * 60_000, JSON, "too deeply"),
        ("9" * 10_000, JSON, "digits"),
        ("x", FORM, "one field `data`"),
        ("data=1&data=2", FORM, "one field `data`"),
        ("data=1&event=2&event=3", FORM, "at most one `event`"),
        ("data=%ff", FORM, "utf-8"),
        ("data=1&event=sse.gap", FORM, "the library's own"),
        ("data=1&event=a%0Ab", FORM, "line ends"),
        ("data=1&channel=a%0Ab", FORM, "control characters"),
        ("x", "multipart/form-data", "no boundary"),
        ("x", PARTS, "not complete"),
        (form(("data", "x"))[:-5], PARTS, "not complete"),
        (form(("other", "x")), PARTS, "one field `data`"),
        (form(("data", "x")).replace(b"x", b"\xff"), PARTS, "utf-8"),
        (form(("data", "x")).replace(b"\r\n\r\n", b";" * 1024 + b"\r\n\r\n"), PARTS, "1024 bytes"),
        (form(*[("other", "")] * 100, ("data", "x")), PARTS, "100 fields"),
        (b"--limit\r\n" * 6_000, PARTS, "100 fields"),
        ("other&" * 100 + "data=x", FORM, "fields"),
    ],
)
async def test_what_is_no_event_is_400(body: bytes | str, kind: str, hint: str) -> None:
    """With what is wrong, and nothing is published."""
    async with mounted(channels="*") as (hub, client):
        answer = await post(client, body, kind)
        assert answer.status == 400
        assert hint in answer.json["detail"]
        assert await kept(hub) == []


@pytest.mark.parametrize("query", ["?event=sse.gap", "?event=", "?event=a%0Adata:b"])
async def test_a_bad_type_is_400(query: str) -> None:
    """Nobody writes the library's own events, or another field."""
    async with mounted() as (hub, client):
        assert (await post(client, query=query)).status == 400
        assert await kept(hub) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"kind": "text/html"},
        {"kind": ""},
        {"kind": "application/problem+json"},
        {"kind": "text/plain; charset=latin-1"},
        {"content_encoding": "gzip"},
    ],
)
async def test_other_bodies_are_415(headers: dict[str, str]) -> None:
    """With what there is."""
    async with mounted() as (_, client):
        assert (await post(client, **headers)).status == 415


@pytest.mark.parametrize(
    "kind",
    [
        f"{JSON}; x*=a; x*0=b",
        f"{JSON}; x*{'1' * 200}=a",
        f"{JSON}; charset*=utf-8''x",
        f'{JSON}; x="a; charset=latin-1"',
        f"{JSON};;; ; charset=utf-8;charset=latin-1",
    ],
)
async def test_parameters_that_mean_nothing_here_are_not_read(kind: str) -> None:
    """Continued, encoded or quoted ones, however odd they are; of two with one name the first counts."""
    async with mounted() as (hub, client):
        assert (await post(client, "1", kind)).status == 202
        assert await kept(hub) == [(None, "1")]


async def test_a_long_content_type_is_415() -> None:
    """It is not even read, because whoever may not publish sends it as well."""
    async with mounted() as (_, client):
        assert (await post(client, "1", JSON + ";" * 60_000)).status == 415


@pytest.mark.parametrize("odd", ["; x*=a; x*0=b", f"; x*{'1' * 900}=a", "; x=" + '"' * 900, ";" * 900])
async def test_a_field_has_its_name_whatever_else_is_said_of_it(odd: str) -> None:
    """In whatever case, and among other headers."""
    field = f'--limit\r\nX: y\r\ncontent-DISPOSITION: form-data; name="data"{odd}\r\n\r\nx\r\n--limit--\r\n'
    async with mounted() as (hub, client):
        assert (await post(client, field, PARTS)).status == 202
        assert await kept(hub) == [(None, "x")]


async def test_no_content_type_is_415() -> None:
    """Nothing is guessed."""
    async with mounted() as (_, client), client.stream("/events/", method="POST", body=b"x") as answer:
        assert answer.status_code == 415
        assert b"application/json" in await answer.read()


async def sent(client_app: EventSourceApp, messages: list[Message], **headers: str) -> tuple[int, list[Message]]:
    """Post what comes in these messages; return the status, and what was not read."""
    answers: list[Message] = []

    async def receive() -> Message:
        if not messages:
            await anyio.sleep_forever()
        return messages.pop(0)

    async def send(message: Message) -> None:
        answers.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "headers": [(b"content-type", b"text/plain"), *raw],
    }
    with anyio.fail_after(5):
        await client_app(scope, receive, send)
    return answers[0]["status"], messages


def piece(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_has_at_least_a_byte() -> None:
    """Refused where the app is made."""
    with pytest.raises(ValueError, match="max_body_bytes"):
        EventSourceApp(Hub(), max_body_bytes=0)


@pytest.mark.parametrize("length", ["11", "9" * 5000])
async def test_what_says_that_it_is_too_large_is_not_read(length: str) -> None:
    """413 by the Content-Length, at once."""
    async with Hub() as hub:
        app = EventSourceApp(hub, publish=anybody, max_body_bytes=10)
        assert await sent(app, [piece(b"x")], content_length=length) == (413, [piece(b"x")])


async def test_what_turns_out_to_be_too_large_is_not_read_further() -> None:
    """413 while reading; as much as is allowed is published."""
    async with Hub() as hub:
        app = EventSourceApp(hub, publish=anybody, max_body_bytes=10)
        assert await sent(app, [piece(b"12345"), piece(b"678901"), piece(b"2")]) == (413, [piece(b"2")])
        assert await kept(hub) == []
        assert await sent(app, [piece(b"12345"), piece(b"67890", more=False)], content_length="10") == (202, [])
        assert await kept(hub) == [(None, "1234567890")]


async def test_a_body_that_does_not_come_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is waited for without an end."""
    monkeypatch.setattr(publishing_module, "BODY_SECONDS", 0.01)
    async with Hub() as hub:
        assert (await sent(EventSourceApp(hub, publish=anybody), [piece(b"x")]))[0] == 408
        assert await kept(hub) == []


async def test_the_server_does_not_wait_for_a_body_when_it_stops() -> None:
    """503 after a moment, in which what is under way is still published; the notice is let go."""
    async with Hub() as hub:
        app = EventSourceApp(hub, publish=anybody)
        notice = current_notice()
        notice.watch()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_check_stopped, app)
                while not notice.listeners:
                    await anyio.sleep(0.001)
                notice.hear()
            assert await kept(hub) == []
            assert (await sent(app, [piece(b"x", more=False)]))[0] == 202
        finally:
            notice.heard = False
            notice.unwatch()
        assert notice.listeners == 0


async def _check_stopped(app: EventSourceApp) -> None:
    assert (await sent(app, [piece(b"x")]))[0] == 503


async def test_half_a_body_is_not_published() -> None:
    """The client has gone."""
    async with Hub() as hub:
        app = EventSourceApp(hub, publish=anybody)
        assert (await sent(app, [piece(b"x"), {"type": "http.disconnect"}]))[0] == 400
        assert await kept(hub) == []


@pytest.mark.parametrize(
    ("error", "key", "hint"),
    [
        (BackendError("away"), "", "was not published"),
        (PublishUnknownError("lost"), "k", "the same Idempotency-Key"),
        (PublishUnknownError("lost"), "", "give an Idempotency-Key"),
    ],
)
async def test_a_backend_that_fails_is_503(error: Exception, key: str, hint: str) -> None:
    """With what is known, and when to try again."""

    class Broken(MemoryBackend):
        async def publish(self, *_: Any, **options: Any) -> Any:
            raise error

    async with mounted(Hub(Broken())) as (_, client):
        answer = await post(client, idempotency_key=key)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert hint in answer.json["detail"]
        assert str(error) not in answer.json["detail"]


@pytest.mark.parametrize(("status", "title"), [(403, "Forbidden"), (499, "Error")])
async def test_a_problem_says_what_it_is(status: int, title: str) -> None:
    """In the words of the standard where there are any."""
    assert json.loads(bytes(problem(status, "why").body))["title"] == title


async def test_an_answer_without_a_body_has_none() -> None:
    """A function may refuse with 204."""

    def refuse(*_: Any) -> None:
        raise HTTPException(204)

    async with mounted(publish=refuse) as (_, client):
        answer = await post(client)
        assert (answer.status, answer.content) == (204, b"")


# Whatever comes

KINDS = st.sampled_from([JSON, TEXT, FORM, PARTS, "multipart/form-data", "text/html"]) | st.text(
    st.characters(min_codepoint=32, max_codepoint=126), max_size=30
)
PIECES = st.sampled_from(
    [b"--limit", b"\r\n", b"--", b'Content-Disposition: form-data; name="data"', b"data=", b"&", b"event=", b"{", b'"']
)
BODIES = (
    st.binary(max_size=200)
    | st.lists(PIECES | st.binary(max_size=5), max_size=20).map(b"".join)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=10,
    ).map(lambda value: json.dumps(value).encode())
)
QUERIES = st.binary(max_size=40) | st.sampled_from([b"", b"event=x", b"channel=a", b"channel=%ff&event=%00", b"&=&;"])
HEADERS = st.lists(
    st.tuples(st.sampled_from([b"idempotency-key", b"content-length", b"origin", b"host"]), st.binary(max_size=20)),
    max_size=3,
)


@given(kind=KINDS, body=BODIES, query=QUERIES, headers=HEADERS, cut=st.integers(0, 20))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_request_breaks_it(
    kind: str, body: bytes, query: bytes, headers: list[tuple[bytes, bytes]], cut: int
) -> None:
    """It is published, or refused with a problem that the client can do something about; never an error of ours."""
    answers: list[Message] = []
    messages = [piece(body[:cut]), piece(body[cut:], more=False)]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        answers.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": query,
        "headers": [(b"content-type", kind.encode()), *headers],
    }
    async with Hub() as hub:
        await EventSourceApp(hub, channels="*", publish=anybody)(scope, receive, send)
    answer = json.loads(answers[1]["body"])
    assert answers[0]["status"] in (202, 400, 403, 413, 415)
    assert answers[0]["status"] == 202 or (answer["status"] == answers[0]["status"] and answer["detail"])
