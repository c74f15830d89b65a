"""What FastAPI does with an endpoint that yields, and what EventSourceResponse makes of it.

FastAPI gives the generator of such an endpoint to the response class, inside another generator that sleeps after each
item. It appends the headers that the dependencies have set on a `Response` parameter. The response takes the generator
out, and takes what the endpoint itself sets until its first item.
"""

from collections.abc import Callable, Collection
from types import AsyncGeneratorType
from typing import Any, NamedTuple, Self

from starlette.responses import Response
from starlette.types import Message

from .framing import Framing

RawHeaders = list[tuple[bytes, bytes]]


def unwrapped(content: Any) -> Any:
    """Return the generator inside FastAPI's own, which has not begun; any other content as it is."""
    is_wrapper = isinstance(content, AsyncGeneratorType) and content.ag_code.co_name == "_async_stream_raw"
    if is_wrapper and content.ag_frame is not None:
        return content.ag_frame.f_locals.get("async_gen", content)
    return content


class LateHeaders(NamedTuple):
    """What an endpoint sets on its `Response` parameter until its first item.

    Attributes:
        given: The parameter.
        own: The headers of the response without those of the parameter, which FastAPI has appended.
        names: The headers that a stream has by default.
    """

    given: Response
    own: RawHeaders
    names: Collection[bytes]

    @classmethod
    def of(cls, route: Any, content: Any, headers: RawHeaders, names: Collection[bytes]) -> Self | None:
        """Return those of an endpoint's generator that has not begun; None if it has no such parameter."""
        frame = getattr(content, "ag_frame", None) or getattr(content, "gi_frame", None)
        given = None if frame is None else frame.f_locals.get(route.dependant.response_param_name)
        if not isinstance(given, Response):
            return None
        end = len(headers) - len(given.raw_headers)
        return cls(given, headers[:end], names) if headers[end:] == given.raw_headers else None

    def complete(self, head: Message) -> None:
        """Put them into the head, which has no effect if it was sent."""
        head["headers"][:] = [*self.own, *self.given.raw_headers]
        replace_defaults(head["headers"], self.names)
        head["status"] = self.given.status_code or head["status"]


class FirstFraming:
    """Calls a function before it makes the first frame, by another framing."""

    def __init__(self, framing: Framing, first: Callable[[], None]) -> None:
        self._framing = framing
        self._first: Callable[[], None] | None = first

    def write(self, item: Any) -> bytes:
        """Return the frame of an item."""
        self._begin()
        return self._framing.write(item)

    def rest(self) -> bytes:
        """Return what is left."""
        self._begin()
        return self._framing.rest()

    def _begin(self) -> None:
        first, self._first = self._first, None
        if first is not None:
            first()


def replace_defaults(headers: RawHeaders, names: Collection[bytes]) -> None:
    """Let later headers of these names, which a stream has by default, replace the earlier ones."""
    last = {name: place for place, (name, _) in enumerate(headers)}
    if len(last) < len(headers):
        pairs = enumerate(headers)
        headers[:] = [one for place, one in pairs if one[0] not in names or place == last[one[0]]]
