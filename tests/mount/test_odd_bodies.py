"""Random POST requests: each is published, or refused with a problem."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Message

from mount.posts import FORM, JSON, PARTS, TEXT, allow, piece
from sse_asgi import (
    EventSourceApp,
    Hub,
)

pytestmark = pytest.mark.anyio


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
    """A refusal says how the client can correct the request; no request raises an error."""
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
        await EventSourceApp(hub, channels="*", publish=allow)(scope, receive, send)
    answer = json.loads(answers[1]["body"])
    assert answers[0]["status"] in (202, 400, 403, 413, 415)
    assert answers[0]["status"] == 202 or (answer["status"] == answers[0]["status"] and answer["detail"])
