"""The types of events' data: what they accept, what they write, and which events they choose."""

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from annotated_types import MaxLen
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sse_asgi import Hub, ServerSentEvent
from sse_asgi._log.models import EventModels, UnknownEventError, members_of

fastapi_sse = pytest.importorskip("fastapi.sse")  # which the lowest version of FastAPI does not have


class Token(BaseModel):
    text: str
    log_prob: float | None = Field(default=None, alias="logProb")


class Short(Token):
    length: int = 1


@dataclass
class Done:
    tokens: int


MODELS = EventModels({"token": Token, "done": Done, "progress": int, "log": str})


@pytest.mark.parametrize(
    ("item", "frame"),
    [
        (Token(text="a"), b'event: token\ndata: {"text":"a","logProb":null}\n\n'),
        (Short(text="a"), b'event: token\ndata: {"text":"a","logProb":null}\n\n'),
        (Done(3), b'event: done\ndata: {"tokens":3}\n\n'),
        ({"text": "ä\n", "logProb": 0.5}, 'event: token\ndata: {"text":"ä\\n","logProb":0.5}\n\n'.encode()),
        ({"tokens": 3}, b'event: done\ndata: {"tokens":3}\n\n'),
        (7, b"event: progress\ndata: 7\n\n"),
        ("two\nlines", b"event: log\ndata: two\ndata: lines\n\n"),
    ],
    ids=repr,
)
def test_the_type_of_an_item_chooses_the_event(item: Any, frame: bytes) -> None:
    """Objects by their class or a base of it, anything else by the type that fits; the model's own JSON is written."""
    assert MODELS.of_item(item).frame(item) == frame


def test_an_item_that_fits_no_type_is_refused() -> None:
    """Pydantic says what each type expects."""
    with pytest.raises(ValidationError, match="tokens"):
        MODELS.of_item({"words": 3})


def test_the_only_type_is_that_of_every_item() -> None:
    """The error is about its fields, then."""
    models = EventModels({"message": Token})
    assert models.of_item({"text": "a"}).frame({"text": "a"}).startswith(b"data: ")
    with pytest.raises(ValidationError, match="1 validation error for Token"):
        models.of_item({}).frame({})


def test_options_of_writing_are_pydantics() -> None:
    """As FastAPI gives them."""
    models = EventModels({"token": Token}, {"exclude_none": True, "by_alias": False})
    assert models.of("token").data(Token(text="a", logProb=0.5)) == b'{"text":"a","log_prob":0.5}'
    assert models.of("token").data(Token(text="a")) == b'{"text":"a"}'
    assert models.of("token").plain({"text": "a"}) == {"text": "a"}


def test_a_text_keeps_its_constraints() -> None:
    """It is sent as it is, and not as JSON."""
    model = EventModels({"log": Annotated[str, MaxLen(2)]}).of("log")
    assert model.frame("ab") == b"event: log\ndata: ab\n\n"
    with pytest.raises(ValidationError, match="at most 2 characters"):
        model.frame("abc")


@pytest.mark.parametrize(
    ("name", "kind", "error", "match"),
    [
        ("a", threading.Lock, TypeError, "the data of the event 'a' must have a type that pydantic can write as JSON"),
        ("a", "Missing", TypeError, "is not fully defined"),
        ("sse.gap", int, ValueError, "must not begin with 'sse.'"),
        ("a\nb", int, ValueError, "line ends"),
        ("", int, ValueError, 'event must not be ""'),
    ],
)
def test_a_bad_event_is_refused(name: str, kind: Any, error: type[Exception], match: str) -> None:
    """When it is defined, not when it is sent."""
    with pytest.raises(error, match=match):
        EventModels({name: kind})


def test_a_model_that_cannot_be_written_is_refused() -> None:
    """It could be validated, and would fail at each event."""

    class Locked(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        lock: Callable[[], None]

    with pytest.raises(TypeError, match="pydantic can write as JSON"):
        EventModels({"a": Locked})


def test_pydantic_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the fix."""
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(TypeError, match="pip install pydantic"):
        EventModels({"a": int})


def test_the_members_of_a_type_are_known() -> None:
    """A union has several, also one with a name of its own."""
    assert members_of(int | str) == (int, str)
    assert members_of(list[int]) == (list[int],)
    alias = type("TypeAliasType", (), {"__value__": int | None})()
    assert members_of(alias) == (int, type(None))


def test_an_event_keeps_its_fields() -> None:
    """Its text is read as JSON of its type, and written again."""
    given = ServerSentEvent('{"text": "a"}', event="token", id="7", retry=5, comment="c")
    event = MODELS.event(given)
    assert (event.id, event.retry, event.comment, event.data) == ("7", 5, "c", '{"text":"a","logProb":null}')
    assert MODELS.event(ServerSentEvent("a", event="log")).data == "a"
    comment = ServerSentEvent(comment="only")
    assert MODELS.event(comment) is comment


def test_an_event_with_an_unknown_name_is_refused() -> None:
    """The error lists the known ones."""
    with pytest.raises(UnknownEventError, match="'token', 'done', 'progress', 'log' \\(got 'tokn'\\)"):
        MODELS.event(ServerSentEvent("1", event="tokn"))


# What a hub publishes


def published(data: Any, event: str | None = None) -> Any:
    return MODELS.as_published(data, event, None)


def test_what_is_published_has_its_type() -> None:
    """Objects, events, and events of FastAPI, which hold objects."""
    frame = b'event: token\ndata: {"text":"a","logProb":null}\n\n'
    assert published({"text": "a"}, "token").encode() == frame
    assert published(ServerSentEvent({"text": "a"}, event="token")).encode() == frame
    assert published(fastapi_sse.ServerSentEvent(data=Token(text="a"), event="token")).encode() == frame


def test_a_function_of_the_reader_is_checked_when_it_is_called() -> None:
    """Its result has the type; nothing stays nothing."""
    rendered = published(lambda text: text and {"text": text}, "token")
    assert rendered.render_for("a").data == '{"text":"a","logProb":null}'
    assert rendered.render_for("") is None
    with pytest.raises(ValidationError):
        rendered.render_for(1)


@pytest.mark.parametrize(
    ("data", "event", "match"),
    [
        ({"text": 1}, "token", "data must have the type that the hub's events= gives to this event"),
        (ServerSentEvent("no JSON", event="token"), None, "data must have the type"),
        ({"text": "a"}, "tokn", "must be one of"),
        ({"text": "a"}, None, "got 'message'"),
        (None, "token", "an event without data is ignored"),
        (ServerSentEvent("1", event="progress", id="7"), None, "it needs data, and no id"),
    ],
)
def test_a_wrong_event_is_refused_at_the_publisher(data: Any, event: str | None, match: str) -> None:
    """A ValueError, whose message names the fault."""
    with pytest.raises(ValueError, match=match):
        published(data, event)


@pytest.mark.anyio
async def test_a_hub_checks_its_events() -> None:
    """`Hub(events=)`: a reader gets what the type writes, and the wrong event is not published."""
    async with Hub(events={"message": Token}) as hub, hub.subscribe("a") as subscription:
        with pytest.raises(ValueError, match="data must have the type"):
            await hub.publish("a", {"text": 1})
        with pytest.raises(ValueError, match="must be one of 'message'"):
            hub.publish_soon("a", {"text": "a"}, event="said")
        await hub.publish("a", Token(text="b"))
        assert (await anext(subscription)).data == '{"text":"b","logProb":null}'
