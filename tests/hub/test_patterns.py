"""Patterns: channels that gather the events of all matching channels."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_asgi import Hub, Pattern
from sse_asgi._hub.patterns import Patterns, compile_pattern

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


@given(st.text("ab*", min_size=1).filter(lambda text: "*" in text), st.text("ab*"))
def test_it_matches_as_a_regular_expression_would(pattern: str, name: str) -> None:
    """Also where parts of the name could stand for several parts of the pattern."""
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None
    assert compile_pattern(pattern)(name) is expected


def test_what_does_not_match_is_found_out_at_once() -> None:
    """However many ways there are to begin: a request's names must not keep the process busy."""
    begun = time.process_time()
    assert not compile_pattern("*.*.*.*.done")("." * 512)
    assert time.process_time() - begun < 1


def test_a_name_without_a_star_is_no_pattern() -> None:
    """It would gather its own events."""
    with pytest.raises(ValueError, match=r"must have a '\*' \(got 'orders'\).*need not be gathered"):
        Hub(patterns=["orders"])
    with pytest.raises(TypeError, match="collection of str"):
        Hub(patterns=7)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_a_reader_of_a_pattern_gets_what_is_published_to_channels_that_match() -> None:
    """Live and from history, each event once, in the order of the hub."""
    async with Hub(patterns=["orders.*", "*.eu"]) as hub:
        first = await hub.publish("orders.1", "before")
        async with hub.subscribe(*hub.patterns, last_event_id=first) as reader:
            await hub.publish("orders.eu", "both")
            await hub.publish("users.1", "neither")
            await hub.publish(["users.1", "users.eu"], "one of two")
            assert [(await anext(reader)).data for _ in range(2)] == ["both", "one of two"]
        assert [event.data for event in await hub.history(Pattern("orders.*"))] == ["before", "both"]
        async with hub.subscribe(Pattern("orders.*"), identity="ada", presence=True):
            assert await hub.presence(Pattern("orders.*")) == ["ada"]


USES: list[Callable[[Hub, str], Any]] = [
    lambda hub, name: hub.subscribe("a", name).__aenter__(),
    lambda hub, name: hub.history(name),
    lambda hub, name: hub.presence(name),
]


@pytest.mark.anyio
@pytest.mark.parametrize("use", USES)
async def test_what_is_gathered_is_asked_for_as_a_pattern(use: Callable[[Hub, str], Any]) -> None:
    """A name with user input, such as `orders.` and a query, does not give access to the events of all."""
    async with Hub(patterns=["orders.*"]) as hub:
        with pytest.raises(ValueError, match=r"'orders\.\*' is a pattern of this hub.*say Pattern\('orders"):
            await use(hub, "orders.*")
        with pytest.raises(ValueError, match=r"pattern 'bills\.\*' is not gathered.*patterns=\['bills"):
            await use(hub, Pattern("bills.*"))


@pytest.mark.anyio
async def test_a_name_like_a_pattern_is_a_name_where_it_is_not_gathered() -> None:
    """A star has no meaning then."""
    async with Hub(patterns=["orders.*"]) as hub, hub.subscribe("bills.*") as reader:
        await hub.publish("bills.1", "another")
        await hub.publish("bills.*", "its own")
        assert (await anext(reader)).data == "its own"


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["orders.*", Pattern("orders.*"), Pattern("bills.*")])
async def test_a_pattern_is_not_published_to(name: str) -> None:
    """It only gathers."""
    async with Hub(patterns=["orders.*"]) as hub:
        with pytest.raises(ValueError, match="only gathers what is published to channels that match"):
            await hub.publish(["a", name], "x")


def test_the_librarys_own_channels_are_not_gathered() -> None:
    """A pattern has a channel of its name."""
    with pytest.raises(ValueError, match="library's own"):
        Hub(patterns=["sse.*"])


def test_a_channel_is_published_to_its_patterns_as_well() -> None:
    """Each pattern once, after the channels; without patterns the channels are returned as they are."""
    patterns = Patterns(["orders.*", "*.eu"])
    assert patterns.gather(("orders.eu", "users.eu")) == ("orders.eu", "users.eu", "orders.*", "*.eu")
    channels = ("orders.eu",)
    assert Patterns(()).gather(channels) is channels
