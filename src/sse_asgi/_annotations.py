"""What an endpoint's annotation says about the events that it yields."""

import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from ._log.event import ServerSentEvent
from ._log.models import MESSAGE, bare, members_of
from ._log.others import is_event_class

ITERABLES: tuple[Any, ...] = (AsyncIterable, AsyncIterator, AsyncGenerator, Iterable, Iterator, Generator)

Kind = Any  # a type that pydantic takes: a class, a union, Annotated[...]
Items = list[tuple[str | None, Kind]]


@dataclass(frozen=True)
class EventName:
    """Names an event in an annotation: `AsyncIterable[Annotated[Token, EventName("token")]]`.

    Attributes:
        name: The event's type.
    """

    name: str


def items_of(annotation: Any) -> Items:
    """Return the names and the types of the items that an endpoint yields, given its annotation; none for any type.

    Raises:
        TypeError: The annotation is not that of a generator.
    """
    if annotation is Any or annotation is None:
        return []
    if annotation not in ITERABLES and get_origin(annotation) not in ITERABLES:
        msg = f"an endpoint that yields must be annotated as AsyncIterable[...] or Iterable[...] (got {annotation!r})"
        raise TypeError(msg)
    items = members_of(next(iter(get_args(annotation)), Any))
    return [_named_kind(one) for one in items if not _is_untyped(one)]


def _is_untyped(kind: object) -> bool:
    """Return True for None, which is skipped, for Any, and for events, which say by themselves what they are."""
    is_event = isinstance(kind, type) and (issubclass(kind, ServerSentEvent) or is_event_class(kind))
    return is_event or kind in (type(None), Any)


def _named_kind(kind: Kind) -> tuple[str | None, Kind]:
    """Return the name that an annotation gives to an event, and the type without it."""
    origin: Any = get_origin(kind)
    if origin is not Annotated:
        return None, kind
    base, *others = get_args(kind)
    name = next((one.name for one in others if isinstance(one, EventName)), None)
    rest = [one for one in others if not isinstance(one, EventName)]
    whole: Any = Annotated
    return name, whole[(base, *rest)] if rest else base


def kinds_of(yielded: Items, declared: Mapping[str, Kind] | None) -> Mapping[str, Kind]:
    """Return the type of each event, by its name, of an endpoint that yields."""
    unnamed = [kind for name, kind in yielded if name is None]
    named: dict[str, Kind] = {}
    for name, kind in yielded:
        if name is not None and named.setdefault(name, kind) != kind:
            raise _two_models(name, named[name], kind)
    if declared is None:
        if unnamed:
            union: Any = Union[tuple(unnamed)]  # noqa: UP007 - made at run time
            if named.setdefault(MESSAGE, union) != union:
                raise _two_models(MESSAGE, named[MESSAGE], union)
        kinds: Mapping[str, Kind] = named
    else:
        kinds = declared
        _check_declared(named, unnamed, declared)
    return kinds


def _check_declared(named: Mapping[str, Kind], unnamed: list[Kind], declared: Mapping[str, Kind]) -> None:
    """Accept the items of an annotation that event_schema() has."""
    for name, kind in named.items():
        if name not in declared:
            msg = f"the event {name!r} of the annotation must be one of event_schema(): {', '.join(declared)}"
            raise ValueError(msg)
        if declared[name] != kind:
            raise _two_models(name, declared[name], kind)
    known = [one for kind in declared.values() for one in members_of(kind)]
    for one in (member for kind in unnamed for member in members_of(bare(kind))):
        if known.count(one) != 1:
            msg = (
                f"the items of type {one!r} must have one event in event_schema() (got {known.count(one)}): add it, or "
                "make a subclass for each event"
            )
            raise ValueError(msg)


def _two_models(name: str, first: Kind, second: Kind) -> ValueError:
    msg = f"the event {name!r} must have one model (got {first!r} and {second!r}): choose another name for one of them"
    return ValueError(msg)


# Functions


def function_of(endpoint: Callable[..., Any]) -> Any:
    """Return the function behind partials, decorators and objects that can be called."""
    while isinstance(endpoint, partial):
        endpoint = endpoint.func
    function = inspect.unwrap(endpoint)
    return function if inspect.isroutine(function) else inspect.unwrap(type(function).__call__)


def yields(call: Callable[..., Any]) -> bool:
    function = function_of(call)
    return inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)


def annotation_of(endpoint: Callable[..., Any]) -> Any:
    """Return what a function is annotated to return; None if it is not annotated.

    Raises:
        TypeError: The annotation has an unknown name.
    """
    function = function_of(endpoint)
    holder = type("Holder", (), {"__annotations__": {"it": getattr(function, "__annotations__", {}).get("return")}})
    try:
        found = get_type_hints(holder, getattr(function, "__globals__", {}), include_extras=True)["it"]
    except (AttributeError, NameError, SyntaxError, TypeError) as error:
        msg = f"its annotation must be one that can be read when the application runs: {error}"
        raise TypeError(msg) from error
    return None if found is type(None) else found
