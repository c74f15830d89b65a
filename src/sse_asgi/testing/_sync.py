"""SyncEventStreamClient: the same client for tests without `async`, with an event loop in a thread of its own."""

from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, ParamSpec, Protocol, Self, TypeVar, Unpack, overload

from anyio.from_thread import BlockingPortal, start_blocking_portal
from starlette.datastructures import Headers
from starlette.types import ASGIApp

from .._loop.running import running_loop
from ..decoder import DecodedEvent
from ._client import EventStreamClient
from ._clock import Clock
from ._cookies import Cookies
from ._request import RequestOptions, check_options
from ._stream import EventStream

P = ParamSpec("P")
T = TypeVar("T")


class SyncEventStream:
    """One response, as EventStream, whose methods block until their result is there."""

    def __init__(self, stream: EventStream, portal: BlockingPortal) -> None:
        """Store the stream; SyncEventStreamClient.stream makes it."""
        self._stream = stream
        self._portal = portal

    @property
    def status_code(self) -> int:
        """The status."""
        return self._stream.status_code

    @property
    def headers(self) -> Headers:
        """The response headers."""
        return self._stream.headers

    @property
    def content(self) -> bytes:
        """All bytes received so far."""
        return self._stream.content

    @property
    def text(self) -> str:
        """All text received so far."""
        return self._stream.text

    @property
    def complete(self) -> bool:
        """True once the application has sent the last body message."""
        return self._stream.complete

    @property
    def last_event_id(self) -> str:
        """The id that a browser would send if it reconnected now."""
        return self._stream.last_event_id

    @property
    def retry(self) -> int | None:
        """The last reconnection time received, in milliseconds, or None."""
        return self._stream.retry

    def json(self) -> Any:
        """Return the value of a JSON body; see EventStream.json."""
        return self._stream.json()

    def __iter__(self) -> Iterator[DecodedEvent]:
        """Iterate over the events until the stream ends; see EventStream."""
        while (event := self._portal.call(self._next)) is not None:
            yield event

    async def _next(self) -> DecodedEvent | None:
        return await anext(self._stream, None)

    def next_event(self, timeout: float = 5.0) -> DecodedEvent:
        """Return the next event, or raise TimeoutError after `timeout` seconds, EOFError after the last one."""
        return self._portal.call(self._stream.next_event, timeout)

    def read(self, timeout: float = 5.0) -> bytes:
        """Read to the end, for `timeout` seconds at most, and return all bytes."""
        return self._portal.call(self._stream.read, timeout)

    def received(self, part: bytes, timeout: float = 5.0) -> None:
        """Wait, for `timeout` seconds at most, until `content` contains these bytes."""
        self._portal.call(self._stream.received, part, timeout)

    def ended(self, timeout: float = 5.0) -> None:
        """Wait, for `timeout` seconds at most, until the application has returned."""
        self._portal.call(self._stream.ended, timeout)

    def stall(self) -> None:
        """Stop reading: the application's next `send` waits until the client disconnects."""
        self._portal.call(self._stream.stall)

    def disconnect(self) -> None:
        """Disconnect, as a closed tab does."""
        self._portal.call(self._stream.disconnect)


class SyncEventStreamClient:
    """Makes requests to an ASGI application from a test without `async`.

    Its `with` block runs an event loop in a thread, and the application's lifespan in it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        backend: str = "asyncio",
    ) -> None:
        """Store the application.

        Args:
            app: The ASGI application.
            headers: Headers that every request has.
            cookies: Cookies to begin with.
            backend: The event loop, `"asyncio"` or `"trio"`.

        Raises:
            TypeError: `app` is not an ASGI application.
        """
        self._client = EventStreamClient(app, headers=headers, cookies=cookies)
        self._backend = backend
        self._stack = ExitStack()
        self._running: BlockingPortal | None = None
        self._clock: Clock

    @property
    def cookies(self) -> Cookies:
        """The cookies, by their names; they are kept between requests."""
        return self._client.cookies

    def __enter__(self) -> Self:
        """Start the event loop, and run the startup of the application's lifespan.

        Raises:
            RuntimeError: An event loop runs here, which this client would block; or the startup failed.
        """
        if running_loop() is not None:
            msg = (
                "SyncEventStreamClient would block the event loop that runs here: "
                "use `async with EventStreamClient(app)` in an async test"
            )
            raise RuntimeError(msg)
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal(self._backend))
            self._clock = portal.call(Clock)
            stack.enter_context(portal.wrap_async_context_manager(self._client))
            self._stack = stack.pop_all()
            self._running = portal
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Run the shutdown of the application's lifespan, and end the event loop."""
        self._running = None
        self._stack.close()

    @contextmanager
    def stream(self, url: str, *, method: str = "GET", **options: Unpack[RequestOptions]) -> Iterator[SyncEventStream]:
        """Make a request, and return the response once its head is sent; leaving the block disconnects.

        Args:
            url: A path, with or without a query.
            method: The method.
            **options: See EventStreamClient.stream.

        Raises:
            RuntimeError: The client's `with` block is not open.
            TypeError: An option is unknown or has the wrong type, or more than one body is given.
            Exception: The application raised it before the head, or in a stream that was not read to its end.
        """
        check_options("SyncEventStreamClient.stream", options)
        portal = self._portal()
        with portal.wrap_async_context_manager(self._client.stream(url, method=method, **options)) as stream:
            yield SyncEventStream(stream, portal)

    def request(self, method: str, url: str, **options: Unpack[RequestOptions]) -> SyncEventStream:
        """Make a request, and return its response when it has ended.

        Args:
            method: The method.
            url: A path, with or without a query.
            **options: See EventStreamClient.stream.

        Raises:
            RuntimeError: The client's `with` block is not open.
            TypeError: An option is unknown or has the wrong type, or more than one body is given.
            TimeoutError: The response did not end within 5 seconds.
            Exception: The application raised it.
        """
        check_options("SyncEventStreamClient.request", options)
        portal = self._portal()
        return SyncEventStream(portal.call(partial(self._client.request, method, url, **options)), portal)

    @overload
    def call(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T: ...

    @overload
    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    def call(self, function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call a function in the application's event loop, and return its result: `client.call(hub.publish, "a", 1)`.

        Args:
            function: A function, async or not.
            *args: Its arguments.
            **kwargs: Its named arguments.

        Raises:
            RuntimeError: The client's `with` block is not open.
            Exception: The function raised it.
        """

        async def run() -> Any:
            result = function(*args, **kwargs)
            return await result if isinstance(result, Coroutine) else result

        return self._portal().call(run)

    def advance(self, seconds: float) -> None:
        """Move the time of the application's event loop forward; see Clock.advance.

        Args:
            seconds: How far, 0 or more.

        Raises:
            RuntimeError: The client's `with` block is not open.
            ValueError: `seconds` is negative or not finite.
        """
        self._portal().call(self._clock.advance, seconds)

    def _portal(self) -> BlockingPortal:
        if self._running is None:
            msg = "SyncEventStreamClient needs its block: with SyncEventStreamClient(app) as client: ..."
            raise RuntimeError(msg)
        return self._running


class ClientFactory(Protocol):
    """The type of the fixture `sse_client`."""

    def __call__(
        self,
        app: ASGIApp,
        *,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        backend: str = "asyncio",
    ) -> SyncEventStreamClient:
        """Return a client for an application whose lifespan has started; see SyncEventStreamClient."""
