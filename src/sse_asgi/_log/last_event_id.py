"""The id of the last event that a client has seen, as its request says it."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

HEADER = b"last-event-id"
PARAMETER = "last_event_id"  # of pages, which put it into the URL of a new EventSource
# Of polyfills, which cannot set the header and put the id into the URL again at each reconnect.
CLIENTS_PARAMETERS = frozenset({"lastEventId", "evs_last_event_id", "Last-Event-ID"})
IN_ALL_NAMES = b"vent"


def last_event_id(scope: Mapping[str, Any]) -> str | None:
    """Return the header, or else the newest id of the query; None if the request has neither.

    A polyfill keeps the query of the page's URL and adds its own parameter behind it. So a polyfill's parameter is
    newer than the page's, and the last of several values is newer than the others.
    """
    for name, value in scope["headers"]:
        if name == HEADER:
            return str(value.decode(errors="replace"))
    query: bytes = scope.get("query_string", b"")
    if IN_ALL_NAMES not in query:  # to read a query takes longer than the rest of this
        return None
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    of_client = [value for name, value in pairs if name in CLIENTS_PARAMETERS and value]
    of_page = [value for name, value in pairs if name == PARAMETER]
    return next(reversed(of_client or of_page), None)
