"""Publishing over HTTP: a POST to an event, and every refusal to a problem."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from .._hub.hub import Hub
from .._hub.options import check_callable, check_type
from .._log.event import ServerSentEvent, to_json
from .._loop.timer import SHUTDOWN_SECONDS, shared_timer
from .._servers.shutdown import current_notice
from ..exceptions import BackendError, PublishUnknownError
from .access import verdict
from .bodies import Content, Reader, reader, replayed
from .channels import ServedChannels
from .problem import problem_response

BODY_SECONDS = 30.0
RETRY_AFTER = {"retry-after": "1"}

MayPublish = Callable[[Request, tuple[str, ...]], Any]


class Publishing:
    """Answers requests that publish."""

    def __init__(self, hub: Hub, served: ServedChannels, authorize: MayPublish, max_body_bytes: int) -> None:
        """Check the options; see EventSourceApp.

        Args:
            hub: The hub to publish to.
            served: The channels of the app.
            authorize: Allows a request to publish to channels, or raises HTTPException; the app's option `publish`.
            max_body_bytes: The most bytes of a body.

        Raises:
            TypeError: `authorize` is not a function of a request and channels.
        """
        self.hub = hub
        self.limit = max_body_bytes
        self._served = served
        self._authorize: MayPublish = check_callable("publish", authorize, "request", "channels")

    async def respond(self, request: Request, headers: dict[str, str]) -> ASGIApp:
        """Return the application that answers a POST; each of its answers has these headers."""
        return PublishResponse(self, request, headers)

    async def channels(self, request: Request, asked: Sequence[str]) -> tuple[str, ...]:
        """Return the channels to which a request may publish.

        Raises:
            HTTPException: The request names a channel that it may not have, or must name one, or is refused.
        """
        names = await self._served.of(request, asked, unsaid_is_any=True)
        if len(names) > 1 and not (asked or self._served.chosen):
            raise HTTPException(400, "the request must name a channel, as in ?channel=...: there are several")
        if any(name in self.hub.patterns for name in names):
            raise HTTPException(
                403, "the request must name a channel, as in ?channel=...: a pattern only gathers events"
            )
        await verdict("publish", self._authorize(request, names))
        return names


class PublishResponse:
    """Reads the body of one request, publishes it, and answers with the event's id."""

    def __init__(self, publishing: Publishing, request: Request, headers: Mapping[str, str]) -> None:
        """Prepare; the body is read when the response is called."""
        self._publishing = publishing
        self._request = request
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
        request, publishing = self._request, self._publishing
        read = reader(request.headers.get("content-type", ""))
        if "content-encoding" in request.headers:
            raise HTTPException(415, "the body must not have a Content-Encoding: send it as it is")
        body = await _read(request, receive, publishing.limit)
        content, event = await _event(request, read, body)
        asked = [*request.query_params.getlist("channel"), *content.channels]
        # The application's functions may read the body too.
        channels = await publishing.channels(Request(request.scope, replayed(body)), asked)
        return await _publish(publishing.hub, channels, event, request.headers.get("idempotency-key"))


def check_max_body_bytes(limit: int) -> int:
    """Return the most bytes of a body, or raise ValueError."""
    if limit < 1:
        msg = f"max_body_bytes must be at least 1 (got {limit})"
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
    except ValueError as error:  # of a hub whose events have types
        raise HTTPException(400, f"the body cannot be published: {error}") from error


def _scoped(key: str, channels: tuple[str, ...], event: ServerSentEvent) -> str:
    """Make an idempotency key of one event, so that a client cannot hide another client's event by using its key."""
    return hashlib.sha256(to_json([key, channels, event.event, event.data]).encode()).hexdigest()


# The body


async def _read(request: Request, receive: Receive, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:18]) > limit:
        raise _too_large(limit)
    body = bytearray()
    with _time_limit(request.scope):
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if len(body) > limit:
                raise _too_large(limit)
            if not message.get("more_body", False):
                return bytes(body)
    raise HTTPException(400, "the client disconnected before the body was complete")


@contextmanager
def _time_limit(scope: Scope) -> Iterator[None]:
    """Wait for a client for BODY_SECONDS, and for SHUTDOWN_SECONDS when the server stops.

    Raises:
        HTTPException: 408 or 503, the body took longer.
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
            detail = "the event was not published, because the server stops: repeat the request"
            raise HTTPException(503, detail, RETRY_AFTER)
        if limit.cancelled_caught:
            raise HTTPException(408, f"the body must be complete within {BODY_SECONDS:g} s")
    finally:
        notice.unlisten(hurry)
        for alarm in alarms:
            alarm.cancel()


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"the body must have at most {limit} bytes: publish a link to larger data")


# The event


async def _event(request: Request, read: Reader, body: bytes) -> tuple[Content, ServerSentEvent]:
    try:
        content = await read(body)
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
    """Return the event type of the form, or else the first one of the query."""
    event = next(iter(request.query_params.getlist("event")), None) if content.event is None else content.event
    check_type(event)
    return event
