"""Access: which requests may read, asked when a stream begins and while it is open."""

import inspect
import logging
import math
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from typing import Any, NamedTuple

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from .._hub.options import check_callable, check_seconds
from .._hub.subscription import Subscription
from .._log.logged import about, one_line
from .._loop.tasks import Child, spawn
from .._loop.timer import Alarm, shared_timer, spread
from .channels import ServedChannels
from .grant import Grant, as_grant
from .tickets import ChannelSigner, TicketError

logger = logging.getLogger("sse_asgi.mount")

LOOK_SECONDS = 3600.0
ASK_SECONDS = 30.0
SERVER_ERROR = 500
CHALLENGE = {"WWW-Authenticate": "Ticket"}  # a browser does not know this scheme, so it does not ask for a password

Authorize = Callable[[Request, tuple[str, ...]], Any]


class VerdictError(TypeError):
    """A function of the application returned a value that looks like a refusal, but does not refuse."""


async def verdict(name: str, answer: Any) -> Any:
    """Return the result of an application's function, which refuses a request by raising HTTPException.

    Args:
        name: The function's name as an option.
        answer: The value that calling it returned; an awaitable is awaited.

    Raises:
        VerdictError: The result is a bool or a Response, which may have been meant as a refusal.
    """
    result = await answer if inspect.isawaitable(answer) else answer
    if isinstance(result, bool | Response):
        msg = f"{name} returned {result!r}, which does not refuse: raise HTTPException(403) to refuse, or return None"
        raise VerdictError(msg)
    return result


class Admission(NamedTuple):
    """The result of an access check that let a request in.

    Attributes:
        channels: The channels of the stream.
        grant: The reader's properties and identity, and the time at which the permission expires.
        ask: Authorizes the request again; None if a ticket was enough.
        presence: The channels on which the reader is listed.
    """

    channels: tuple[str, ...]
    grant: Grant
    ask: Callable[[], Awaitable[Grant]] | None = None
    presence: tuple[str, ...] = ()


class Access:
    """Lets requests in, by a ticket or by the application's function."""

    def __init__(
        self,
        served: ServedChannels,
        authorize: Authorize | None,
        *,
        revalidate: float | None,
        tickets: ChannelSigner | None,
        presence: bool,
    ) -> None:
        """Check the options; see EventSourceApp.

        Raises:
            TypeError: `authorize` is not a function of a request and channels, or `tickets` is not a ChannelSigner.
            ValueError: `revalidate` is not above 0, or an option needs another one.
        """
        self._served = served
        self._authorize: Authorize | None = check_callable("authorize", authorize, "request", "channels")
        self._revalidate = check_seconds("revalidate", revalidate)
        self._tickets = tickets
        self._presence = presence
        if tickets is not None and not isinstance(tickets, ChannelSigner):
            msg = f"tickets must be a ChannelSigner (got {type(tickets).__name__}): make one with ChannelSigner(secret)"
            raise TypeError(msg)
        if revalidate is not None and authorize is None:
            msg = "revalidate= asks authorize= again, which is not given"
            raise ValueError(msg)
        if presence and not self.restricts:
            msg = "presence=True needs authorize= or tickets=, which say who the readers are"
            raise ValueError(msg)

    @property
    def asks(self) -> bool:
        """True if the application's function is asked."""
        return self._authorize is not None

    @property
    def restricts(self) -> bool:
        """True if a request needs a permission, which may be withdrawn."""
        return self._authorize is not None or self._tickets is not None

    async def admit(self, request: Request) -> Admission:
        """Let a request in.

        Raises:
            HTTPException: The request is refused.
        """
        admission = await self._admit(request)
        if self._presence and admission.grant.identity is not None:
            return admission._replace(presence=admission.channels)
        return admission

    async def _admit(self, request: Request) -> Admission:
        asked = request.query_params.getlist("channel")
        ticket = request.query_params.getlist("ticket")
        if self._tickets is not None and ticket:
            return self._by_ticket(self._tickets, ticket[0], asked)
        if self._tickets is not None and self._authorize is None:
            raise HTTPException(401, "a ticket is needed, as ?ticket=...", CHALLENGE)
        channels = await self._served.of(request, asked, unsaid_is_any=self._authorize is not None)
        if self._authorize is None:
            return Admission(channels, Grant())
        ask = partial(self._ask, self._authorize, request, channels)
        return Admission(channels, await ask(), ask)

    def _by_ticket(self, signer: ChannelSigner, text: str, asked: list[str]) -> Admission:
        try:
            ticket = signer.read(text)
        except TicketError as error:
            raise HTTPException(401, str(error), CHALLENGE) from error
        allowed = {name: name for name in self._served.explicit(ticket.channels)}  # a Pattern is equal to its name
        channels = self._served.readable(asked) if asked else ticket.channels
        for name in channels:
            if name not in allowed:
                raise HTTPException(403, f"the ticket is not for the channel {name!r}")
        return Admission(tuple(allowed[name] for name in channels), ticket.grant)

    async def _ask(self, authorize: Authorize, request: Request, channels: tuple[str, ...]) -> Grant:
        grant = as_grant(await verdict("authorize", authorize(request, channels)))
        if grant.seconds_left <= 0:
            raise HTTPException(401, "the grant has expired", CHALLENGE)
        return grant

    def watch(self, response: ASGIApp, subscription: Subscription, admission: Admission) -> ASGIApp:
        """Return the response, inside a WatchedResponse if the permission can end."""
        every = self._revalidate if admission.ask is not None else None
        if every is None and admission.grant.expires_at is None:
            return response
        return WatchedResponse(response, subscription, admission, every)


class WatchedResponse:
    """A response whose stream ends, as `revoked`, when its grant expires or is not given again."""

    def __init__(
        self, response: ASGIApp, subscription: Subscription, admission: Admission, every: float | None
    ) -> None:
        """Prepare.

        Args:
            response: The response to serve.
            subscription: The subscription that the response reads.
            admission: The permission to watch.
            every: Seconds, give or take a fifth, after which the request is authorized again; None never does.
        """
        self._response = response
        self._subscription = subscription
        self._grant = admission.grant
        self._ask = admission.ask
        self._every = every
        self._expiry = Alarm()
        self._question = Alarm()
        self._child: Child | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, and watch its permission until it has ended."""
        self._scope = scope
        self._timer = shared_timer()
        self._context = copy_context()  # an alarm rings in the context of another request, that of the timer
        self._look()
        self._ask_later()
        try:
            await self._response(scope, receive, send)
        finally:
            self._every = None
            self._expiry.cancel()
            self._question.cancel()
            if self._child is not None:
                self._child.cancel()

    def _look(self) -> None:
        """End the stream if its grant has expired.

        Otherwise look again when it expires, or in LOOK_SECONDS: the time of day may be set in the meantime.
        """
        left = self._grant.seconds_left
        if left <= 0:
            self._subscription.end("revoked")
        elif left < math.inf:
            self._expiry = self._timer.after(min(left, LOOK_SECONDS), self._look)

    def _ask_later(self) -> None:
        if self._every is not None:
            self._question = self._timer.after(spread(self._every), self._begin_check)

    def _begin_check(self) -> None:
        self._child = self._context.run(spawn, self._check)

    async def _check(self) -> None:
        assert self._ask is not None
        try:
            with anyio.fail_after(ASK_SECONDS):
                grant = await self._ask()
        except Exception as error:  # noqa: BLE001 - the application may raise anything
            refused = self._is_refusal(error)
        else:
            refused = grant.identity != self._grant.identity  # the stream is listed under the old identity
            if not refused:
                self._adopt(grant)
        if refused:
            self._subscription.end("revoked")
        else:
            self._ask_later()

    def _is_refusal(self, error: Exception) -> bool:
        """Return True if the stream must end; log an error of the application."""
        if isinstance(error, HTTPException) and error.status_code < SERVER_ERROR:
            return True
        refused = isinstance(error, VerdictError)
        outcome = "is ended" if refused else "goes on"
        told = "the stream %s could not be authorised again, and %s"
        extra = about("authorize_failed", self._scope, self._subscription.channels)
        logger.error(told, one_line(self._scope["path"]), outcome, exc_info=error, extra=extra)
        return refused

    def _adopt(self, grant: Grant) -> None:
        self._grant = grant
        self._subscription.options = self._subscription.options._replace(properties=grant.properties)
        self._expiry.cancel()
        self._look()
