"""EventStreamClient: an in-process client that reads streams while the application writes them.

`httpx.ASGITransport` waits for the end of a response before it returns, which a stream does not have. This client hands
over the head when it is sent and each event when it is complete, and `send` waits for the reader as a socket would.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self
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


# What the standard and Starlette put into a scope, besides what a request gives here.
SCOPE_KEYS = (
    *("type", "asgi", "http_version", "scheme", "path", "raw_path", "root_path", "query_string", "client", "server"),
    *("extensions", "state", "app", "app_root_path", "auth", "endpoint", "path_params", "route", "router", "session"),
    "user",
)
REQUEST_KEYS = ("method", "headers", "params", "last_event_id", "body", "json")  # the arguments that are not scope


class EventStream:
    """One response as a page sees it.

    Iteration skips `sse.position`, which pages do not listen for; it moves `last_event_id`, and `content` has it. Every
    other event is returned, `sse.gap`, `sse.error` and `sse.end` among them.

    Attributes:
        status_code: The status.
        headers: The response headers.
        content: Every byte received so far.
        complete: Whether the final body message was sent: a server would have ended the response properly.
        last_event_id: What a browser would send when it reconnects now.
        retry: The last reconnection time received, in milliseconds, or None.
        body_taken: Whether the application has taken the request's body.
        disconnected: Whether this client has gone.
    """

    def __init__(self, scope: Scope, body: bytes) -> None:
        """Prepare a request; EventStreamClient makes it."""
        self.status_code = 0
        self.headers = Headers()
        self.content = b""
        self.complete = False
        self._scope = scope
        self._request: Message = {"type": "http.request", "body": body, "more_body": False}
        self.body_taken = False
        self._decoder = EventDecoder()
        self._events: list[DecodedEvent] = []
        self._unread = 0
        self._reading = True
        self.disconnected = False
        self._error: Exception | None = None
        self._ended = anyio.Event()
        self._changed = anyio.Event()

    @property
    def last_event_id(self) -> str:
        """Return the decoder's."""
        return self._decoder.last_event_id

    @property
    def retry(self) -> int | None:
        """Return the decoder's."""
        return self._decoder.retry

    def __aiter__(self) -> Self:
        """Iterate over the events until the stream ends."""
        return self

    async def __anext__(self) -> DecodedEvent:
        """Return the next event; raise what the application raised once everything it sent is read."""
        while not self._events:
            if self._ended.is_set():
                self.check()
                raise StopAsyncIteration
            await self._more()
        self._unread = 0
        self._notify()
        return self._events.pop(0)

    async def next_event(self, timeout: float = 5.0) -> DecodedEvent:  # noqa: ASYNC109 - a test's own patience
        """Return the next event.

        Raises:
            TimeoutError: None came in so many seconds.
            EOFError: The stream has ended.
        """
        with anyio.move_on_after(timeout):
            try:
                return await anext(self)
            except StopAsyncIteration:
                msg = f"the stream has ended, with status {self.status_code}; it was {self._shown()}"
                raise EOFError(msg) from None
        msg = f"no event within {timeout} s; the stream so far: {self._shown()}"
        raise TimeoutError(msg)

    def _shown(self) -> str:
        return repr(self.content[-200:])

    async def read(self, timeout: float = 5.0) -> bytes:  # noqa: ASYNC109 - a test's own patience
        """Read to the end, and return every byte.

        Raises:
            TimeoutError: It did not end in so many seconds.
        """
        with anyio.fail_after(timeout):
            async for _ in self:
                pass
        return self.content

    async def received(self, part: bytes, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - a test's own patience
        """Wait until these bytes are in the content.

        Raises:
            TimeoutError: They did not come in so many seconds.
        """
        with anyio.fail_after(timeout):
            while part not in self.content:
                await self._more()

    def stall(self) -> None:
        """Stop reading: the application's next send waits."""
        self._reading = False

    def disconnect(self) -> None:
        """Go away, as a closed tab does."""
        self.disconnected = True
        self._notify()

    async def ended(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - a test's own patience
        """Wait until the application has finished with this request, cleanup and background tasks included.

        Raises:
            TimeoutError: It did not in so many seconds.
        """
        with anyio.fail_after(timeout):
            await self._ended.wait()

    # The application's side

    async def run(self, app: ASGIApp) -> None:
        """Run the application for this request."""
        try:
            await app(self._scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001 - raised again to the reader
            self._error = error
        finally:
            self._ended.set()
            self._notify()

    async def started(self) -> None:
        """Wait for the head; raise what the application raised instead."""
        while not self.status_code:
            if self._ended.is_set():
                self.check()
                msg = "the application returned without a response"
                raise RuntimeError(msg)
            await self._change()

    async def _receive(self) -> Message:
        await anyio.lowlevel.checkpoint()
        if not self.body_taken:
            self.body_taken = True
            return self._request
        while not (self.disconnected or self.complete):
            await self._change()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        while (not self._reading or self._unread > UNREAD_LIMIT) and not self.disconnected:
            await self._change()
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
        """Raise what the application raised and nobody has seen yet."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    async def _more(self) -> None:
        """Take everything that has come, and wait for more."""
        if self._unread:
            self._unread = 0
            self._notify()
        await self._changed.wait()

    async def _change(self) -> None:
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class EventStreamClient:
    """Makes requests to an ASGI application in this event loop; as a context it runs the application's lifespan."""

    def __init__(self, app: ASGIApp, *, headers: Mapping[str, str] | None = None) -> None:
        """Prepare a client.

        Args:
            app: The application.
            headers: Sent with every request.
        """
        self._app = app
        self._headers = {"host": "testserver", "accept": "text/event-stream", **(headers or {})}
        self._state: dict[str, Any] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start the application."""
        await self._stack.enter_async_context(self._lifespan())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop the application."""
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
        **scope: Any,
    ) -> AsyncIterator[EventStream]:
        """Make a request, and hand over the response once its head is there; leaving disconnects.

        Args:
            url: A path, with or without a query.
            method: The method.
            headers: Sent as well as the client's; they win.
            params: Added to the query.
            last_event_id: Sent as Last-Event-ID, as a reconnecting browser does.
            body: The request's body.
            json: Written as the body, as the data of an event is, with its Content-Type; None is no body.
            **scope: Put over the ASGI scope: `path_params`, `client` or `user`, for instance.

        Raises:
            TypeError: An option that there is not, or both a `body` and `json`.
            Exception: What the application raised before the head, or while nobody read to the end.
        """
        given = {**self._headers, **(headers or {})}
        check_known("EventStreamClient.stream", scope, (*SCOPE_KEYS, *REQUEST_KEYS))
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
                except Exception as error:  # noqa: BLE001 - raised again to the test
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


def _json_body(data: Any, body: bytes, headers: dict[str, str]) -> bytes:
    if body:
        msg = "give the request a body= or json=, not both"
        raise TypeError(msg)
    if "content-type" not in map(str.lower, headers):
        headers["content-type"] = "application/json"
    return to_json(data).encode()
