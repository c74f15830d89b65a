"""The idempotency keys that the memory backend remembers."""

from sse_asgi._log.position import Position
from sse_asgi.backends._idempotency import KEY_BYTES, PublishedKeys
from sse_asgi.backends._shelf import Bounds, Shelf

FIRST = Position("0badc0de", 1)


def keys_of(bound: int) -> tuple[PublishedKeys, Shelf]:
    """Make a memory of keys with a bound, and the events whose room they take."""
    shelf = Shelf(Bounds(10, 10_000, 10_000, 10))
    return PublishedKeys(shelf, bound), shelf


def test_a_key_has_the_position_of_its_event() -> None:
    """Without history the position is None."""
    keys, _ = keys_of(1000)
    keys.remember("a", 0.0, FIRST)
    keys.remember("b", 1.0, None)
    assert keys.known == {"a": (0.0, FIRST), "b": (1.0, None)}


def test_keys_are_forgotten_after_two_minutes() -> None:
    """The others stay, and the bytes are counted back."""
    keys, _ = keys_of(1000)
    keys.remember("\u00e4", 0.0, FIRST)
    keys.remember("b", 1.0, FIRST)
    assert keys.size == 2 * KEY_BYTES + 3
    keys.forget_old(120.5)
    assert (list(keys.known), keys.size) == (["b"], KEY_BYTES + 1)
    keys.forget_old(121.5)
    assert (list(keys.known), keys.size) == ([], 0)


def test_the_oldest_keys_are_forgotten_beyond_the_bound() -> None:
    """The newest key is remembered however long it is."""
    keys, _ = keys_of(2 * KEY_BYTES)
    for number in range(3):
        keys.remember(str(number), 0.0, FIRST)
    assert keys.known.keys() == {"2"}
    keys.remember("x" * 1000, 0.0, FIRST)
    assert keys.known.keys() == {"x" * 1000}


def test_keys_take_room_of_the_events() -> None:
    """An event is dropped for a key, and has room again when the key is forgotten."""
    keys, shelf = keys_of(10_000)
    shelf.keep(1, 0.0, b"x" * 5000, ("a",), None)
    keys.remember("k" * 5000, 0.0, FIRST)
    assert shelf.logs == {}
    keys.forget_old(200.0)
    shelf.keep(2, 200.0, b"x" * 9000, ("a",), None)
    assert shelf.logs.keys() == {"a"}
