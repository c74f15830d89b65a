"""Dialects: what is an item, and how each protocol frames items, errors, interruptions and the end."""

import dataclasses
import enum
import json
import math
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pydantic
import pytest
import sse_starlette
from ag_ui.core import EventType, RunStartedEvent
from ag_ui.encoder import EventEncoder
from hypothesis import given
from hypothesis import strategies as st

from sse_asgi import ServerSentEvent
from sse_asgi.decoder import DecodedEvent, EventDecoder
from sse_asgi.dialects import AG_UI, AI_SDK, ANTHROPIC, INTERRUPTED, OPENAI, Dialect
from strategies import PATIENT, texts

ALL = {"OPENAI": OPENAI, "ANTHROPIC": ANTHROPIC, "AI_SDK": AI_SDK, "AG_UI": AG_UI}
TYPED = {name: dialect for name, dialect in ALL.items() if name != "OPENAI"}
dialects = pytest.mark.parametrize("dialect", ALL.values(), ids=ALL)
typed = pytest.mark.parametrize("dialect", TYPED.values(), ids=TYPED)


class Part(pydantic.BaseModel):
    type: str = "part"
    text_id: str | None = pydantic.Field(None, alias="textId")


class Texts(pydantic.RootModel[list[str]]):
    pass


@dataclasses.dataclass
class Point:
    x: int
    type: str = "point"
    y: int | None = None


def decoded(frames: bytes) -> list[DecodedEvent]:
    assert frames.endswith(b"\n\n")
    return EventDecoder().feed(frames)


# Items


@dialects
@pytest.mark.parametrize(
    "item",
    [
        {"type": "a", "text": "é"},
        MappingProxyType({"type": "a", "text": "é"}),
        '{"type":"a","text":"é"}',
        '{"type":"a","text":"é"}'.encode(),
        ServerSentEvent({"type": "a", "text": "é"}),
        ServerSentEvent({"type": "a", "text": "é"}, event="other", retry=5, comment="c"),
        sse_starlette.JSONServerSentEvent({"type": "a", "text": "é"}),
    ],
)
def test_an_item_is_a_json_object(dialect: Dialect, item: Any) -> None:
    """On one line, and nothing of an event but its data and its id."""
    kind = "a" if dialect is ANTHROPIC else "message"
    assert decoded(dialect.item(item)) == [(kind, '{"type":"a","text":"é"}', "")]


@dialects
def test_an_event_keeps_its_id(dialect: Dialect) -> None:
    """So that a reader of a hub can resume."""
    assert decoded(dialect.item(ServerSentEvent({"type": "a"}, id="7")))[0].id == "7"


@dialects
def test_json_text_of_several_lines_is_one_line(dialect: Dialect) -> None:
    """As people write it; the value is the same."""
    value = {"type": "a", "text": "b\n\nc\r"}
    (event,) = decoded(dialect.item("\n" + json.dumps(value, indent=1).replace("\n", "\r\n") + " \n"))
    assert "\n" not in event.data
    assert json.loads(event.data) == value


@dialects
@pytest.mark.parametrize(
    "text",
    [
        *(
            "[DONE]",
            "data: x",
            "data: {}\n\n",
            "",
            " ",
            "x",
            "null",
            "5",
            '"text"',
            "[]",
            "{",
            "{}{}",
            "{} x",
            "\ufeff{}",
        ),
        *('{"type":"a","b":NaN}', '{"type":"a","b":-Infinity}', '{"type":"a\n"}', b'{"type":"\xff"}', "[" * 100_000),
    ],
)
def test_other_text_is_refused(dialect: Dialect, text: str | bytes) -> None:
    """The text of a user or of a model is no item; the message says where text belongs."""
    for item in (text, ServerSentEvent(text) if text and text != b'{"type":"\xff"}' else ServerSentEvent(retry=1)):
        with pytest.raises(ValueError, match=r"must be a JSON object .*put text into a field of it"):
            dialect.item(item)


@dialects
@pytest.mark.parametrize("item", [5, None, ["a"], {"a"}, object(), Point, Part, Texts(["a"]), enum.Enum])
def test_another_type_is_refused(dialect: Dialect, item: Any) -> None:
    """Anything that is no object in JSON."""
    with pytest.raises(TypeError, match=r"must be a JSON object .*yield a mapping, a pydantic model, a dataclass"):
        dialect.item(item)


@dialects
def test_what_cannot_be_written_is_refused(dialect: Dialect) -> None:
    """NaN in a mapping or a model, and a lone surrogate."""
    for item in ({"type": "a", "x": math.nan}, Point(math.nan), {"type": "a", "x": "\ud800"}):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"NaN|surrogate"):
            dialect.item(item)


@typed
@pytest.mark.parametrize("kind", [{}, {"type": None}, {"type": ""}, {"type": 5}])
def test_a_type_is_needed(dialect: Dialect, kind: dict[str, Any]) -> None:
    """Where the protocol tells its items apart by it."""
    with pytest.raises(ValueError, match="must have a type that is a str"):
        dialect.item({"text": "x", **kind})


def test_a_type_of_several_lines_is_refused() -> None:
    """It would be a field of its own in ANTHROPIC."""
    with pytest.raises(ValueError, match="event must"):
        ANTHROPIC.item({"type": "a\ndata: b"})


@PATIENT
@given(st.dictionaries(texts(), texts()), st.sampled_from([*ALL]))
def test_no_text_becomes_a_field(item: Mapping[str, str], name: str) -> None:
    """Whatever stands in an item, it is one event that reads back as the item."""
    item = {**item, "type": "a"}
    for given_item in (item, json.dumps(item), json.dumps(item, ensure_ascii=False, indent=1)):
        (event,) = decoded(ALL[name].item(given_item))
        assert json.loads(event.data) == item


def test_models_are_written_by_alias() -> None:
    """Without what is None in AI_SDK and AG_UI, whose clients refuse null; a dataclass too."""
    for dialect in (AI_SDK, AG_UI):
        assert decoded(dialect.item(Part(textId=None)))[0].data == '{"type":"part"}'
        assert decoded(dialect.item(Point(1)))[0].data == '{"x":1,"type":"point"}'
        assert decoded(dialect.item(Part(textId="1")))[0].data == '{"type":"part","textId":"1"}'
    for dialect in (OPENAI, ANTHROPIC):
        assert decoded(dialect.item(Part(textId=None)))[0].data == '{"type":"part","textId":null}'
        assert decoded(dialect.item(Point(1)))[0].data == '{"x":1,"type":"point","y":null}'


def test_a_dataclass_needs_no_pydantic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fields are plain values."""
    monkeypatch.setitem(sys.modules, "pydantic_core", None)
    assert decoded(AI_SDK.item(Point(1)))[0].data == '{"x":1,"type":"point"}'
    assert decoded(OPENAI.item(Point(1)))[0].data == '{"x":1,"type":"point","y":null}'


def test_ag_ui_writes_what_its_encoder_writes() -> None:
    """The same bytes for a model; the type may be its enum."""
    event = RunStartedEvent(thread_id="1", run_id="2")
    assert AG_UI.item(event) == EventEncoder().encode(event).encode()
    assert AG_UI.item({"type": EventType.RUN_ERROR, "message": "x"}) == AG_UI.item(
        {"type": "RUN_ERROR", "message": "x"}
    )


# Last words

WORDS = {
    "OPENAI": (
        "message",
        '{"error":{"message":"%s","type":"server_error","param":null,"code":null}}',
        b"data: [DONE]\n\n",
    ),
    "ANTHROPIC": ("error", '{"type":"error","error":{"type":"api_error","message":"%s"}}', b""),
    "AI_SDK": ("message", '{"type":"error","errorText":"%s"}', b"data: [DONE]\n\n"),
    "AG_UI": ("message", '{"type":"RUN_ERROR","message":"%s"}', b""),
}


@pytest.mark.parametrize("name", ALL)
def test_errors_are_said_in_the_words_of_the_protocol(name: str) -> None:
    """An event of its own, without a detail of the exception."""
    kind, form, _ = WORDS[name]
    failed = ALL[name].failed(ZeroDivisionError("a secret"))
    assert decoded(failed) == [(kind, form % "The server failed while it wrote this answer.", "")]


@pytest.mark.parametrize("reason", [*INTERRUPTED, "another"])
@pytest.mark.parametrize("name", ALL)
def test_interruptions_are_errors(name: str, reason: str) -> None:
    """Each reason has a sentence, and an unknown one a general sentence."""
    kind, form, _ = WORDS[name]
    text = INTERRUPTED.get(reason, "This answer was interrupted. Try again.")
    assert decoded(ALL[name].interrupted(reason)) == [(kind, form % text, "")]


@pytest.mark.parametrize("name", ALL)
def test_the_end_is_the_protocols(name: str) -> None:
    """`[DONE]`, or nothing."""
    assert ALL[name].end() == WORDS[name][2]


def test_only_the_ai_sdk_needs_a_header() -> None:
    """By which its client knows the protocol."""
    assert {name: dict(dialect.headers) for name, dialect in ALL.items() if dialect.headers} == {
        "AI_SDK": {"x-vercel-ai-ui-message-stream": "v1"}
    }
