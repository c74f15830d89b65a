"""How many event streams may be open at once."""

import inspect
import random
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import Scope

RETRY_MS = (2000, 6000)


class ConnectionLimit:
    """Refuses the newest streams, and never ends one that is open, so that no client is in the way of another.

    A refused EventSource gets an empty stream with a random `retry:` of two to six seconds, and asks again.

    Attributes:
        open: How many streams are open in this process, until they are cleaned up and their background task is done.
        open_by_key: How many of them each key has.
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
            total: The most streams; None for no such limit.
            per_key: The most streams whose requests have the same key.
            key: A plain function of the request, such as its user; a stream whose key is None counts for the total
                only. Behind a proxy the client's address may be the proxy's.

        Raises:
            TypeError: An async `key`.
            ValueError: A limit that is no int above 0, or `per_key` without `key`, or the reverse.
        """
        for name, limit in (("total", total), ("per_key", per_key)):
            if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
                msg = f"{name}={limit!r} must be an int above 0; None sets no limit"
                raise ValueError(msg)
        if (per_key is None) != (key is None):
            msg = "per_key and key go together, as in per_key=6, key=lambda request: request.cookies.get('session')"
            raise ValueError(msg)
        if inspect.iscoroutinefunction(key):
            msg = "key must be a plain function of what is in the request"
            raise TypeError(msg)
        self.open = 0
        self.open_by_key: Counter[Hashable] = Counter()
        self._total = total
        self._per_key = per_key
        self._key = key

    def enter(self, scope: Scope) -> Callable[[], None] | None:
        """Count a stream in; return what counts it out again, or None if it is one too many."""
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
    """Take what `max_connections` may be: a limit, a total, or None.

    Raises:
        TypeError: It is something else.
        ValueError: A total below 1.
    """
    if value is None or isinstance(value, ConnectionLimit):
        return value
    if not isinstance(value, int):
        msg = f"max_connections must be an int, a ConnectionLimit or None, not {type(value).__name__}"
        raise TypeError(msg)
    return ConnectionLimit(value)


def refused_body() -> bytes:
    """Write the whole body of a stream that was refused."""
    return b"retry: %d\n\n" % random.randint(*RETRY_MS)  # noqa: S311 - a spread, not a secret
