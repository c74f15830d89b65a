"""The arguments of `Hub.start_run`."""

import math
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from sse_asgi._hub.run_options import RunTerms, check_run, check_run_key, check_whole, source_of

TERMS = RunTerms(60.0, 10, 1000, None, 15.0)


async def events() -> AsyncIterator[str]:
    yield "x"


async def forgotten() -> list[str]:
    return ["x"]


def test_right_arguments_are_accepted() -> None:
    check_run("a", events, TERMS, None)
    check_run("a" * 498, ["x"], TERMS._replace(orphan_timeout=1), "print")


@pytest.mark.parametrize(
    ("key", "source", "terms", "fingerprint", "told"),
    [
        (7, events, {}, None, "key of a run must be a str"),
        ("a", events, {}, b"x", "fingerprint must be a str"),
        ("a", "text", {}, None, "must be iterable"),
        ("a", {"a": 1}, {}, None, "must be iterable"),
        ("a", 7, {}, None, "must be iterable"),
        ("a", forgotten, {}, None, "put a `yield` into it"),
        ("a", events, {"max_events": 1.5}, None, "max_events must be an int"),
        ("a", events, {"max_bytes": True}, None, "max_bytes must be an int"),
        ("a", events, {"ttl": "1"}, None, "ttl must be a number"),
    ],
)
def test_a_wrong_type_is_told(key: Any, source: Any, terms: Any, fingerprint: Any, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        check_run(key, source, TERMS._replace(**terms), fingerprint)


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        ({"ttl": 0}, "ttl must be above 0"),
        ({"ttl": None}, "ttl must be a finite"),
        ({"ttl": math.inf}, "ttl must be a finite"),
        ({"orphan_timeout": math.inf}, "orphan_timeout must be a finite"),
        ({"orphan_timeout": -1}, "orphan_timeout must be above 0"),
        ({"max_events": 0}, "max_events must be at least 1"),
        ({"max_bytes": 0}, "max_bytes must be at least 1"),
    ],
)
def test_a_bad_number_is_told(terms: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_run("a", events, TERMS._replace(**terms), None)


@pytest.mark.parametrize("key", ["", "a\nb", "a" * 499, "\u00e4" * 250])
def test_a_bad_key_is_told(key: str) -> None:
    with pytest.raises(ValueError, match=r"channel name|key of a run"):
        check_run_key(key)


def test_a_whole_number_is_accepted() -> None:
    check_whole("max_runs", 1)


def test_the_function_is_called_for_its_source() -> None:
    assert source_of(lambda: ["x"]) == ["x"]
    assert source_of(("x",)) == ("x",)


@pytest.mark.parametrize("function", [partial(forgotten), lambda: None, lambda: list])
def test_a_function_that_returns_no_iterable_is_told(function: Any) -> None:
    with pytest.raises(TypeError, match="must be iterable"):
        source_of(function)
