"""Publishing over HTTP: a POST to an event, and every problem_response to a problem."""

import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from .._hub.hub import Hub
from .._hub.options import check_type
from .._log.event import ServerSentEvent, to_json
from .._loop.timer import shared_timer
from .._servers.shutdown import current_notice
from ..exceptions import BackendError, PublishUnknownError
from .access import verdict
from .bodies import Content, reader
from .problem import problem

BODY_SECONDS = 30.0
SHUTDOWN_SECONDS = 0.5
RETRY_AFTER = {"retry-after": "1"}


class PublishResponse:
    """Publishes what was posted, if it may be, and answers with the event's id."""

    def __init__(
        self,
        hub: Hub,
        request: Request,
        *,
        channels: Callable[[Request, Sequence[str]], Awaitable[tuple[str, ...]]],
        authorize: Callable[[Request, tuple[str, ...]], Any],
        limit: int,
        headers: Mapping[str, str],
    ) -> None:
        """Prepare; the request is read when the response is called.

        Args:
            hub: Where to publish.
            request: The request.
            channels: Says which channels it may have of those that it asks for.
            authorize: Lets it publish to these channels, or raises HTTPException.
            limit: The most bytes of its body.
            headers: Sent with every answer.
        """
        self._hub = hub
        self._request = request
        self._channels = channels
        self._authorize = authorize
        self._limit = limit
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            event_id = await self._serve(receive)
            response: Response = JSONResponse({"id": event_id}, 202, {"cache-control": "no-store", **self._headers})
        except HTTPException as error:
            response = problem_response(error, self._headers)
        await response(scope, receive, send)

    async def _serve(self, receive: Receive) -> str | None:
        request = self._request
        read = reader(request.headers.get("content-type", ""))
        if "content-encoding" in request.headers:
            raise HTTPException(415, "send the body without a Content-Encoding")
        body = await _read(request, receive, self._limit)
        content, event = _event(request, lambda: read(body))
        asking = Request(request.scope, _again(body))
        channels = await self._channels(asking, [*request.query_params.getlist("channel"), *content.channels])
        await verdict("publish", self._authorize(asking, channels))
        return await _publish(self._hub, channels, event, request.headers.get("idempotency-key"))


def problem_response(error: HTTPException, headers: Mapping[str, str]) -> Response:
    """Answer with a problem."""
    return problem(error.status_code, error.detail, {**headers, **(error.headers or {})})


def check_max_body_bytes(limit: int) -> int:
    """Return the most bytes of a body, or raise ValueError for what is none."""
    if limit < 1:
        msg = f"max_body_bytes={limit} must be at least 1"
        raise ValueError(msg)
    return limit


async def _publish(hub: Hub, channels: tuple[str, ...], event: ServerSentEvent, key: str | None) -> str | None:
    try:
        return await hub.publish(channels, event, idempotency_key=_scoped(key, channels, event) if key else None)
    except PublishUnknownError as error:
        detail = "the event may have been published: repeat the request with the same Idempotency-Key"
        if not key:
            detail = "the event may have been published: give an Idempotency-Key to requests that you will repeat"
        raise HTTPException(503, detail, RETRY_AFTER) from error
    except BackendError as error:
        detail = "the event was not published, because the backend is out of reach: repeat the request"
        raise HTTPException(503, detail, RETRY_AFTER) from error


# The request


async def _read(request: Request, receive: Receive, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:18]) > limit:
        raise _too_large(limit)
    body = bytearray()
    with _patience(request.scope):
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if len(body) > limit:
                raise _too_large(limit)
            if not message.get("more_body", False):
                return bytes(body)
    raise HTTPException(400, "the client went away before the body had come")


@contextmanager
def _patience(scope: Scope) -> Iterator[None]:
    """Wait for a client, but not for ever, and hardly at all when the server stops.

    Raises:
        HTTPException: 408 or 503, it took longer.
    """
    notice, timer, limit = current_notice(), shared_timer(), anyio.CancelScope()
    alarms = [timer.limit(BODY_SECONDS, limit.cancel)]

    def hurry() -> None:
        alarms.append(timer.limit(SHUTDOWN_SECONDS, limit.cancel))

    notice.listen(hurry, scope)
    try:
        with limit:
            yield
        if limit.cancelled_caught and notice.heard:
            raise HTTPException(503, "the event was not published, because the server stops: repeat it", RETRY_AFTER)
        if limit.cancelled_caught:
            raise HTTPException(408, f"the body did not come within {BODY_SECONDS:g} s")
    finally:
        notice.unlisten(hurry)
        for alarm in alarms:
            alarm.cancel()


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"the body may have {limit} bytes: publish a link to what is larger")


def _again(body: bytes) -> Receive:
    """Let a body that was read be read again, once."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    return receive


def _event(request: Request, read: Callable[[], Content]) -> tuple[Content, ServerSentEvent]:
    """Make an event of the body, whatever it is."""
    try:
        content = read()
        return content, ServerSentEvent(_checked_data(content), event=_checked_type(request, content))
    except RecursionError as error:
        raise HTTPException(400, "the JSON is nested too deeply") from error
    except ValueError as error:
        raise HTTPException(400, f"the body cannot be published: {error}") from error


def _checked_data(content: Content) -> Any:
    if content.data is None or content.data == "":
        msg = "there is no data"
        raise ValueError(msg)
    return content.data


def _checked_type(request: Request, content: Content) -> str | None:
    """Return the event type: the form's, or else the query's first."""
    event = next(iter(request.query_params.getlist("event")), None) if content.event is None else content.event
    check_type(event)
    return event


def _scoped(key: str, channels: tuple[str, ...], event: ServerSentEvent) -> str:
    """Keep the keys of several clients apart, one of whom could otherwise hide what another publishes."""
    return hashlib.sha256(to_json([key, channels, event.event, event.data]).encode()).hexdigest()
