"""An app to which requests may publish, the requests, and their answers."""

import json
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
from starlette.types import Message

from mount.helpers import mounted
from sse_asgi import EventSourceApp, Hub
from sse_asgi.testing import EventStreamClient

JSON = "application/json"
TEXT = "text/plain"
FORM = "application/x-www-form-urlencoded"
PARTS = "multipart/form-data; boundary=limit"


def allow(*_: Any) -> None:
    """Allow every request to publish."""


def posted(hub: Hub | None = None, **options: Any) -> AbstractAsyncContextManager[tuple[Hub, EventStreamClient]]:
    return mounted(hub, accept="*/*", **{"publish": allow, **options})


class Answered:
    """The answer to a POST."""

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


async def sent(client_app: EventSourceApp, messages: list[Message], **headers: str) -> tuple[int, list[Message]]:
    """Post the body in these messages; return the status, and the messages that were not read."""
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
