"""The names of a hub's keys: one slot of a cluster."""

import pytest
from redis.crc import key_slot

from sse_asgi.backends.redis._keys import Keys


def test_all_names_are_in_one_slot() -> None:
    """For any channel, and all names differ."""
    keys = Keys("sse", "hub")
    names = [keys.meta, keys.index, keys.presence_index, keys.leases, keys.schedule]
    for channel in ("a", "{b}", "\u00e4 b", ""):
        names += [
            keys.stream(channel),
            keys.presence_stream(channel),
            keys.topic(channel),
            keys.idempotency(channel),
            keys.members(channel),
            keys.present(channel),
            keys.run(channel),
        ]
    assert len(set(names)) == len(names)
    assert {key_slot(name) for name in names} == {key_slot(b"hub")}
    assert all(name.startswith(b"sse:{hub}:") for name in names)
    assert keys.idempotency(None) == keys.idempotency("")


@pytest.mark.parametrize(("prefix", "name"), [("", "a"), ("a", ""), ("a{", "a"), ("a", "b}")])
def test_a_name_that_would_move_the_slot_is_refused(prefix: str, name: str) -> None:
    """Braces are the hash tag; the error names the option."""
    with pytest.raises(ValueError, match="must not be empty nor contain braces"):
        Keys(prefix, name)
