"""FastAPI: the types of what endpoints yield, their OpenAPI, and the dependencies that a stream keeps open.

The types of an endpoint that yields are compiled when the application starts, or else at its first request, and kept
with its route. FastAPI asks no response class for its OpenAPI. So `prepare` replaces `app.openapi`, as FastAPI's
documentation says, by an object that adds the events to each new document.
"""

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import fastapi
import fastapi.routing
from fastapi import Depends, FastAPI, Header, Request
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import ResponseValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.responses import Response
from starlette.routing import Host, Mount

from ._annotations import EventName, Items, Kind, annotation_of, function_of, items_of, kinds_of, yields
from ._hub.hub import Hub
from ._log.event import own_event
from ._log.last_event_id import last_event_id
from ._log.logged import about
from ._log.models import EventModels, UnknownEventError
from ._log.others import fields_of_event
from ._openapi import LAST_EVENT_ID, MEDIA_TYPE, Stream, add_streams, mounted_operation
from .dialects import Dialect

__all__ = [
    "EventName",
    "LastEventID",
    "assert_no_open_dependencies",
    "event_schema",
    "prepare",
]

logger: logging.Logger = logging.getLogger("sse_asgi.fastapi")

YIELDS = (0, 134)  # the first FastAPI that gives what an endpoint yields to a response class
LATE_EXIT = (0, 118)  # the first that closes a dependency after the response
KEPT_AS = "_sse_asgi_events"
# FastAPI's options for writing a model: `response_model_exclude_none` and others.
WRITING = ("include", "exclude", "by_alias", "exclude_unset", "exclude_defaults", "exclude_none")


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in fastapi.__version__.split(".")[:2])


# Dependencies


async def _last_event_id(
    request: Request,
    last_event_id_header: Annotated[  # noqa: ARG001 - documents the header
        str | None, Header(alias="Last-Event-ID", description=LAST_EVENT_ID)
    ] = None,
) -> str | None:
    return last_event_id(request.scope)


LastEventID = Annotated[str | None, Depends(_last_event_id)]
"""The id of the last event that the client has seen: the header, or else the query, as `EventSourceResponse` reads it.

None if the request has none. Every text is accepted, because an answer of 422 would end an EventSource for good.
"""


# The types of an endpoint's items


class _EventResponse(dict[str, Any]):
    """One of the `responses=` of a route, which knows its events."""

    events: Mapping[str, Kind]


def event_schema(**events: Kind) -> dict[int | str, dict[str, Any]]:
    """Return `responses=` that say which events an endpoint sends, and the type of each one's data.

    The items that an endpoint yields then get the names of these events, by their types.

    Args:
        **events: The type of the data, by the name of the event; `message` is that of events without a name.
    """
    response = _EventResponse(
        description=f"Events: {', '.join(events)}", content={MEDIA_TYPE: {"schema": {"type": "string"}}}
    )
    response.events = events
    return {200: response}


class _ModelFraming:
    """Makes frames of the items that an endpoint yields, by their types."""

    def __init__(self, route: APIRoute, models: EventModels, dialect: Dialect | None, *, named: bool) -> None:
        self._route, self._models, self._dialect, self._named = route, models, dialect, named
        self._by_class = {} if dialect is not None else models.by_class

    def write(self, item: Any) -> bytes:
        """Return one frame.

        Raises:
            ResponseValidationError: The item has none of the types, or an unknown name.
        """
        try:
            model = self._by_class.get(type(item))  # of nearly all items
            return self._frame(item) if model is None else model.frame(item)
        except ValidationError as error:
            errors = [{**one, "loc": ("response", *one["loc"])} for one in error.errors(include_url=False)]
            raise _refusal(self._route, errors, item) from error
        except UnknownEventError as error:
            errors = [{"type": "event_name", "loc": ("response", "event"), "msg": str(error), "input": item.event}]
            raise _refusal(self._route, errors, item) from error

    def _frame(self, item: Any) -> bytes:
        given = own_event(item)
        if self._dialect is not None:
            return self._dialect.item(self._models.of_item(item).plain(item) if given is None else item)
        if given is None:
            return self._models.of_item(item).frame(item)
        return (self._models.event(given, fields_of_event(item)) if self._named else given).encode()

    def rest(self) -> bytes:
        """Return no bytes."""
        return b""


def _refusal(route: APIRoute, errors: list[dict[str, Any]], item: Any) -> ResponseValidationError:
    code = function_of(route.endpoint).__code__
    context = {"file": code.co_filename, "line": code.co_firstlineno, "function": code.co_name, "path": _path(route)}
    known = "endpoint_ctx" in inspect.signature(ResponseValidationError).parameters  # not in old versions
    given: dict[str, Any] = {"endpoint_ctx": context} if known else {}
    return ResponseValidationError(errors, body=item, **given)


class _Compiled(NamedTuple):
    """What the annotation and the `responses=` of a route say about its events.

    Attributes:
        models: The events; None if they are not known.
        framing: Makes frames of what the endpoint yields; None if it yields nothing, or items of any type.
    """

    models: EventModels | None
    framing: _ModelFraming | None


def _compiled(route: APIRoute) -> _Compiled:
    """Return the events of a route, which are compiled once, and kept with the route."""
    found: _Compiled | None = vars(route).get(KEPT_AS)
    if found is None:
        found = vars(route)[KEPT_AS] = _compile(route)
    return found


def framing_of(route: APIRoute) -> _ModelFraming | None:
    """Return the framing of the items that an endpoint yields, for EventSourceResponse; None if they have no types."""
    return _compiled(route).framing


def _compile(route: APIRoute) -> _Compiled:
    """Compile the events of a route.

    Raises:
        TypeError: A type cannot be validated or written, or the annotation is not that of a generator.
        ValueError: The names of the events contradict each other, or one cannot be a name.
    """
    declared = next((one.events for one in route.responses.values() if isinstance(one, _EventResponse)), None)
    options = {name: getattr(route, f"response_model_{name}") for name in WRITING}
    try:
        items = _items(route)
        kinds = declared if items is None else kinds_of(items, declared)
        models = EventModels(kinds, options) if kinds else None
        if models is None or items is None:
            return _Compiled(models, None)
        named = declared is not None or any(name for name, _ in items)
        framing = _ModelFraming(route, models, _spoken(route, named=named), named=named)
    except (TypeError, ValueError) as error:
        raise type(error)(_named(route, error)) from error
    return _Compiled(models, framing)


def _spoken(route: APIRoute, *, named: bool) -> Dialect | None:
    dialect: Dialect | None = (_options(route) or {}).get("dialect")
    if named and dialect is not None:
        msg = "a dialect has event names of its own: leave out event_schema() and EventName()"
        raise ValueError(msg)
    return dialect


def _items(route: APIRoute) -> Items | None:
    """Return the items that an endpoint yields; None if it yields none of which the types matter."""
    options = _options(route)
    if options is None or options.get("encoded") or not yields(route.endpoint):
        return None
    return items_of(annotation_of(route.endpoint))


# Routes


class _Streaming(NamedTuple):
    """A route that streams, as the application includes it."""

    route: APIRoute
    path: str
    dependant: Dependant


def _streaming(app: FastAPI) -> Iterator[_Streaming]:
    for context in _contexts(app):
        route = getattr(context, "original_route", context)
        if isinstance(route, APIRoute) and _streams(route):
            yield _Streaming(route, context.path_format, context.dependant)


def _contexts(app: FastAPI) -> Iterator[Any]:
    """Iterate over all routes; those of included routers stand in one of the application since FastAPI 0.137."""
    contexts: Callable[[Any], Iterator[Any]] = getattr(fastapi.routing, "iter_route_contexts", iter)
    return contexts(app.routes)


def _streams(route: APIRoute) -> bool:
    try:
        annotation = annotation_of(route.endpoint)
    except TypeError:
        annotation = None
    returned = annotation if isinstance(annotation, type) and issubclass(annotation, Response) else Response
    types = (_response_class(route).media_type, returned.media_type)
    return MEDIA_TYPE in types or any(isinstance(one, _EventResponse) for one in route.responses.values())


def _response_class(route: APIRoute) -> type[Response]:
    given = route.response_class
    found: type[Response] = given.value if isinstance(given, DefaultPlaceholder) else given
    return found


def _options(route: APIRoute) -> Mapping[str, Any] | None:
    """Return the options of an EventSourceResponse that is the response class of a route; None if it has another."""
    return getattr(_response_class(route), "options", None)


def _named(route: APIRoute, what: object) -> str:
    """Say what is wrong with a route, and name it: `GET /chat (app.chat): ...`."""
    function = function_of(route.endpoint)
    return f"{_path(route)} ({function.__module__}.{function.__qualname__}): {what}"


def _path(route: APIRoute, path: str | None = None) -> str:
    return f"{'/'.join(sorted(route.methods or ()))} {path or route.path_format}"


# The start-up


def prepare(app: object) -> None:
    """Check the routes of an application that stream, and add their events to its OpenAPI.

    EventSourceMiddleware does this when the application starts. Call it to get `app.openapi()` without a server. A
    request-scoped dependency that would stay open for as long as a stream is logged as a warning.

    Args:
        app: The application, with all its routes, and those of FastAPI that are mounted in it. Others are left alone.

    Raises:
        RuntimeError: This FastAPI is too old for an endpoint that yields.
        TypeError: The annotation of an endpoint cannot be used.
        ValueError: The names of its events contradict each other.
    """
    if isinstance(app, FastAPI):
        document: Any = app.openapi
        if not isinstance(document, _OpenAPI):
            app.openapi = document = _OpenAPI(app)  # type: ignore[method-assign]
        for one in _streaming(app):
            _check(one.route)
            _compiled(one.route)
        document.warn(_open_dependencies(app))
    for route in getattr(app, "routes", ()):
        if isinstance(route, Mount | Host):
            prepare(route.app)


def assert_no_open_dependencies(app: FastAPI) -> None:
    """Fail if a dependency would stay open for as long as a stream; for tests.

    Raises:
        AssertionError: It names each route, its dependency and the fix.
    """
    found = [*_open_dependencies(app)]
    if found:
        raise AssertionError("\n".join(found))


def _check(route: APIRoute) -> None:
    if not yields(route.endpoint):
        return
    if _version() < YIELDS:
        what = (
            f"FastAPI must be 0.134 or newer for an endpoint that yields (got {fastapi.__version__}): upgrade it, or "
        )
        raise RuntimeError(_named(route, f"{what}return EventSourceResponse(generator())"))


def _open_dependencies(app: FastAPI) -> Iterator[str]:
    """Describe each dependency that a stream keeps open, unless its `scope="request"` says that it is meant to be."""
    if _version() < LATE_EXIT:
        return
    fix = "open what it gives inside the generator"
    if "scope" in Dependant.__dataclass_fields__:
        fix = f'Depends(..., scope="function") closes it before, scope="request" says that it is meant, or {fix}'
    for route, path, dependant in _streaming(app):
        for way in {way[-1]: way for way in _ways_to_open(dependant, ())}.values():
            names = " -> ".join(getattr(one, "__qualname__", repr(one)) for one in way)
            yield f"{_path(route, path)} keeps its dependency {names} open for as long as the stream: {fix}"


def _ways_to_open(dependant: Dependant, above: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    for one in dependant.dependencies:
        way = (*above, one.call)
        if one.call is not None and yields(one.call) and getattr(one, "scope", None) is None:
            yield way
        yield from _ways_to_open(one, way)


# OpenAPI


class _OpenAPI:
    """Stands for `app.openapi`, and adds the events of streams to each document that it makes."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._make = app.openapi
        self._document: dict[str, Any] | None = None
        self._told: set[str] = set()

    def __call__(self) -> dict[str, Any]:
        """Return the document; FastAPI makes it once, and again when there are more routes."""
        document = self._make()
        if document is not self._document:
            add_streams(document, [*self._streams(document["paths"])])
            self._document = document
        return document

    def warn(self, texts: Iterable[str]) -> None:
        """Log each text once."""
        for text in texts:
            if text not in self._told:
                self._told.add(text)
                logger.warning("%s", text, extra=about("dependency_open"))

    def _streams(self, paths: dict[str, Any]) -> Iterator[Stream]:
        for route, path, _ in _streaming(self._app):
            if getattr(route, "is_sse_stream", False):  # of fastapi.sse, which documents it
                continue
            models = _compiled(route).models
            statuses = [status for status, one in route.responses.items() if isinstance(one, _EventResponse)]
            for method in (route.methods or ()) if path in paths else ():
                operation = paths[path].get(method.lower(), {}).get("responses", {})
                response = operation.get(str(next(iter(statuses), route.status_code or 200)))
                if response is not None:
                    content = response.setdefault("content", {})
                    if not route.response_field:
                        content.pop("application/json", None)
                    yield Stream(content, models)
        for context in _contexts(self._app):
            mounted = getattr(context, "original_route", context)
            hub = getattr(getattr(mounted, "app", None), "hub", None)
            if isinstance(hub, Hub) and hasattr(mounted.app, "routes"):  # an EventSourceApp
                path, operation = mounted_operation(context.path)
                if path not in paths:
                    paths[path] = {"get": operation}
                    yield Stream(operation["responses"]["200"]["content"], hub.events)
