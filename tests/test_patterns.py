"""Patterns: what a hub gathers under the name of a pattern."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_asgi import Hub
from sse_asgi._patterns import compile_pattern

CASES = [
    ("orders.*", "orders.1", True),
    ("orders.*", "orders.", True),
    ("orders.*", "orders", False),
    ("orders.*", "my orders.1", False),
    ("*", "a\nb", True),
    ("a*b*c", "a--b--c", True),
    ("a*b*c", "a--c--b", False),
    ("a.c*", "abc", False),
    ("[a]?*", "[a]?b", True),
    ("[a]?*", "aab", False),
]


@pytest.mark.parametrize(("pattern", "name", "matches"), CASES)
def test_a_star_is_any_run_of_characters(pattern: str, name: str, *, matches: bool) -> None:
    """Nothing else is special."""
    assert compile_pattern(pattern)(name) is matches


@given(st.lists(st.text(max_size=3), min_size=2, max_size=4), st.data())
def test_whatever_stands_for_the_stars_matches(parts: list[str], data: st.DataObject) -> None:
    """A name that is made by replacing each star matches."""
    fixed = [part.replace("*", "") for part in parts]
    name = fixed[0] + "".join(data.draw(st.text(max_size=3)) + part for part in fixed[1:])
    assert compile_pattern("*".join(fixed))(name)


def test_a_name_without_a_star_is_no_pattern() -> None:
    """It would be gathered from itself."""
    with pytest.raises(ValueError, match=r"'orders' has no '\*'.*need not be gathered"):
        Hub(patterns=["orders"])
    with pytest.raises(TypeError, match="collection of str"):
        Hub(patterns=7)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_a_reader_of_a_pattern_gets_what_is_published_to_channels_that_match() -> None:
    """Live and from history, each event once, in the order of the hub."""
    async with Hub(patterns=["orders.*", "*.eu"]) as hub:
        first = await hub.publish("orders.1", "before")
        async with hub.subscribe("orders.*", "*.eu", last_event_id=first) as reader:
            await hub.publish("orders.eu", "both")
            await hub.publish("users.1", "neither")
            await hub.publish(["users.1", "users.eu"], "one of two")
            assert [(await anext(reader)).data for _ in range(2)] == ["both", "one of two"]
        assert [event.data for event in await hub.history("orders.*")] == ["before", "both"]
