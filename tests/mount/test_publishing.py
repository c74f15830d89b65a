"""Publishing over HTTP: access, channels, ids, and bodies that are too large or too slow."""

from typing import Any

import anyio
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from mount.posts import FORM, JSON, TEXT, allow, kept, piece, post, posted, sent
from sse_asgi import (
    BackendError,
    EventSourceApp,
    Hub,
    MemoryBackend,
    Pattern,
    PublishUnknownError,
)
from sse_asgi._mount import publishing as publishing_module
from sse_asgi._servers.shutdown import current_notice

pytestmark = pytest.mark.anyio


async def test_it_answers_with_the_id() -> None:
    """The answer is 202 and the id of the event, as JSON that is not cached."""
    async with posted() as (hub, client):
        answer = await post(client)
        [event] = await hub.history("default")
        assert (answer.status, answer.json) == (202, {"id": event.id})
        assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("application/json", "no-store")


async def test_without_history_there_is_no_id() -> None:
    """The id is null."""
    async with posted(Hub(MemoryBackend(history_size=0))) as (_, client):
        assert (await post(client)).json == {"id": None}


async def test_a_reader_gets_it() -> None:
    """It is an event like every other."""
    async with posted() as (_, client):
        async with client.stream("/events/", headers={"accept": "text/event-stream"}) as stream:
            answer = await post(client, '{"n": 1}', JSON, "?event=count")
            event = await stream.next_event()
            assert (event.event, event.data, event.id) == ("count", '{"n":1}', answer.json["id"])


async def test_the_type_may_be_in_the_query() -> None:
    """Its first value counts; the type in a form wins."""
    async with posted() as (hub, client):
        await post(client, query="?event=a&event=b")
        await post(client, "data=x&event=c", FORM, "?event=a")
        assert await kept(hub) == [("a", "x"), ("c", "x")]


async def test_channels_are_those_of_the_query_and_the_form() -> None:
    """One event is published to all of them."""
    async with posted(channels=["a", "b", "c"]) as (hub, client):
        ids = {(await post(client, "data=x&channel=b&channel=c", FORM, "?channel=a")).json["id"]}
        for name in "abc":
            ids |= {event.id for event in await hub.history(name)}
        assert len(ids) == 1


async def test_an_idempotency_key_publishes_once() -> None:
    """The second request gets the id of the first; the key of another channel is another key."""
    async with posted(channels="*") as (hub, client):
        ids = [(await post(client, idempotency_key="k")).json["id"] for _ in range(2)]
        other = (await post(client, query="?channel=other", idempotency_key="k")).json["id"]
        assert ids[0] == ids[1] != other
        assert len(await kept(hub)) == 1


@pytest.mark.parametrize(("body", "query"), [("mine", ""), ("x", "?event=mine")])
async def test_an_idempotency_key_is_that_of_one_event(body: str, query: str) -> None:
    """A client cannot hide another client's event by having used its key before."""
    async with posted() as (hub, client):
        first = (await post(client, "x", idempotency_key="1")).json["id"]
        assert (await post(client, body, TEXT, query, idempotency_key="1")).json["id"] != first
        assert len(await kept(hub)) == 2


# Access


async def test_the_function_must_be_one() -> None:
    """`publish=True` is refused."""
    with pytest.raises(TypeError, match="publish must be a function"):
        EventSourceApp(Hub(), publish=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_the_function_decides(kind: str) -> None:
    """It gets the request and the channels; its refusal is a problem with its headers, and nothing is published."""

    def check(request: Request, channels: tuple[str, ...]) -> None:
        if request.headers.get("authorization") != "Bearer secret":
            raise HTTPException(401, f"no key for {channels[0]}", {"WWW-Authenticate": "Bearer"})

    async def check_later(request: Request, channels: tuple[str, ...]) -> None:
        check(request, channels)

    async with posted(publish=check if kind == "sync" else check_later) as (hub, client):
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
    """It can check a signature of the body."""
    seen: list[Any] = []

    async def check(request: Request, _: Any) -> None:
        seen.append(await request.body())
        seen.append(await request.is_disconnected())

    async with posted(publish=check) as (_, client):
        await post(client, "signed")
    assert seen == [b"signed", True]


async def test_the_function_that_chooses_the_channels_may_read_the_body_too() -> None:
    """Both functions may read it."""
    seen: list[bytes] = []

    async def choose(request: Request) -> str:
        return str((await request.json())["room"])

    async def check(request: Request, _: Any) -> None:
        seen.append(await request.body())

    async with posted(channels=choose, publish=check) as (hub, client):
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
    """Without `channels` every channel is served that the function allows; the library's own never are."""
    async with posted(**options) as (_, client):
        assert (await post(client, query=query)).status == status


async def test_of_several_channels_the_request_must_name_some() -> None:
    """Otherwise it is 400, and nothing is published; a function may choose several."""
    async with posted(channels=["a", "b", "room:*"]) as (hub, client):
        assert (await post(client)).status == 400
        assert await kept(hub, "a", "b") == []
        assert (await post(client, "data=x&channel=a&channel=b", FORM)).status == 202
    async with posted(channels=lambda _: ["a", "b"]) as (_, client):
        assert (await post(client)).status == 202


async def test_a_pattern_is_not_published_to() -> None:
    """It gathers the events of the channels that match, each of which may be named."""
    async with posted(Hub(patterns=["orders.*"]), channels=["orders.*"]) as (hub, client):
        assert (await post(client, query="?channel=orders.*")).status == 403
        assert (await post(client)).status == 403
        assert (await post(client, query="?channel=orders.1")).status == 202
        assert await kept(hub, Pattern("orders.*")) == [(None, "x")]


async def test_any_origin_may_read_and_not_publish() -> None:
    """A browser sends the form of any page with the visitor's cookies; the server's own pages may publish."""
    async with posted(cors_origins="*") as (hub, client):
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


@pytest.mark.parametrize("query", ["?event=sse.gap", "?event=", "?event=a%0Adata:b"])
async def test_a_bad_type_is_400(query: str) -> None:
    """A client cannot write the library's own events, or another field."""
    async with posted() as (hub, client):
        assert (await post(client, query=query)).status == 400
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
    """The answer says whether the event may have been published, and when to try again."""

    class Broken(MemoryBackend):
        async def publish(self, *_: Any, **options: Any) -> Any:
            raise error

    async with posted(Hub(Broken())) as (_, client):
        answer = await post(client, idempotency_key=key)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert hint in answer.json["detail"]
        assert str(error) not in answer.json["detail"]


# Bodies that are too large or too slow


@pytest.mark.parametrize("length", ["11", "9" * 5000])
async def test_a_body_with_a_large_content_length_is_not_read(length: str) -> None:
    """The answer is 413, by the Content-Length."""
    async with Hub() as hub:
        app = EventSourceApp(hub, publish=allow, max_body_bytes=10)
        assert await sent(app, [piece(b"x")], content_length=length) == (413, [piece(b"x")])


async def test_a_body_that_becomes_too_large_is_not_read_further() -> None:
    """The answer is 413; a body of exactly the limit is published."""
    async with Hub() as hub:
        app = EventSourceApp(hub, publish=allow, max_body_bytes=10)
        assert await sent(app, [piece(b"12345"), piece(b"678901"), piece(b"2")]) == (413, [piece(b"2")])
        assert await kept(hub) == []
        assert await sent(app, [piece(b"12345"), piece(b"67890", more=False)], content_length="10") == (202, [])
        assert await kept(hub) == [(None, "1234567890")]


async def test_a_body_that_does_not_come_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait is bounded."""
    monkeypatch.setattr(publishing_module, "BODY_SECONDS", 0.01)
    async with Hub() as hub:
        assert (await sent(EventSourceApp(hub, publish=allow), [piece(b"x")]))[0] == 408
        assert await kept(hub) == []


async def test_the_server_does_not_wait_for_a_body_when_it_stops() -> None:
    """The answer is 503 after a moment, in which a complete body is still published; the notice is left."""
    async with Hub() as hub:
        app = EventSourceApp(hub, publish=allow)
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
    """The client has disconnected."""
    async with Hub() as hub:
        app = EventSourceApp(hub, publish=allow)
        assert (await sent(app, [piece(b"x"), {"type": "http.disconnect"}]))[0] == 400
        assert await kept(hub) == []


async def test_max_body_bytes_must_be_at_least_one() -> None:
    """Other values are refused when the app is made."""
    with pytest.raises(ValueError, match="max_body_bytes"):
        EventSourceApp(Hub(), max_body_bytes=0)


async def test_a_compressed_body_is_415() -> None:
    """The body is not read."""
    async with Hub() as hub:
        app = EventSourceApp(hub, publish=allow)
        assert await sent(app, [piece(b"x")], content_encoding="gzip") == (415, [piece(b"x")])


async def test_json_that_is_nested_too_deeply_is_400() -> None:
    """Python's parser gives up; nothing is published."""
    async with posted() as (hub, client):
        assert "nested too deeply" in (await post(client, "[" * 60_000, JSON)).json["detail"]
        assert await kept(hub) == []


@pytest.mark.parametrize(("body", "kind"), [("", TEXT), ("null", JSON), ('""', JSON), ("data=", FORM)])
async def test_an_event_needs_data(body: str, kind: str) -> None:
    """The answer is 400, and nothing is published."""
    async with posted() as (hub, client):
        answer = await post(client, body, kind)
        assert (answer.status, "there is no data" in answer.json["detail"]) == (400, True)
        assert await kept(hub) == []


async def test_data_of_another_type_is_400() -> None:
    """A hub with `events=` refuses it, and the sender is told why."""
    async with posted(Hub(events={"message": int})) as (_, client):
        assert (await post(client, "5")).status == 202
        refused = await post(client, "five")
        assert (refused.status, "data must have the type" in refused.json["detail"]) == (400, True)
