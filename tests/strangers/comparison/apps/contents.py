"""The parts that every peer's streams share."""

from collections import Counter
from typing import Any
from urllib.parse import parse_qsl

PART = "x" * 16_384
FLOOD = 1_000  # events, 16 MiB

taken: Counter[str] = Counter()


def asked(query: str) -> dict[str, Any]:
    """Return the fields of the event that a query asks for."""
    return dict(parse_qsl(query, keep_blank_values=True))


def report(fact: str) -> None:
    """Tell the test, which reads the server's output."""
    print(fact, flush=True)
