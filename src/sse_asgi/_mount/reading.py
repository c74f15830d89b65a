"""Reading over HTTP: a GET to a stream or to a poll's answer."""

import inspect
from collections.abc import Callable
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.types import ASGIApp

from .._hub.hub import Hub
from .._hub.options import Options, check_callable
from .._hub.subscription import Subscription
from .._log.last_event_id import last_event_id
from .._stream.response import EventSourceResponse
from .._stream.terms import ResponseOptions
from .access import Access, Admission
from .polling import PollResponse
from .query import Poll, Query, QueryLimits, read_query

OnDisconnect = Callable[[Request, Subscription, str], Any]


class Reading:
    """Answers requests that read."""

    def __init__(
        self,
        hub: Hub,
        access: Access,
        limits: QueryLimits,
        options: Options,
        response_options: ResponseOptions,
        *,
        max_lifetime: float | None,
        on_disconnect: OnDisconnect | None,
    ) -> None:
        """Prepare; see EventSourceApp.

        Args:
            hub: The hub to subscribe to.
            access: Says what a request may read.
            limits: The most that a request may ask for.
            options: How readers want their events, unless their requests say otherwise.
            response_options: Options of the streams.
            max_lifetime: Another option of the streams.
            on_disconnect: Called when a stream has ended.

        Raises:
            TypeError: `on_disconnect` is not a function of a request, a subscription and a reason.
        """
        self._hub = hub
        self._access = access
        self._limits = limits
        self._options = options
        self._response_options = response_options
        self._max_lifetime = max_lifetime
        self._on_disconnect: OnDisconnect | None = check_callable(
            "on_disconnect", on_disconnect, "request", "subscription", "reason"
        )

    async def respond(self, request: Request, headers: dict[str, str]) -> ASGIApp:
        """Return the application that answers a request; its answer has these headers.

        Raises:
            HTTPException: The query is bad, or the request is refused.
        """
        query = read_query(request, self._limits)
        since = self._hub.moment() if self._access.asks else None
        admission = await self._access.admit(request)
        subscription = self._subscribe(request, admission, query, since)
        headers = {**(self._response_options.get("headers") or {}), **headers}
        if query.poll is not None:
            return self._access.watch(self._answer(subscription, query.poll, headers), subscription, admission)
        return self._access.watch(self._stream(request, subscription, query, headers), subscription, admission)

    def _subscribe(self, request: Request, admission: Admission, query: Query, since: float | None) -> Subscription:
        options = self._options
        if query.rewind is not None:
            options = options._replace(rewind=query.rewind)
        if query.poll is not None and not options.position_frames:  # a poll without events would lead nowhere
            options = options._replace(position_frames=True)
        options = options.for_reader(admission.grant.properties, admission.grant.identity, admission.presence)
        return self._hub._subscribe(admission.channels, last_event_id(request.scope), options, since)  # noqa: SLF001 - one library

    def _answer(self, subscription: Subscription, poll: Poll, headers: dict[str, str]) -> ASGIApp:
        retry = self._response_options.get("retry")
        return PollResponse(subscription, wait=poll.wait, as_stream=poll.as_stream, retry=retry, headers=headers)

    def _stream(self, request: Request, subscription: Subscription, query: Query, headers: dict[str, str]) -> ASGIApp:
        options: ResponseOptions = {**self._response_options, "headers": headers}
        if query.padding is not None:
            options["padding"] = query.padding
        response = EventSourceResponse(subscription, max_lifetime=self._max_lifetime, **options)
        if self._on_disconnect is not None and request.method != "HEAD":
            response.background = BackgroundTask(self._report_end, request, subscription, response)
        return response

    async def _report_end(self, request: Request, subscription: Subscription, response: EventSourceResponse) -> None:
        assert self._on_disconnect is not None
        assert response.reason is not None  # the background task runs after the end
        result = self._on_disconnect(request, subscription, response.reason)
        if inspect.isawaitable(result):
            await result
