"""The types that the data of events have, by the events' names, as pydantic validates and writes them.

`Hub(events=...)` and the endpoints of FastAPI share them. pydantic is imported when the first of them is made.
"""

from collections.abc import Callable, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from ..encoder import encode
from .event import RenderedEvent, ServerSentEvent, as_frame, as_published, own_event
from .names import RESERVED
from .others import fields_of_event

MESSAGE = "message"  # the name that browsers give to an event without one


class UnknownEventError(ValueError):
    """An event has a name that is not among the known ones."""


class EventModel:
    """The type of one event's data.

    Attributes:
        name: The event's name.
        adapter: pydantic's TypeAdapter.
        is_text: Whether the data is text, which is sent as it is, and not as JSON.
    """

    __slots__ = ("_event", "_is_any_text", "_options", "_start", "_validate", "_write", "adapter", "is_text", "name")

    def __init__(self, name: str, kind: Any, options: Mapping[str, Any]) -> None:
        """Compile the type.

        Args:
            name: The event's name.
            kind: Any type that pydantic takes.
            options: Keyword arguments of pydantic's `to_json`.

        Raises:
            ValueError: The name cannot be the type of an event.
            TypeError: pydantic cannot validate the type, or not write it as JSON.
        """
        if name.startswith(RESERVED):
            msg = f"the name of an event must not begin with {RESERVED!r} (got {name!r}): choose another one"
            raise ValueError(msg)
        self._event = None if name == MESSAGE else name
        self._start = encode("", event=self._event)[: -len(b"\n\n")]
        self.name: str = name
        self.adapter: Any = _adapter(name, kind)
        self.is_text: bool = bare(kind) is str
        self._is_any_text = kind is str
        self._validate = self.adapter.validator.validate_python
        self._write = self.adapter.serializer.to_json
        # Each option that is left out saves time at each event.
        self._options = {"by_alias": True, **{name: one for name, one in options.items() if one not in (None, False)}}
        self._options["by_alias"] = options.get("by_alias", True)

    def data(self, value: Any) -> bytes:
        """Validate a value, and return the data of its event.

        Raises:
            pydantic.ValidationError: The value does not have this type.
        """
        value = self._validate(value, from_attributes=True)
        written: bytes = value.encode() if self.is_text else self._write(value, **self._options)
        return written

    def plain(self, value: Any) -> Any:
        """Validate a value, and return what its JSON consists of. The errors are those of `data`."""
        return self.adapter.dump_python(self._validate(value, from_attributes=True), mode="json", **self._options)

    def data_of_text(self, text: str) -> bytes:
        """Validate the data of an event that was made before, which is text, and return it as this type writes it.

        Raises:
            pydantic.ValidationError: It is not the JSON of this type.
        """
        return self.data(text if self.is_text else self.adapter.validate_json(text))

    def frame(self, value: Any) -> bytes:
        """Validate a value, and return the frame of its event. The errors are those of `data`."""
        if self.is_text:
            text = value if self._is_any_text and type(value) is str else self.data(value)
            return as_frame(text) if self._event is None else encode(text, event=self._event)
        written: bytes = self._write(self._validate(value, from_attributes=True), **self._options)
        return self._start + written + b"\n\n"  # JSON is one line


class EventModels:
    """The events of a hub, or of an endpoint.

    Attributes:
        models: The type of each event's data, by the event's name.
        by_class: The same, by the class of the data, where it is one.
    """

    def __init__(self, kinds: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> None:
        """Compile the types; for the arguments and the errors see EventModel."""
        self.models: dict[str, EventModel] = {
            name: EventModel(name, kind, options or {}) for name, kind in kinds.items()
        }
        self._kinds = dict(kinds)
        self.by_class: dict[type, EventModel] = {
            one: self.models[name]
            for name, kind in kinds.items()
            for one in map(bare, members_of(kind))
            if isinstance(one, type)
        }
        self._chooser: Any = None

    def of(self, event: str | None) -> EventModel:
        """Return the type of an event's data.

        Raises:
            UnknownEventError: There is no event of this name.
        """
        model = self.models.get(event or MESSAGE)
        if model is None:
            known = ", ".join(map(repr, self.models))
            msg = f"the type of an event must be one of {known} (got {event or MESSAGE!r}): add it, or correct it"
            raise UnknownEventError(msg)
        return model

    def of_item(self, item: Any) -> EventModel:
        """Return the type that an item has: that of its class, or else the one that fits it best.

        Raises:
            pydantic.ValidationError: None fits.
        """
        by_class = self.by_class
        model = by_class.get(type(item))
        if model is None and len(self.models) == 1:
            return next(iter(self.models.values()))
        if model is None:
            model = next((by_class[one] for one in type(item).__mro__ if one in by_class), None)
        return self._choose(item) if model is None else model

    def _choose(self, item: Any) -> EventModel:
        if self._chooser is None:
            from pydantic import AfterValidator, TypeAdapter  # noqa: PLC0415 - optional

            def chosen(model: EventModel) -> Callable[[Any], EventModel]:
                return lambda _: model

            kinds = [Annotated[kind, AfterValidator(chosen(self.models[name]))] for name, kind in self._kinds.items()]
            union: Any = Union[tuple(kinds)]  # noqa: UP007 - made at run time
            self._chooser = TypeAdapter(union)
        model: EventModel = self._chooser.validate_python(item, from_attributes=True)
        return model

    def event(self, given: ServerSentEvent, fields: Mapping[str, Any] | None = None) -> ServerSentEvent:
        """Return an event whose data is validated, and written as its type says; one without data as it is.

        Args:
            given: The event.
            fields: Its fields as another library's event had them. Data that is not text may have been an object.

        Raises:
            UnknownEventError: There is no event of this name.
            pydantic.ValidationError: The data does not have its type.
        """
        if given.data is None:
            return given
        model = self.of(given.event)
        data = given.data if fields is None else fields["data"]
        written = model.data_of_text(data) if isinstance(data, str) else model.data(data)
        return ServerSentEvent(written, event=given.event, id=given.id, retry=given.retry, comment=given.comment)

    def as_published(self, data: Any, event: str | None, retry: int | None) -> ServerSentEvent | RenderedEvent:
        """Return the event to publish, as `as_published` of events without types does.

        Raises:
            ValueError: There is no event of this name, the data does not have its type, or there is no data.
        """
        from pydantic import ValidationError  # noqa: PLC0415 - optional

        try:
            given = own_event(data)
            if given is not None:
                as_published(given, event, retry)
                return self.event(given, fields_of_event(data))
            if data is None:
                return as_published(data, event, retry)
            model = self.of(event)
            if callable(data):
                return as_published(lambda properties: _rendered(model, data(properties)), event, retry)
            return ServerSentEvent(model.data(data), event=event, retry=retry)
        except ValidationError as error:
            msg = f"data must have the type that the hub's events= gives to this event: {error}"
            raise ValueError(msg) from error


def _rendered(model: EventModel, value: Any) -> bytes:
    return model.data(value) if value else b""


def _adapter(name: str, kind: Any) -> Any:
    try:
        from pydantic import PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter  # noqa: PLC0415 - optional
    except ImportError as error:
        msg = f"the data of the event {name!r} can have a type only if pydantic is installed: pip install pydantic"
        raise TypeError(msg) from error
    try:
        adapter = TypeAdapter(kind)
        adapter.json_schema(mode="serialization")
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        msg = (
            f"the data of the event {name!r} must have a type that pydantic can write as JSON (got {kind!r}): use a "
            f"model, a dataclass, a TypedDict or a plain type; pydantic says: {error}"
        )
        raise TypeError(msg) from error
    return adapter


def members_of(kind: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the type alone."""
    if type(kind).__name__ == "TypeAliasType":  # of a `type` statement, since Python 3.12
        kind = kind.__value__
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def bare(kind: Any) -> Any:
    """Return a type without its annotations."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind
