"""Event streams in an OpenAPI document: the schema of their items, and the models in its components.

OpenAPI 3.2 describes each event of a stream by `itemSchema`:
https://spec.openapis.org/oas/v3.2.0.html#special-considerations-for-server-sent-events
An event has text as its data, so the model of the data is a `contentSchema`. Tools for OpenAPI 3.1 do not know
`itemSchema`. For them, a document of 3.1 also has the data's models as `schema`: these tools show it, and the clients
that they generate parse the data of each event and return it.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ._log.models import MESSAGE, EventModel, EventModels

MEDIA_TYPE = "text/event-stream"
LAST_EVENT_ID = "The id of the last event that the client has seen."
REF = "#/components/schemas/"

Schema = dict[str, Any]

FIELDS: Schema = {"id": {"type": "string"}, "retry": {"type": "integer", "minimum": 0}}
ANY_EVENT: Schema = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}, **FIELDS},
}


class Stream(NamedTuple):
    """A stream to document.

    Attributes:
        content: The `content` of its response in the document.
        models: Its events; None if they are not known.
    """

    content: Schema
    models: EventModels | None


def mounted_operation(mount: str) -> tuple[str, Schema]:
    """Return the path, and the operation that reads the channels, of an EventSourceApp.

    Args:
        mount: The path of its Mount, like `/rooms/{room:int}`.
    """
    names = re.findall(r"{(\w+)(?::\w+)?}", mount)
    path = re.sub(r"{(\w+):\w+}", r"{\1}", mount)
    string = {"type": "string"}
    channels = {"type": "array", "items": string}
    parameters = [
        *({"name": name, "in": "path", "required": True, "schema": string} for name in names),
        {"name": "channel", "in": "query", "required": False, "schema": channels, "description": "Channels to read."},
        {"name": "last_event_id", "in": "query", "required": False, "schema": string, "description": LAST_EVENT_ID},
        {"name": "Last-Event-ID", "in": "header", "required": False, "schema": string, "description": LAST_EVENT_ID},
    ]
    operation = {
        "summary": "Read channels",
        "operationId": "_".join(["read_channels", *re.findall(r"\w+", path)]),
        "parameters": parameters,
        "responses": {"200": {"description": "Event stream", "content": {}}},
    }
    return f"{path}/", operation


def add_streams(document: Schema, streams: Sequence[Stream]) -> None:
    """Describe the events of streams in their `content`, and add their models to the components of the document."""
    version: str = document["openapi"]
    schemas = _schemas(document, [model for one in streams for model in _models(one)])
    for content, models in streams:
        described = [(model, schemas[model]) for model in (models.models.values() if models else ())]
        content[MEDIA_TYPE] = {"itemSchema": _any_of("oneOf", [_event(*one) for one in described]) or ANY_EVENT}
        if version.startswith("3.1"):
            content[MEDIA_TYPE]["schema"] = _any_of("anyOf", [one for _, one in described]) or {"type": "string"}


def _models(stream: Stream) -> Iterable[EventModel]:
    return () if stream.models is None else stream.models.models.values()


def _any_of(keyword: str, schemas: list[Schema]) -> Schema | None:
    if len(schemas) > 1:
        return {keyword: schemas}
    return schemas[0] if schemas else None


def _event(model: EventModel, data: Schema) -> Schema:
    """Return the schema of one event. Browsers give the name `message` to an event without one."""
    text = data if model.is_text else {"contentMediaType": "application/json", "contentSchema": data}
    return {
        "type": "object",
        "required": ["data"] if model.name == MESSAGE else ["event", "data"],
        "properties": {
            "event": {"type": "string", "const": model.name},
            "data": {"type": "string"} | text,
            **FIELDS,
        },
    }


# Components


def _schemas(document: Schema, models: list[EventModel]) -> dict[EventModel, Schema]:
    """Return the schema of each model's data, whose definitions are among the components of the document."""
    from pydantic import TypeAdapter  # noqa: PLC0415 - there is a model, so it is installed

    inputs: list[Any] = [(model, "serialization", model.adapter) for model in models]
    found, definitions = TypeAdapter.json_schemas(inputs, ref_template=REF + "{model}")
    defined: Schema = definitions.get("$defs", {})
    if defined:
        components = document.setdefault("components", {}).setdefault("schemas", {})
        defined = {name: _renamed(schema, {}) for name, schema in defined.items()}
        names = {name: _name(name, schema, components) for name, schema in defined.items()}
        components |= {names[name]: _renamed(schema, names) for name, schema in defined.items()}
        document["components"]["schemas"] = dict(sorted(components.items()))
    else:
        names = {}
    return {model: _renamed(schema, names) for (model, _), schema in found.items()}


def _name(name: str, schema: Schema, components: Schema) -> str:
    """Return the name of a component that is this schema, or a free one.

    A model that FastAPI has described as input and as output has two names there.
    """
    names = (name, f"{name}-Output", *(f"{name}-Event{number or ''}" for number in range(len(components) + 1)))
    return next(one for one in names if components.get(one, schema) == schema)


def _renamed(schema: Any, names: dict[str, str]) -> Any:
    """Return a schema with the references to these names changed, and without what is None, as FastAPI does."""
    if isinstance(schema, list):
        return [_renamed(one, names) for one in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: _renamed(value, names) for key, value in schema.items() if value is not None}
    mapping = changed.get("mapping")  # of a discriminator, or the schema of a field with this name
    if isinstance(mapping, dict):
        changed["mapping"] = {key: _reference(value, names) for key, value in mapping.items()}
    if "$ref" in changed:
        changed["$ref"] = _reference(changed["$ref"], names)
    return changed


def _reference(value: Any, names: dict[str, str]) -> Any:
    if not isinstance(value, str) or not value.startswith(REF):
        return value
    name = value.removeprefix(REF)
    return REF + names.get(name, name)
