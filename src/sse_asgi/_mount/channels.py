"""The channels of a request: fixed names, templates, patterns, or the choice of a function."""

import inspect
from collections.abc import Callable, Collection, Iterable, Sequence
from string import Formatter
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from .._hub.options import check_callable, check_channels, check_public
from .._hub.patterns import STAR, Pattern, compile_pattern
from .._log.names import RESERVED

ANY = "*"

Channels = Collection[str] | Callable[[Request], Any]


class ServedChannels:
    """The channels that a mounted app serves."""

    def __init__(
        self, channels: Channels | None, *, default: str, limit: int = 100, gathered: Collection[str] = ()
    ) -> None:
        """Check the options.

        Args:
            channels: See EventSourceApp.
            default: The channel of a request that names none, if `channels` has no names.
            limit: The most names in one request.
            gathered: The hub's patterns; the hub gathers the matching events of each in a channel of its name.

        Raises:
            ValueError: A name that is never served, or a template that cannot be read.
            TypeError: A name that is not a str.
        """
        self._function = check_callable("channels", channels, "request") if callable(channels) else None
        self._unsaid = channels is None
        self._any = channels == ANY
        listed = default if channels is None or channels == ANY or callable(channels) else channels
        self._names = [_Name(name) for name in offered((listed,) if isinstance(listed, str) else listed)]
        self._limit = limit
        self._gathered = gathered

    @property
    def chosen(self) -> bool:
        """True if a function chooses the channels."""
        return self._function is not None

    async def of(self, request: Request, asked: Sequence[str], *, unsaid_is_any: bool) -> tuple[str, ...]:
        """Return the channels of a request.

        Args:
            request: The request.
            asked: The names in the request.
            unsaid_is_any: Whether `channels=None` serves every name, as `"*"` does.

        Raises:
            HTTPException: 400 or 403, with the reason.
            ValueError: The route has no path parameter for a template.
            TypeError: The function returned a value that is not a name or names.
        """
        if self._function is not None:
            return self.explicit(await _chosen(self._function, request))
        names = [name.fill(request, self._gathered) for name in self._names]
        patterns = [text for name, text in zip(self._names, names, strict=True) if name.is_pattern]
        plain = [text for text in names if text not in patterns]
        if asked:
            wanted = self.readable(asked)
            for name in wanted:
                self._check(name, plain, patterns, any_name=self._any or (self._unsaid and unsaid_is_any))
            return self._gathering(wanted)
        every = plain or [name for name in patterns if name in self._gathered]
        if not every:
            raise HTTPException(400, "the request must name a channel, as in ?channel=...")
        return self._gathering(dict.fromkeys(every))

    def _gathering(self, allowed: Iterable[str]) -> tuple[str, ...]:
        return tuple(Pattern(name) if name in self._gathered else name for name in allowed)

    def explicit(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names that an application gave; only a Pattern may name a pattern of the hub.

        Raises:
            HTTPException: 403, a str names a pattern, so a part of it may come from the request.
        """
        for name in names:
            if name in self._gathered and not isinstance(name, Pattern):
                raise _no_pattern(name)
        return names

    def readable(self, asked: Sequence[str]) -> tuple[str, ...]:
        """Return the names of a request, each once.

        Raises:
            HTTPException: 400, a bad name or too many.
        """
        if len(asked) > self._limit:
            raise HTTPException(400, f"a request must name at most {self._limit} channels (got {len(asked)})")
        return _readable(asked)

    def _check(self, name: str, plain: list[str], patterns: list[str], *, any_name: bool) -> None:
        if name in plain:
            return
        if STAR in name:
            if name in patterns and name in self._gathered:
                return
            raise _no_pattern(name)
        if name.startswith(RESERVED) or not (any_name or any(compile_pattern(one)(name) for one in patterns)):
            raise HTTPException(403, f"the channel {name!r} is not served here")


def offered(names: Any) -> tuple[str, ...]:
    """Check names that an application serves or signs.

    Raises:
        ValueError: A bad name, or one of the library's own.
        TypeError: A value that is not a collection of names.
    """
    return check_public(check_channels(names))


def _no_pattern(name: str) -> HTTPException:
    return HTTPException(403, f"the pattern {name!r} is not served here: ask for channels by their names")


def _readable(names: Collection[str]) -> tuple[str, ...]:
    try:
        return check_channels(names)
    except ValueError as error:
        raise HTTPException(400, str(error)) from error


async def _chosen(function: Callable[[Request], Any], request: Request) -> tuple[str, ...]:
    chosen = function(request)
    if inspect.isawaitable(chosen):
        chosen = await chosen
    names = (chosen,) if isinstance(chosen, str) else tuple(chosen or ())
    if not names:
        raise HTTPException(403, "the application has no channel for this request")
    return _not_reserved(_readable(names))


def _not_reserved(names: tuple[str, ...]) -> tuple[str, ...]:
    if any(name.startswith(RESERVED) for name in names):
        raise HTTPException(403, f"channels beginning with {RESERVED!r} are not served")
    return names


class _Name:
    """A name that is served: plain as `news`, a template as `room:{room}`, a pattern as `orders.*`, or both in one."""

    def __init__(self, text: str) -> None:
        self._text = text
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:
            parts, problem = [], str(error)
        else:
            wrong = [field for _, field, spec, conversion in parts if field is not None and (spec or conversion)]
            wrong += [field for _, field, _, _ in parts if field is not None and not field.isidentifier()]
            problem = f"{wrong[0]!r} is not a path parameter" if wrong else ""
        if problem:
            msg = f"a template must be like 'room:{{room}}' (got {text!r}; {problem}): write {{{{ and }}}} for braces"
            raise ValueError(msg)
        self._parts = [(literal, field) for literal, field, _, _ in parts]
        self.is_pattern = any(STAR in literal for literal, _ in self._parts)

    def fill(self, request: Request, gathered: Collection[str]) -> str:
        """Return the name, filled from the path parameters of a request; a `*` in them is not a wildcard."""
        values = {field: self._value(field, request) for _, field in self._parts if field is not None}
        if not values:
            return "".join(literal for literal, _ in self._parts)
        text = "".join(literal + ("" if field is None else values[field]) for literal, field in self._parts)
        if any(STAR in value for value in values.values()) and (self.is_pattern or text in gathered):
            raise _no_pattern(text)
        return _not_reserved(_readable((text,)))[0]

    def _value(self, field: str, request: Request) -> str:
        try:
            return str(request.path_params[field])
        except KeyError:
            msg = f"the template {self._text!r} needs a path parameter: mount the app at '.../{{{field}}}'"
            raise ValueError(msg) from None
