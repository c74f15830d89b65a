"""Telling an EventSource, which reconnects after every end, from a client that takes a complete body for the end.

No header names an EventSource. The standard lets it accept `text/event-stream` and bypass caches, and two headers say
so: https://html.spec.whatwg.org/multipage/server-sent-events.html#the-eventsource-interface. Observed: Chromium,
Firefox and WebKit send `Cache-Control: no-cache` for an EventSource. They do not send it for a fetch that accepts the
same type, such as the fetches of fetch-event-source and Datastar.
"""

from starlette.types import Scope

from .headers import header

TYPE = "text/event-stream"
NO_CACHE = ("no-cache", "no-store")


def is_event_source(scope: Scope) -> bool:
    """Return True for a GET that accepts `text/event-stream` and bypasses caches, as an EventSource does."""
    return may_be_event_source(scope) and _values(scope, b"cache-control")[0] in NO_CACHE


def may_be_event_source(scope: Scope) -> bool:
    """Return True for a GET whose Accept is `text/event-stream`, alone or before `*/*`.

    A proxy may remove Cache-Control. An EventSource never reconnects after an error status, so a client that may be one
    gets none.
    """
    if scope["method"] != "GET":
        return False
    first, *others = _values(scope, b"accept")
    return first == TYPE and all(one in (TYPE, "*/*") for one in others)


def _values(scope: Scope, name: bytes) -> list[str]:
    """Return the values of a header without their parameters, in lower case; one empty str if there is no header."""
    return [one.partition(";")[0].strip().lower() for one in (header(scope, name) or "").split(",")]
