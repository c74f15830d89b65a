"""ConnectionLimit: how many event streams may be open at once."""

import inspect
import random
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import Scope

from .event_source import may_be_event_source

RETRY_MS = (2000, 6000)
BODY_HEADERS = (b"content-type", b"content-length", b"content-encoding")

Headers = list[tuple[bytes, bytes]]
Refusal = tuple[int, Headers, bytes]


class ConnectionLimit:
    """Refuses new streams beyond a limit, and never ends an open one, so that no client can push another one out.

    A refused EventSource gets an empty stream with a random `retry:` of two to six seconds, and asks again. Any other
    client gets a 503 with a random Retry-After.

    Attributes:
        open: The number of open streams in this process. A stream counts until its cleanup and background task end.
        open_by_key: The number of open streams of each key.
    """

    def __init__(
        self,
        total: int | None = None,
        *,
        per_key: int | None = None,
        key: Callable[[HTTPConnection], Hashable] | None = None,
    ) -> None:
        """Set the limits, each for one process.

        Args:
            total: The most streams; None sets no such limit.
            per_key: The most streams whose requests have the same key.
            key: A plain function of the request that returns its key, such as the user. A stream whose key is None
                counts for the total only. Behind a proxy the client's address may be the proxy's.

        Raises:
            TypeError: `key` is an async function.
            ValueError: A limit is not an int above 0, or only one of `per_key` and `key` is given.
        """
        for name, limit in (("total", total), ("per_key", per_key)):
            if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
                msg = f"{name} must be an int above 0 (got {limit!r}): None sets no limit"
                raise ValueError(msg)
        if (per_key is None) != (key is None):
            msg = (
                f"per_key and key go together (got only {'key' if per_key is None else 'per_key'}): "
                "give both, as in per_key=6, key=lambda request: request.cookies.get('session')"
            )
            raise ValueError(msg)
        if inspect.iscoroutinefunction(key):
            msg = f"key must be a plain function of the request (got the async function {key!r}): await nothing in it"
            raise TypeError(msg)
        self.open: int = 0
        self.open_by_key: Counter[Hashable] = Counter()
        self._total = total
        self._per_key = per_key
        self._key = key

    def enter(self, scope: Scope) -> Callable[[], None] | None:
        """Count a stream in; return a function that counts it out again, or None if the limit refuses the stream."""
        key = None if self._key is None else self._key(HTTPConnection(scope))
        if self._total is not None and self.open >= self._total:
            return None
        if key is not None and self._per_key is not None and self.open_by_key[key] >= self._per_key:
            return None
        self.open += 1
        if key is not None:
            self.open_by_key[key] += 1

        def leave() -> None:
            self.open -= 1
            if key is not None:
                self.open_by_key[key] -= 1
                if not self.open_by_key[key]:
                    del self.open_by_key[key]

        return leave


def as_limit(value: Any) -> ConnectionLimit | None:
    """Return the value of `max_connections`, a limit, a total or None, as a limit or None.

    Raises:
        TypeError: The value has another type.
        ValueError: The total is below 1.
    """
    if value is None or isinstance(value, ConnectionLimit):
        return value
    if not isinstance(value, int):
        msg = f"max_connections must be an int, a ConnectionLimit or None, not {type(value).__name__} (got {value!r})"
        raise TypeError(msg)
    return ConnectionLimit(value)


def refused_body() -> bytes:
    """Return the whole body of a refused stream."""
    return b"retry: %d\n\n" % random.randint(*RETRY_MS)  # noqa: S311 - a spread, not a secret


def refusal(scope: Scope, headers: Headers) -> Refusal:
    """Return the status, the headers and the body of the answer to a refused stream.

    An EventSource gives up for good on any other answer than a stream. A client of another kind would take an empty
    stream for a complete answer.

    Args:
        scope: The request's.
        headers: The headers of the stream, such as those of CORS.
    """
    if may_be_event_source(scope):
        return 200, headers, refused_body()
    seconds = random.randint(RETRY_MS[0] // 1000, RETRY_MS[1] // 1000)  # noqa: S311 - a spread, not a secret
    kept = [header for header in headers if header[0].lower() not in BODY_HEADERS]
    return 503, [*kept, (b"retry-after", b"%d" % seconds), (b"content-length", b"0")], b""
