"""Delivery: one entry and how it is handed over."""

import pytest

from sse_asgi import ServerSentEvent
from sse_asgi._hub.delivery import Delivery
from sse_asgi._log.event import Entry, RenderedEvent
from sse_asgi._log.position import Position

PLAIN = Entry(ServerSentEvent("x"), Position("0000000a", 5), ("a",))
RENDERED = Entry(RenderedEvent(str, None, None), Position("0000000a", 6), ("a",))


@pytest.mark.parametrize(
    ("entry", "asked", "at_once"),
    [(PLAIN, True, True), (PLAIN, False, False), (RENDERED, True, False), (RENDERED, False, False)],
)
def test_only_a_frame_for_all_readers_goes_at_once(entry: Entry, asked: bool, at_once: bool) -> None:  # noqa: FBT001 - a row
    """An event that is rendered for each reader is held, also after a pause."""
    assert Delivery(entry, 1.5, at_once=asked).at_once == at_once


def test_a_delivery_carries_its_entry_and_time() -> None:
    """No connection has made a message of it yet."""
    delivery = Delivery(PLAIN, 1.5, at_once=True)
    assert (delivery.entry, delivery.position, delivery.now) == (PLAIN, PLAIN.position, 1.5)
    assert delivery.message is None
