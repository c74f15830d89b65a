"""EventStreamClient: an in-process client that reads streams while the application writes them.

`httpx.ASGITransport` returns a response when it has ended, and a stream has no end. This client returns the head as
soon as it is sent, and each event as soon as it is complete. The application's `send` waits for a slow reader, as it
does on a socket.
"""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self, TypedDict, Unpack
from urllib.parse import unquote, urlencode, urlsplit

import anyio
import anyio.lowlevel
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Scope

from ._hub.options import check_known
from ._log.event import POSITION_EVENT, to_json
from ._loop.tasks import spawn
from .decoder import DecodedEvent, EventDecoder

GRACE_SECONDS = 5.0
UNREAD_LIMIT = 64 * 1024


# The headers of a browser's EventSource, which bypasses caches.
HEADERS = {"host": "testserver", "accept": "text/event-stream", "cache-control": "no-cache"}


class ScopeOptions(TypedDict, total=False):
    """Keys of the ASGI scope that a request can replace or add: those of the specification and of Starlette."""

    type: str
    asgi: dict[str, str]
    http_version: str
    scheme: str
    path: str
    raw_path: bytes
    root_path: str
    query_string: bytes
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    extensions: dict[str, dict[str, Any]]
    state: dict[str, Any]
    app: Any
    app_root_path: str
    auth: Any
    endpoint: Any
    path_params: dict[str, Any]
    route: Any
    router: Any
    session: dict[str, Any]
    user: Any


OPTIONS = ("method", "headers", "params", "last_event_id", "body", "json", *ScopeOptions.__annotations__)
OTHER_NAMES = {"content": "body", "data": "body", "cookies": "headers"}
"""Names that httpx and Starlette's TestClient have, and the options to use instead."""


class EventStream:
    """One response, as a page reads it.

    Iteration skips `sse.position`, because pages do not listen for it; its id still becomes `last_event_id`, and its
    bytes are in `content`. Iteration returns every other event, also `sse.gap`, `sse.error` and `sse.end`.

    Attributes:
        status_code: The status.
        headers: The response headers.
        content: All bytes received so far.
        complete: True once the application has sent the last body message, with which a server ends the response.
        last_event_id: The id that a browser would send if it reconnected now.
        retry: The last reconnection time received, in milliseconds, or None.
        body_taken: True once the application has received the request's body.
        disconnected: True once this client has disconnected.
    """

    def __init__(self, scope: Scope, body: bytes) -> None:
        """Store the request; EventStreamClient.stream makes it."""
        self.status_code: int = 0
        self.headers: Headers = Headers()
        self.content: bytes = b""
        self.complete: bool = False
        self._scope = scope
        self._request: Message = {"type": "http.request", "body": body, "more_body": False}
        self.body_taken: bool = False
        self._decoder = EventDecoder()
        self._events: list[DecodedEvent] = []
        self._unread = 0
        self._reading = True
        self.disconnected: bool = False
        self._error: Exception | None = None
        self._ended = anyio.Event()
        self._changed = anyio.Event()

    @property
    def last_event_id(self) -> str:
        """Return the last event id received."""
        return self._decoder.last_event_id

    @property
    def retry(self) -> int | None:
        """Return the last reconnection time received."""
        return self._decoder.retry

    def __aiter__(self) -> Self:
        """Iterate over the events until the stream ends."""
        return self

    async def __anext__(self) -> DecodedEvent:
        """Return the next event; after the last one, raise the exception that the application raised, if any."""
        while not self._events:
            if self._ended.is_set():
                self.check()
                raise StopAsyncIteration
            await self._more()
        self._unread = 0
        self._notify()
        return self._events.pop(0)

    async def next_event(self, timeout: float = 5.0) -> DecodedEvent:  # noqa: ASYNC109 - tests give it a number
        """Return the next event.

        Raises:
            TimeoutError: No event was complete within `timeout` seconds.
            EOFError: The stream has ended.
            Exception: The application raised it.
        """
        with anyio.move_on_after(timeout):
            try:
                return await anext(self)
            except StopAsyncIteration:
                msg = f"the stream has ended, with status {self.status_code}; its last bytes: {self._shown()}"
                raise EOFError(msg) from None
        msg = f"no event within {timeout} s; the last bytes so far: {self._shown()}"
        raise TimeoutError(msg)

    def _shown(self) -> str:
        return repr(self.content[-200:])

    async def read(self, timeout: float = 5.0) -> bytes:  # noqa: ASYNC109 - tests give it a number
        """Read to the end, and return all bytes.

        Raises:
            TimeoutError: The stream did not end within `timeout` seconds.
            Exception: The application raised it.
        """
        with anyio.fail_after(timeout):
            async for _ in self:
                pass
        return self.content

    async def received(self, part: bytes, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - tests give it a number
        """Wait until `content` contains these bytes.

        Raises:
            TimeoutError: They were not received within `timeout` seconds.
        """
        with anyio.fail_after(timeout):
            while part not in self.content:
                await self._more()

    def stall(self) -> None:
        """Stop reading: the application's next `send` waits until the client disconnects."""
        self._reading = False

    def disconnect(self) -> None:
        """Disconnect, as a closed tab does."""
        self.disconnected = True
        self._notify()

    async def ended(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - tests give it a number
        """Wait until the application has returned, after its cleanup and its background tasks.

        Raises:
            TimeoutError: It did not return within `timeout` seconds.
        """
        with anyio.fail_after(timeout):
            await self._ended.wait()

    # Called by the client and by the application

    async def run(self, app: ASGIApp) -> None:
        """Run the application with this request."""
        try:
            await app(self._scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001 - the reader raises it
            self._error = error
        finally:
            self._ended.set()
            self._notify()

    async def started(self) -> None:
        """Wait for the head, or raise the exception that the application raised before it."""
        while not self.status_code:
            if self._ended.is_set():
                self.check()
                msg = "the application returned without a response"
                raise RuntimeError(msg)
            await self._changed.wait()

    async def _receive(self) -> Message:
        await anyio.lowlevel.checkpoint()
        if not self.body_taken:
            self.body_taken = True
            return self._request
        while not (self.disconnected or self.complete):
            await self._changed.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        while (not self._reading or self._unread > UNREAD_LIMIT) and not self.disconnected:
            await self._changed.wait()
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            self.headers = Headers(raw=list(message.get("headers", ())))
            self.status_code = message["status"]
        else:
            body = message.get("body", b"")
            self.content += body
            self._unread += len(body)
            self._events += (one for one in self._decoder.feed(body) if one.event != POSITION_EVENT)
            self.complete = not message.get("more_body", False)
        self._notify()

    def check(self) -> None:
        """Raise the exception of the application, unless it was raised before."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    async def _more(self) -> None:
        """Count all received bytes as read, and wait for a change."""
        if self._unread:
            self._unread = 0
            self._notify()
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class EventStreamClient:
    """Makes requests to an ASGI application in this event loop; its `async with` block runs the lifespan."""

    def __init__(self, app: ASGIApp, *, headers: Mapping[str, str] | None = None) -> None:
        """Store the application.

        Args:
            app: The ASGI application.
            headers: Headers that every request has.

        Raises:
            TypeError: `app` is not an ASGI application.
        """
        if not callable(app):
            msg = f"app must be an ASGI application (got {type(app).__name__}): give EventSourceApp(hub), for example"
            raise TypeError(msg)
        self._app = app
        self._headers = {**HEADERS, **(headers or {})}
        self._state: dict[str, Any] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Run the startup of the application's lifespan."""
        await self._stack.enter_async_context(self._lifespan())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Run the shutdown of the application's lifespan."""
        await self._stack.aclose()

    @asynccontextmanager
    async def stream(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str | list[str]] | None = None,
        last_event_id: str | None = None,
        body: bytes = b"",
        json: Any = None,
        **scope: Unpack[ScopeOptions],
    ) -> AsyncIterator[EventStream]:
        """Make a request, and return the response once its head is sent; leaving the block disconnects.

        Args:
            url: A path, with or without a query.
            method: The method.
            headers: Headers of this request; they replace those of the client.
            params: Parameters to add to the query.
            last_event_id: The Last-Event-ID header, as a browser sends it when it reconnects.
            body: The request's body.
            json: A value to write as the body, as the data of an event is written, with the Content-Type of JSON.
            **scope: Keys of the ASGI scope to replace or add, such as `path_params`, `client` or `user`.

        Raises:
            TypeError: An option is unknown or has the wrong type, or both `body` and `json` are given.
            Exception: The application raised it before the head, or in a stream that was not read to its end.
        """
        _check_options(scope, body)
        given = {**self._headers, **(headers or {})}
        if last_event_id is not None:
            given["last-event-id"] = last_event_id
        if json is not None:
            body = _json_body(json, body, given)
        stream = EventStream({**self._scope(url, method, given, params), **scope}, body)
        child = spawn(lambda: stream.run(self._app))
        try:
            await stream.started()
            yield stream
        finally:
            stream.disconnect()
            with anyio.move_on_after(GRACE_SECONDS, shield=True):
                await stream.ended(GRACE_SECONDS + 1)
            child.cancel()
        stream.check()

    def _scope(
        self, url: str, method: str, headers: Mapping[str, str], params: Mapping[str, str | list[str]] | None
    ) -> Scope:
        parts = urlsplit(url)
        query = "&".join(filter(None, (parts.query, urlencode(params or {}, doseq=True))))
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(parts.path),
            "raw_path": parts.path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "client": ("testclient", 50000),
            "server": ("testserver", 80),
            "state": dict(self._state),
        }

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        to_app, app_receive = anyio.create_memory_object_stream[Message](1)
        app_send, from_app = anyio.create_memory_object_stream[Message](1)
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self._state}
        errors: list[Exception] = []

        async def run() -> None:
            async with app_receive, app_send:
                try:
                    await self._app(scope, app_receive.receive, app_send.send)
                except Exception as error:  # noqa: BLE001 - the cause of the RuntimeError
                    errors.append(error)

        async def tell(what: str) -> None:
            try:
                await to_app.send({"type": f"lifespan.{what}"})
                answer = await from_app.receive()
            except (anyio.BrokenResourceError, anyio.EndOfStream) as error:
                msg = f"the application ended its lifespan before its {what}"
                raise RuntimeError(msg) from (errors[0] if errors else error)
            if answer["type"] != f"lifespan.{what}.complete":
                raise RuntimeError(answer.get("message") or answer["type"])

        async with to_app, from_app:
            child = spawn(run)
            try:
                await tell("startup")
                yield
                await tell("shutdown")
            finally:
                child.cancel()


def _check_options(scope: Collection[str], body: object) -> None:
    for name in scope:
        if name in OTHER_NAMES:
            msg = f"EventStreamClient.stream has no option {name}=: did you mean {OTHER_NAMES[name]}=?"
            raise TypeError(msg)
        if name == "timeout":
            msg = "EventStreamClient.stream has no option timeout=: give it to next_event(), read() or received()"
            raise TypeError(msg)
    check_known("EventStreamClient.stream", scope, OPTIONS)
    if not isinstance(body, bytes):
        msg = f"body must be bytes (got {type(body).__name__}): encode it, or give json= instead"
        raise TypeError(msg)


def _json_body(data: Any, body: bytes, headers: dict[str, str]) -> bytes:
    if body:
        msg = "a request has body= or json=, not both: leave out one of them"
        raise TypeError(msg)
    if "content-type" not in map(str.lower, headers):
        headers["content-type"] = "application/json"
    return to_json(data).encode()
