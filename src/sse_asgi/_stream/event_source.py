"""Telling an EventSource, which reconnects after every end, from a client that takes a complete body for the end."""

from starlette.types import Scope

TYPE = "text/event-stream"


def is_event_source(scope: Scope) -> bool:
    """Return True for a GET whose Accept is `text/event-stream`, alone or before `*/*`.

    Observed: browsers, npm's eventsource, polyfills and httpx-sse accept `text/event-stream` alone. curl, fetch, axios,
    Datastar and sse.js do not.
    """
    if scope["method"] != "GET":
        return False
    accepted = ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"accept")
    first, *others = (one.partition(";")[0].strip().lower() for one in accepted.split(","))
    return first == TYPE and all(one in (TYPE, "*/*") for one in others)
