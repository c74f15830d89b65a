"""Event streams in an OpenAPI document, without an application."""

from typing import Any

import pytest
from pydantic import BaseModel, Field

from sse_asgi._log.models import EventModels
from sse_asgi._openapi import ANY_EVENT, Stream, add_streams, mounted_operation


class Inner(BaseModel):
    n: int


class Token(BaseModel):
    text: str
    inner: Inner | None = None


class Cat(BaseModel):
    kind: str = "cat"


REF = "#/components/schemas/"


def documented(models: EventModels | None, *, version: str = "3.1.0", schemas: Any = None) -> tuple[Any, Any]:
    """Return the description of a stream, and the components of its document."""
    document: dict[str, Any] = {"openapi": version, "paths": {}}
    if schemas is not None:
        document["components"] = {"schemas": schemas}
    content: dict[str, Any] = {"text/event-stream": {"schema": {"type": "string"}}}
    add_streams(document, [Stream(content, models)])
    return content["text/event-stream"], document.get("components", {}).get("schemas")


def test_each_event_has_a_branch() -> None:
    """Its name, and its model as the schema of the data; browsers know an event without a name as `message`."""
    described, schemas = documented(EventModels({"token": Token, "message": int, "log": str}))
    token, message, log = described["itemSchema"]["oneOf"]
    assert token["required"] == ["event", "data"]
    assert token["properties"]["event"] == {"type": "string", "const": "token"}
    assert token["properties"]["data"] == {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": f"{REF}Token"},
    }
    assert message["required"] == ["data"]
    assert message["properties"]["data"]["contentSchema"] == {"type": "integer"}
    assert log["properties"]["data"] == {"type": "string"}
    assert schemas.keys() == {"Inner", "Token"}


def test_an_only_event_needs_no_branches() -> None:
    """Its schema is that of the item."""
    described, schemas = documented(EventModels({"progress": int}))
    assert described["itemSchema"]["properties"]["event"]["const"] == "progress"
    assert described["schema"] == {"type": "integer"}
    assert schemas is None


@pytest.mark.parametrize(("version", "known"), [("3.1.0", True), ("3.2.0", False)])
def test_a_document_of_3_1_has_the_models_as_a_schema(version: str, known: bool) -> None:  # noqa: FBT001
    """Tools of that version do not know `itemSchema`; in 3.2 a `schema` would be that of the whole stream."""
    described, _ = documented(EventModels({"a": Token, "b": int}), version=version)
    assert ("schema" in described) is known
    if known:
        assert described["schema"] == {"anyOf": [{"$ref": f"{REF}Token"}, {"type": "integer"}]}


def test_events_may_be_unknown() -> None:
    """Then an item is any event."""
    described, schemas = documented(None)
    assert described == {"itemSchema": ANY_EVENT, "schema": {"type": "string"}}
    assert schemas is None


def test_an_equal_component_is_shared() -> None:
    """FastAPI leaves out what is None; a model that is also an input with another schema has a second name."""
    equal = {
        "type": "object",
        "title": "Inner",
        "required": ["n"],
        "properties": {"n": {"title": "N", "type": "integer"}},
    }
    _, schemas = documented(EventModels({"a": Inner}), schemas={"Inner": equal})
    assert schemas == {"Inner": equal}
    described, schemas = documented(EventModels({"a": Inner}), schemas={"Inner": {}, "Inner-Output": equal})
    assert described["schema"] == {"$ref": f"{REF}Inner-Output"}


def test_another_component_of_the_name_is_kept() -> None:
    """The model gets a name of its own, and all references follow."""
    taken = {name: {"title": "other"} for name in ("Inner", "Inner-Output", "Inner-Event")}
    _, schemas = documented(EventModels({"a": Token}), schemas=taken)
    assert schemas["Inner"] == {"title": "other"}
    assert schemas["Token"]["properties"]["inner"]["anyOf"][0] == {"$ref": f"{REF}Inner-Event1"}
    assert schemas["Inner-Event1"]["title"] == "Inner"
    assert [*schemas] == sorted(schemas)


def test_a_discriminator_follows() -> None:
    """Its mapping has references as well."""

    class Owner(BaseModel):
        pet: "Cat | Dog" = Field(discriminator="kind")

    class Cat(BaseModel):
        kind: "Literal['cat']"

    class Dog(BaseModel):
        kind: "Literal['dog']"

    from typing import Literal  # noqa: PLC0415 - of the annotations

    Owner.model_rebuild(_types_namespace={"Cat": Cat, "Dog": Dog, "Literal": Literal})
    _, schemas = documented(EventModels({"a": Owner}), schemas={"Cat": {}})
    discriminator = schemas["Owner"]["properties"]["pet"]["discriminator"]
    assert discriminator["mapping"] == {"cat": f"{REF}Cat-Output", "dog": f"{REF}Dog"}


def test_fields_may_have_the_names_of_keywords() -> None:
    """A model with a field `mapping` has a property of this name, which is no discriminator."""

    class Odd(BaseModel):
        mapping: dict[str, int]

    _, schemas = documented(EventModels({"a": Odd}))
    assert schemas["Odd"] == Odd.model_json_schema(mode="serialization")


def test_a_mount_is_an_operation() -> None:
    """Its path, with the parameters of the mount, the channels, and the id in both places."""
    path, operation = mounted_operation("/rooms/{room}/n/{n:int}")
    assert path == "/rooms/{room}/n/{n}/"
    assert [(one["in"], one["name"]) for one in operation["parameters"]] == [
        ("path", "room"),
        ("path", "n"),
        ("query", "channel"),
        ("query", "last_event_id"),
        ("header", "Last-Event-ID"),
    ]
    assert operation["operationId"] == "read_channels_rooms_room_n_n"
