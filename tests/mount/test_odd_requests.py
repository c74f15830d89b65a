"""Random requests: a mounted app answers each, and sends no event to a reader that may not have it."""

import itertools
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_from_bytes

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from sse_asgi import ChannelSigner, EventSourceApp, Hub, MemoryBackend, ServerSentEvent
from sse_asgi.decoder import EventDecoder
from sse_asgi.testing import EventStreamClient
from strategies import PATIENT

FEW = settings(PATIENT, max_examples=150)

CHANNELS = ("default", "user:ann", "user:bob", "room:a", "room:b", "orders.1", "orders.*", "sse.x", "*", "é")
USERS = (b"ann", b"bob")
SIGNER = ChannelSigner("a secret of many characters")
TICKETS = {name: SIGNER.ticket(name, expires_in=1e6) for name in ("user:ann", "room:b", "orders.*")}
FORGED = ChannelSigner("some other secret of characters").ticket("user:bob", expires_in=1e6)
EXPIRED = SIGNER.ticket("user:bob", expires_in=1e-9)

IDS = ("last_event_id", "lastEventId", "evs_last_event_id", "Last-Event-ID")
NAMES = ("channel", "ticket", *IDS, "padding", "evs_preamble", "poll", "wait", "event", "x", "")
POSITION = b"POSITION"  # replaced by a position with later events
ANSWERS = {200, 202, 204, 400, 401, 403, 404, 405, 413, 415}


def authorize(request: Request, channels: tuple[str, ...]) -> dict[str, str]:
    """Let users read their own channel and one room, and no other channel."""
    user = request.headers.get("x-user", "")
    if user.encode("latin-1") not in USERS or any(name not in (f"user:{user}", "room:a") for name in channels):
        raise HTTPException(403)
    return {"user": user}


APPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "any": {"channels": "*"},
    "some": {"channels": ["room:a", "orders.*"]},
    "authorize": {"authorize": authorize},
    "tickets": {"tickets": SIGNER},
    "both": {"tickets": SIGNER, "authorize": authorize},
    "publish": {"publish": lambda *_: None, "channels": ["posted"], "max_body_bytes": 1000},
    "function": {"channels": lambda request: f"user:{(request.headers.get('x-user') == 'ann' and 'ann') or 'none'}"},
}


def allowed(kind: str, request: dict[str, Any]) -> set[str]:
    """Return the channels that a request may read at most, without asking the app."""
    user = dict(reversed(request["headers"])).get(b"x-user", b"").decode("latin-1")
    own = {f"user:{user}", "room:a"} if user.encode("latin-1") in USERS else set()
    tickets = {name for name, text in TICKETS.items() if text.encode() in request["query_string"]}
    return {
        "plain": {"default"},
        "any": {"default", "user:ann", "user:bob", "room:a", "room:b", "orders.1", "é"},
        "some": {"room:a", "orders.1", "orders.*"},
        "authorize": own,
        "tickets": tickets,
        "both": own | tickets,
        "publish": {"posted"},
        "function": {"user:ann"} if user == "ann" else set(),
    }[kind]


# Requests

odd_values = st.one_of(
    st.binary(max_size=8),
    st.sampled_from([b"", b"%", b"%zz", b"%ff%fe", b"%00", b"%0d%0a", b"+", b";", b"&&", b"==", b"%ed%a0%80"]),
    st.integers(0, 1 << 16).map(lambda size: b"9" * size),
)
likely_values: dict[str, st.SearchStrategy[bytes]] = {
    "channel": st.sampled_from([quote_from_bytes(name.encode()).encode() for name in CHANNELS]),
    "ticket": st.sampled_from([text.encode() for text in (*TICKETS.values(), FORGED, EXPIRED)]),
    **dict.fromkeys(IDS, st.just(POSITION)),
}
odd_headers = st.tuples(
    st.sampled_from(
        [
            *(b"origin", b"host", b"last-event-id", b"x-user", b"cookie", b"authorization", b"content-length"),
            *(b"accept", b"content-type", b"idempotency-key"),
        ]
    ),
    st.one_of(
        st.sampled_from([b"application/json", b"text/plain", b"application/x-www-form-urlencoded", b"*/*", b"text/;"]),
        st.sampled_from([b"multipart/form-data", b"multipart/form-data; boundary=x", b"text/plain; charset=x"]),
        st.sampled_from([POSITION, b"ann", b"bob", b"http://testserver", b"https://a.example", b"null", b"testserver"]),
        st.sampled_from([b"http://[", b"http://x:y", b"//", b"[::1", b"00000000-0", b"\xff\xfe"]),
        st.binary(max_size=8),
        st.integers(0, 1 << 16).map(lambda size: b"x" * size),
    ),
)


@st.composite
def likely_parameters(draw: st.DrawFn) -> bytes:
    """A parameter that an app reads."""
    name = draw(st.sampled_from(["channel", "channel", "ticket", *IDS]))
    return name.encode() + b"=" + draw(likely_values[name])


@st.composite
def odd_parameters(draw: st.DrawFn) -> bytes:
    """A parameter with a random value, or a name or value alone."""
    name = draw(st.sampled_from(NAMES)).encode()
    return name + draw(st.sampled_from([b"=", b"", b"%3d"])) + draw(odd_values)


odd_bodies = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b"{}", b"null", b'"x"', b"[" * 900, b"data=x", b"--x\r\n\r\n", b"NaN", b"x" * 1001]),
)


def request_of(
    method: str, user: bytes, headers: list[tuple[bytes, bytes]], parameters: list[bytes], body: bytes = b""
) -> dict[str, Any]:
    """Make a request; the user comes first, because the first header counts."""
    named = [(b"x-user", user)] if user else []
    return {
        "method": method,
        "headers": [*named, *headers],
        "query_string": b"&".join(parameters),
        "body": body,
    }


odd_requests = st.builds(
    request_of,
    st.sampled_from(["GET", "GET", "GET", "GET", "HEAD", "OPTIONS", "POST", "POST", "POST", "TRACE", "", "get"]),
    st.sampled_from([b"", *USERS]),
    st.lists(odd_headers, max_size=4),
    st.lists(st.one_of(likely_parameters(), odd_parameters()), max_size=5),
    odd_bodies,
)


# Answers


class Site:
    """Apps of all kinds on one hub, whose events name their channel."""

    def __init__(self) -> None:
        self.hub = Hub(MemoryBackend(history_size=5), patterns=["orders.*"])
        routes = [Mount(f"/{kind}", EventSourceApp(self.hub, **options)) for kind, options in APPS.items()]
        routes.append(Mount("/template/{room}", EventSourceApp(self.hub, channels=["room:{room}"])))
        self.app = Starlette(routes=routes)

    async def publish(self) -> None:
        for name in CHANNELS:
            event = ServerSentEvent({"of": name})
            await self.hub.backend.publish((name,), event, key=None, idempotency_key=None)

    async def ask(self, path: str, request: dict[str, Any]) -> tuple[int, bytes]:
        """Make a request, and read replayed and live events."""
        position = str(await self.hub.publish("before", "x")).encode()
        await self.publish()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["method"] = request["method"]
            scope["query_string"] = request["query_string"].replace(POSITION, position)
            scope["headers"] = [(name, value.replace(POSITION, position)) for name, value in request["headers"]]
            await self.app(scope, receive, send)

        async with EventStreamClient(app).stream(path, body=request["body"]) as stream:
            await self.publish()
            for _ in range(10):
                await anyio.sleep(0)
            return stream.status_code, stream.content


@pytest.fixture(scope="module")
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal("asyncio") as running:
        yield running


@pytest.fixture(scope="module")
def site(portal: BlockingPortal) -> Iterator[Site]:
    made = Site()
    with portal.wrap_async_context_manager(made.hub):
        yield made


def channels_in(content: bytes) -> list[str]:
    """Return the channels whose events are in an answer, of a poll or a stream."""
    if content.startswith(b'{"events"'):
        polled = json.loads(content)["events"]
        return [json.loads(event["data"])["of"] for event in polled if event["event"] == "message"]
    return [json.loads(event.data)["of"] for event in EventDecoder().feed(content) if event.event == "message"]


kinds = st.sampled_from([*APPS, "template"])
rooms = st.sampled_from(["a", "b", "%2A", "sse.x"])


def check(portal: BlockingPortal, site: Site, kind: str, room: str, request: dict[str, Any]) -> None:
    """Check that the status is ours, and that all events are of channels that the request may read."""
    path = f"/template/{room}/" if kind == "template" else f"/{kind}/"
    code, content = portal.call(site.ask, path, request)
    assert code in ANSWERS
    assert b"Traceback" not in content
    if code == 200 and kind != "publish":
        assert set(channels_in(content)) <= ({f"room:{room}"} if kind == "template" else allowed(kind, request))
    if request["method"] != "GET" and kind != "publish":
        assert channels_in(content) == []


def test_no_request_gets_events_of_other_channels(portal: BlockingPortal, site: Site) -> None:
    """Each user names each channel, alone or beside an allowed one, with each ticket, for replayed and live events."""
    asked = [b"channel=" + quote_from_bytes(name.encode()).encode() for name in CHANNELS]
    asked += [b"channel=room:a&" + one for one in asked] + [b""]
    for kind, user, channels in itertools.product([*APPS, "template"], (b"", *USERS), asked):
        for ticket in (*TICKETS.values(), FORGED, EXPIRED, "") if kind in ("tickets", "both") else ("",):
            parameters = [channels, b"last_event_id=" + POSITION, *([f"ticket={ticket}".encode()] if ticket else [])]
            check(portal, site, kind, "a", request_of("GET", user, [], parameters))
            check(portal, site, kind, "a", request_of("GET", user, [], [*parameters, b"poll=1"]))


@FEW
@given(kinds, rooms, odd_requests)
def test_no_request_fails(portal: BlockingPortal, site: Site, kind: str, room: str, request: dict[str, Any]) -> None:
    """Every random request is answered."""
    check(portal, site, kind, room, request)


@pytest.mark.parametrize(
    ("path", "query", "headers"),
    [
        ("/any/", b"channel=room:a&last_event_id=POSITION", []),
        ("/authorize/", b"channel=room:a", [(b"x-user", b"ann"), (b"last-event-id", POSITION)]),
        ("/tickets/", b"last_event_id=POSITION&ticket=" + SIGNER.ticket("room:a", expires_in=1e6).encode(), []),
        ("/template/a/", b"last_event_id=POSITION", []),
    ],
    ids=["name", "authorized", "ticket", "template"],
)
def test_allowed_requests_get_their_events(
    portal: BlockingPortal, site: Site, path: str, query: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    """Allowed requests get the replayed and the live event, so the searches above would find others."""
    request = request_of("GET", b"", headers, [query])
    code, content = portal.call(site.ask, path, request)
    assert (code, channels_in(content)) == (200, ["room:a", "room:a"])


def test_an_allowed_poll_gets_its_events(portal: BlockingPortal, site: Site) -> None:
    """A poll gets the replayed event; the live event is published after the answer."""
    request = request_of("GET", b"", [], [b"poll=1&channel=room:a&last_event_id=" + POSITION])
    code, content = portal.call(site.ask, "/any/", request)
    assert (code, channels_in(content)) == (200, ["room:a"])
