"""EventStreamClient: an in-process client that reads streams while the application writes them.

`httpx.ASGITransport` returns a response when it has ended, and a stream has no end. This client returns the head as
soon as it is sent, and each event as soon as it is complete. The application's `send` waits for a slow reader, as it
does on a socket.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self, Unpack

import anyio
from starlette.types import ASGIApp, Message

from .._loop.tasks import spawn
from ._cookies import Cookies
from ._request import HEADERS, RequestOptions, check_options, scope_of, url_of
from ._stream import EventStream

GRACE_SECONDS = 5.0
REQUEST_SECONDS = 5.0


class EventStreamClient:
    """Makes requests to an ASGI application in this event loop; its `async with` block runs the lifespan.

    Attributes:
        cookies: The cookies, by their names. They are kept between requests, as a browser keeps them.
    """

    def __init__(
        self, app: ASGIApp, *, headers: Mapping[str, str] | None = None, cookies: Mapping[str, str] | None = None
    ) -> None:
        """Store the application.

        Args:
            app: The ASGI application.
            headers: Headers that every request has.
            cookies: Cookies to begin with.

        Raises:
            TypeError: `app` is not an ASGI application.
        """
        if not callable(app):
            msg = f"app must be an ASGI application (got {type(app).__name__}): give EventSourceApp(hub), for example"
            raise TypeError(msg)
        self._app = app
        self._headers = {**HEADERS, **{name.lower(): value for name, value in (headers or {}).items()}}
        self.cookies: Cookies = Cookies(cookies)
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
        self, url: str, *, method: str = "GET", **options: Unpack[RequestOptions]
    ) -> AsyncIterator[EventStream]:
        """Make a request, and return the response once its head is sent; leaving the block disconnects.

        Args:
            url: A path, with or without a query.
            method: The method.
            **options: Any of these, and keys of the ASGI scope to replace or add, such as `path_params`, `client` or
                `user`. `headers` replace those of the client. `params` are added to the query. `cookies` are of this
                request alone. `last_event_id` is the Last-Event-ID header, as a browser sends it when it reconnects.
                One of `body` (bytes), `json` (any value, written as the data of an event is written) and `data` (the
                fields of a form) is the body, with its Content-Type.

        Raises:
            TypeError: An option is unknown or has the wrong type, or more than one body is given.
            Exception: The application raised it before the head, or in a stream that was not read to its end.
        """
        check_options("EventStreamClient.stream", options)
        async with self._stream(url, method, options) as stream:
            yield stream

    async def request(self, method: str, url: str, **options: Unpack[RequestOptions]) -> EventStream:
        """Make a request, and return its response when it has ended, as for a POST beside a stream.

        Args:
            method: The method.
            url: A path, with or without a query.
            **options: See stream.

        Raises:
            TypeError: An option is unknown or has the wrong type, or more than one body is given.
            TimeoutError: The response did not end within 5 seconds: read a stream that goes on with `stream`.
            Exception: The application raised it.
        """
        check_options("EventStreamClient.request", options)
        async with self._stream(url, method, options) as stream:
            try:
                await stream.read(REQUEST_SECONDS)
                await stream.ended(REQUEST_SECONDS)
            except TimeoutError:
                msg = f"{method} {url} has not ended in {REQUEST_SECONDS:g} s: read what goes on with client.stream"
                raise TimeoutError(msg) from None
        return stream

    @asynccontextmanager
    async def _stream(self, url: str, method: str, options: RequestOptions) -> AsyncIterator[EventStream]:
        scope, body = scope_of(url, method, self._headers, options, self.cookies)
        stream = EventStream({"state": dict(self._state), **scope}, body)
        child = spawn(lambda: stream.run(self._app))
        try:
            await stream.started()
            self.cookies.keep(url_of(url, options), stream.headers)
            yield stream
        finally:
            stream.disconnect()
            with anyio.move_on_after(GRACE_SECONDS, shield=True):
                await stream.ended(GRACE_SECONDS + 1)
            child.cancel()
        stream.check()

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
