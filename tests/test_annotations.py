"""What the annotations of endpoints say: names and types of events, and which of them contradict each other."""

import typing
from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable
from functools import partial, wraps
from typing import Annotated, Any

import pytest
from annotated_types import Gt

from sse_asgi import ServerSentEvent
from sse_asgi._annotations import EventName, annotation_of, function_of, items_of, kinds_of, yields

fastapi_sse = pytest.importorskip("fastapi.sse")  # which the lowest version of FastAPI does not have

FastAPIEvent: Any = fastapi_sse.ServerSentEvent
A = Annotated[int, EventName("a")]
B = Annotated[str, EventName("b")]


@pytest.mark.parametrize(
    ("annotation", "items"),
    [
        (AsyncIterable[int], [(None, int)]),
        (AsyncIterator[int | str], [(None, int), (None, str)]),
        (Generator[A | B, None, None], [("a", int), ("b", str)]),
        (Iterable[Annotated[int, Gt(0), EventName("a")]], [("a", Annotated[int, Gt(0)])]),
        (typing.AsyncIterable[int | ServerSentEvent | FastAPIEvent | None], [(None, int)]),
        (AsyncIterable[Any], []),
        (AsyncIterable, []),
        (None, []),
        (Any, []),
    ],
)
def test_the_items_of_an_annotation(annotation: Any, items: list[Any]) -> None:
    """Each member of a union is one; events, None and Any have no types."""
    assert items_of(annotation) == items


@pytest.mark.parametrize("annotation", [int, list[int], "text"])
def test_another_annotation_is_refused(annotation: Any) -> None:
    """The error names what it must be."""
    with pytest.raises(TypeError, match=r"must be annotated as AsyncIterable\[...\] or Iterable\[...\]"):
        items_of(annotation)


def test_items_without_a_name_are_messages() -> None:
    """They are one event with several types."""
    assert kinds_of([(None, int), (None, str), ("a", bytes)], None) == {"message": int | str, "a": bytes}
    assert kinds_of([("a", bytes)], None) == {"a": bytes}


def test_declared_events_win() -> None:
    """An annotation repeats their types, or gives some of them, with or without their names."""
    declared = {"a": int, "b": str | bytes}
    assert kinds_of([(None, int), ("b", str | bytes)], declared) is declared
    assert kinds_of([(None, Annotated[int | bytes, "note"])], declared) is declared


@pytest.mark.parametrize(
    ("items", "declared", "match"),
    [
        ([("a", int), ("a", str)], None, "the event 'a' must have one model"),
        ([("message", int), (None, str)], None, "the event 'message' must have one model"),
        ([("a", int)], {"a": str}, "the event 'a' must have one model"),
        ([("c", int)], {"a": int, "b": str}, r"'c' of the annotation must be one of event_schema\(\): a, b"),
        ([(None, bytes)], {"a": int}, r"<class 'bytes'> must have one event in event_schema\(\) \(got 0\)"),
        ([(None, int)], {"a": int, "b": int}, r"\(got 2\): add it, or make a subclass"),
    ],
)
def test_contradictions_are_refused(items: Any, declared: Any, match: str) -> None:
    """Two models for one name, a name or a model that is not declared, two names for one model."""
    with pytest.raises(ValueError, match=match):
        kinds_of(items, declared)


async def generator(start: int) -> AsyncIterable[int]:
    yield start


class Callable:
    def __call__(self) -> Iterable[int]:
        yield 1


@wraps(generator)
def decorated(start: int) -> Any:
    return generator(start)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (generator, True),
        (partial(partial(generator), start=1), True),
        (decorated, True),
        (Callable(), True),
        (Callable, False),
        (len, False),
        (items_of, False),
    ],
)
def test_what_yields_is_seen(call: Any, expected: bool) -> None:  # noqa: FBT001
    """Behind partials, decorators and objects."""
    assert yields(call) is expected
    assert function_of(function_of(call)) is function_of(call)


def test_an_annotation_is_read() -> None:
    """Also a string; a missing one and None are None."""

    def text() -> "Iterable[int]":
        yield 1

    def nothing() -> None: ...

    assert annotation_of(text) == annotation_of(Callable()) == Iterable[int]
    assert annotation_of(nothing) is None
    assert annotation_of(len) is None


def test_an_annotation_that_cannot_be_read_is_refused() -> None:
    """A name that only a type checker knows."""

    def unknown() -> "Iterable[Missing]":  # type: ignore[name-defined] # noqa: F821
        yield 1

    with pytest.raises(TypeError, match="must be one that can be read when the application runs"):
        annotation_of(unknown)
