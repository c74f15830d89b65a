"""Which channels a request gets: fixed names, templates, patterns, or what a function says."""

import inspect
from collections.abc import Callable, Collection
from string import Formatter
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from ._options import check_channels
from ._patterns import compile_pattern

RESERVED = "sse."
WILDCARD = "*"

Channels = Collection[str] | Callable[[Request], Any]


class ServedChannels:
    """What a mounted app serves, and to which request."""

    def __init__(
        self, channels: Channels | None, default_channel: str, limit: int, patterns: Collection[str], *, open_to_any: bool
    ) -> None:
        """Check what was given.

        Args:
            channels: See EventSourceApp.
            default_channel: What a request gets that names none.
            limit: The most names in one request.
            patterns: Those whose events the hub gathers in a channel of their name.
            open_to_any: Whether any name is served where `channels` is None.

        Raises:
            ValueError: A name that cannot be served, or a template that cannot be filled.
            TypeError: Names that are no str.
        """
        self._default = served((default_channel,))
        self._limit = limit
        self._gathered = patterns
        self._function = channels if callable(channels) else None
        self._any = channels == WILDCARD or (channels is None and open_to_any)
        given = self._default if channels is None or callable(channels) or channels == WILDCARD else channels
        self._names = served((given,) if isinstance(given, str) else given)
        for name in self._names:
            _check_template(name)

    async def of(self, request: Request) -> tuple[str, ...]:
        """Return the channels of a request.

        Raises:
            HTTPException: 400 or 403, with the reason.
            ValueError: The application's function gave a bad name, or a template has no such path parameter.
        """
        if self._function is not None:
            return await self._chosen(request)
        names = tuple(_filled(name, request) for name in self._names)
        asked = request.query_params.getlist("channel")
        if not asked:
            return self._all(names)
        if len(asked) > self._limit:
            raise HTTPException(400, f"at most {self._limit} channels in one request, not {len(asked)}")
        wanted = requested(asked)
        for name in wanted:
            self._check(name, names)
        return wanted

    async def _chosen(self, request: Request) -> tuple[str, ...]:
        assert self._function is not None
        chosen = self._function(request)
        if inspect.isawaitable(chosen):
            chosen = await chosen
        if not chosen:
            raise HTTPException(403, "there is no channel here for this request")
        return _not_reserved(check_channels((chosen,) if isinstance(chosen, str) else chosen))
