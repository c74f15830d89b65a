"""ServerSentEvent, and the entries of a log."""

import copy
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import pickle
import sys
import uuid
from typing import Any

import pydantic
import pydantic_core
import pytest
from hypothesis import given

from oracle import interpret
from sse_asgi import ServerSentEvent
from sse_asgi._log.event import (
    Entry,
    History,
    ReceivedEntry,
    RenderedEvent,
    as_event,
    as_frame,
    as_published,
    to_json,
)
from sse_asgi._log.position import Position
from sse_asgi.encoder import encode
from strategies import PATIENT, fields


class Message(pydantic.BaseModel):
    text: str
    weight: float = 1.5


@dataclasses.dataclass
class Point:
    x: int
    y: float


@dataclasses.dataclass
class Wrapped:
    inner: dict[Any, int]


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


FULL = ServerSentEvent("a\nb", event="chat", id="7", retry=1, comment="why")
FULL_WITHOUT_ID = ServerSentEvent("a\nb", event="chat", retry=1, comment="why")


# Data


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("plain", "plain"),
        ("", ""),
        ('{"already": "JSON"}', '{"already": "JSON"}'),
        (b"bytes \xc3\xa9", "bytes \N{LATIN SMALL LETTER E WITH ACUTE}"),
        (b"", ""),
        (0, "0"),
        (False, "false"),
        (1.5, "1.5"),
        ([], "[]"),
        ({}, "{}"),
        ({"a": [1, None, True], "b": "c"}, '{"a":[1,null,true],"b":"c"}'),
        ({"a": "\N{LATIN SMALL LETTER E WITH ACUTE}\u2028"}, '{"a":"\N{LATIN SMALL LETTER E WITH ACUTE}\u2028"}'),
        ({"a": "x\ny"}, '{"a":"x\\ny"}'),
        ((1, 2), "[1,2]"),
        (Message(text="hi"), '{"text":"hi","weight":1.5}'),
        ([Message(text="hi")], '[{"text":"hi","weight":1.5}]'),
        (Point(1, 2.0), '{"x":1,"y":2.0}'),
        (dt.datetime(2024, 5, 6, 7, 8, 9, tzinfo=dt.UTC), '"2024-05-06T07:08:09Z"'),
        (dt.date(2024, 5, 6), '"2024-05-06"'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Colour.RED, '"red"'),
        ({"at": dt.date(2024, 5, 6), "by": uuid.UUID(int=1)}, None),
    ],
)
def test_data_becomes_text(data: Any, text: str | None) -> None:
    """Text stays as it is, and everything else is compact JSON that is not ASCII-escaped."""
    expected = '{"at":"2024-05-06","by":"00000000-0000-0000-0000-000000000001"}' if text is None else text
    assert ServerSentEvent(data).data == expected


def test_none_is_no_data() -> None:
    """An event without data has no data field."""
    event = ServerSentEvent(None, event="chat")
    assert (event.data, event.encode()) == (None, b"event: chat\n\n")


@pytest.mark.parametrize(
    "data",
    [
        math.nan,
        [math.inf],
        {"a": -math.inf},
        Message(text="hi", weight=math.nan),
        {"a": [Message(text="hi", weight=math.inf)]},
        Point(1, math.nan),
    ],
)
def test_numbers_that_json_has_not_are_refused(data: Any) -> None:
    """NaN and the infinities are a ValueError, however deep they hide."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        ServerSentEvent(data)


@pytest.mark.parametrize("data", [object(), [object()], Message, lambda: 1])
def test_data_that_nothing_can_serialise_is_refused(data: Any) -> None:
    """Data that pydantic cannot write is a TypeError with the type and pydantic's message."""
    name = type(data[0] if isinstance(data, list) else data).__name__
    with pytest.raises(TypeError, match=f"data of type {name} cannot be written as JSON: pydantic says: Unable"):
        ServerSentEvent(data)


@pytest.mark.parametrize("data", [Message(text="hi"), {"at": dt.date(2024, 5, 6)}])
def test_without_pydantic_objects_are_refused(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pydantic, data that json cannot write is a TypeError that names the fix."""
    monkeypatch.setitem(sys.modules, "pydantic_core", None)
    with pytest.raises(TypeError, match=r"cannot be written as JSON: install pydantic, or convert it"):
        ServerSentEvent(data)


KEYS = [
    uuid.UUID(int=1),
    dt.date(2024, 5, 6),
    dt.datetime(2024, 5, 6, 7, 8, 9, tzinfo=dt.UTC),
    Colour.RED,
    decimal.Decimal("1.50"),
    (1, 2),
]


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_keys_are_written_as_pydantic_writes_them(key: Any) -> None:
    """A key that json refuses is the text that pydantic gives it, however deep it hides."""
    expected = json.dumps(pydantic_core.to_jsonable_python({key: 1}), separators=(",", ":"))
    assert ServerSentEvent({key: 1}).data == expected
    assert ServerSentEvent([{"a": ({key: 1}, 2)}]).data == f'[{{"a":[{expected},2]}}]'
    assert ServerSentEvent({"a": {"b": [Wrapped({key: 1})]}}).data == f'{{"a":{{"b":[{{"inner":{expected}}}]}}}}'


def test_keys_that_json_knows_are_as_before_beside_others() -> None:
    """None is null, True is true, and a number is its text, whether another key has to be converted or not."""
    known = {None: 0, True: 1, 7: 2, 1.5: 3, "x": 4, Level.LOW: 5}
    expected = json.dumps(known, separators=(",", ":"))
    assert ServerSentEvent(known).data == expected
    assert ServerSentEvent({**known, Colour.RED: 6}).data == expected[:-1] + ',"red":6}'


def test_a_key_that_nothing_can_write_is_refused() -> None:
    """It is a TypeError with the type and pydantic's message."""
    with pytest.raises(TypeError, match="a key of type object cannot be written as JSON: pydantic says"):
        ServerSentEvent({object(): 1})
    with pytest.raises(TypeError, match="a key of type frozenset cannot be written as JSON: pydantic says"):
        ServerSentEvent({frozenset([1]): 1})


def test_without_pydantic_a_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the fix."""
    monkeypatch.setitem(sys.modules, "pydantic_core", None)
    with pytest.raises(TypeError, match="a key of type UUID cannot be written as JSON: install pydantic, or convert"):
        ServerSentEvent({uuid.UUID(int=1): 1})


def test_a_number_that_json_has_not_names_the_remedy() -> None:
    """In place of NaN there can be None."""
    with pytest.raises(ValueError, match="put None in their place"):
        ServerSentEvent({Colour.RED: math.nan})


def test_without_pydantic_plain_data_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dicts, lists, numbers and text need no pydantic."""
    monkeypatch.setitem(sys.modules, "pydantic_core", None)
    assert ServerSentEvent({"a": [1, "b"]}).data == '{"a":[1,"b"]}'


def test_bytes_deep_inside_that_are_not_utf_8_are_refused() -> None:
    """Binary data inside a structure is a ValueError as well."""
    with pytest.raises(ValueError, match="utf-8"):
        ServerSentEvent({"a": b"\xff"})


def test_a_structure_that_contains_itself_is_refused() -> None:
    """A circle is a ValueError."""
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ValueError, match="Circular"):
        ServerSentEvent(circle)


def test_to_json_is_the_form_of_payloads() -> None:
    """The function behind the data rule writes text as a JSON string too."""
    assert to_json(["a", "b"]) == '["a","b"]'
    assert to_json("a") == '"a"'


# Fields


@PATIENT
@given(fields())
def test_the_frame_is_the_encoders(given_fields: dict[str, Any]) -> None:
    """An event of text is written by encode()."""
    assert ServerSentEvent(**given_fields).encode() == encode(**given_fields)


@pytest.mark.parametrize(
    "bad", [{"event": "a\nb"}, {"id": "\0"}, {"retry": -1}, {"event": ""}, {"comment": "\ud800"}, {}]
)
def test_a_bad_field_is_refused_at_once(bad: dict[str, Any]) -> None:
    """An event whose frame cannot be written is never created."""
    with pytest.raises(ValueError, match=r"must|surrogate|at least one"):
        ServerSentEvent(**bad)


def test_fields_are_attributes() -> None:
    """Every field can be read, and an event of one's own has no channels."""
    seen = (FULL.data, FULL.event, FULL.id, FULL.retry, FULL.comment, FULL.channels)
    assert seen == ("a\nb", "chat", "7", 1, "why", ())


def test_fields_that_were_not_given_are_none() -> None:
    """Only the data is set in an event of data alone."""
    event = ServerSentEvent("x")
    assert (event.event, event.id, event.retry, event.comment) == (None, None, None, None)


# Value semantics


@pytest.mark.parametrize("name", ["data", "id", "channels", "_frame", "new"])
def test_an_event_cannot_be_changed(name: str) -> None:
    """Setting any attribute is an AttributeError that names the alternative."""
    with pytest.raises(AttributeError, match="immutable: make a new one"):
        setattr(FULL, name, "x")


@pytest.mark.parametrize("name", ["data", "channels"])
def test_nothing_can_be_taken_from_an_event(name: str) -> None:
    """Deleting an attribute is an AttributeError too."""
    with pytest.raises(AttributeError, match="immutable"):
        delattr(FULL, name)


def test_events_with_the_same_frame_are_equal() -> None:
    """Equality and hash are those of the frame."""
    one, same = ServerSentEvent({"a": 1}, id="7"), ServerSentEvent('{"a":1}', id="7")
    assert one == same
    assert hash(one) == hash(same)


@pytest.mark.parametrize("other", [ServerSentEvent("x", id="7"), ServerSentEvent("y"), "x", b"data: x\n\n", None])
def test_events_with_another_frame_differ(other: Any) -> None:
    """An event differs from events with other fields, and from every object that is not an event."""
    assert ServerSentEvent("x") != other


def test_repr_shows_the_fields_that_are_set() -> None:
    """Fields that were not given are not shown."""
    assert repr(ServerSentEvent("x", id="7")) == "ServerSentEvent(data='x', id='7')"
    assert repr(FULL) == "ServerSentEvent(data='a\\nb', event='chat', id='7', retry=1, comment='why')"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda event: pickle.loads(pickle.dumps(event))])
@pytest.mark.parametrize("event", [FULL, ServerSentEvent({"a": 1}), ServerSentEvent(comment="only")])
def test_an_event_can_be_copied_and_pickled(duplicate: Any, event: ServerSentEvent) -> None:
    """A copy has the same frame and the same fields, and is as immutable."""
    twin = duplicate(event)
    assert (twin, repr(twin)) == (event, repr(event))
    with pytest.raises(AttributeError):
        twin.data = "y"


def test_a_copy_keeps_the_channels() -> None:
    """The channels of an event from a subscription survive pickling."""
    seen = Entry(ServerSentEvent("x"), None, ("a", "b")).for_reader(ServerSentEvent("x"), ["a"])
    assert pickle.loads(pickle.dumps(seen)).channels == ("a",)


def test_an_event_has_no_dict() -> None:
    """An event carries its slots and nothing else."""
    assert not hasattr(FULL, "__dict__")


# Anything as an event


def test_as_event_returns_an_event_as_it_is() -> None:
    """An event is not made again."""
    assert as_event(FULL) is FULL


@pytest.mark.parametrize("value", ["x", b"x", {"a": 1}, Message(text="hi"), 0])
def test_as_event_makes_data_of_anything_else(value: Any) -> None:
    """Any other value becomes the data of an event."""
    assert as_event(value) == ServerSentEvent(value)


@pytest.mark.parametrize("value", [FULL, "x", b"x", "a\nb", {"a": 1}, Message(text="hi")])
def test_as_frame_is_the_frame_of_as_event(value: Any) -> None:
    """The short way writes the same bytes."""
    assert as_frame(value) == as_event(value).encode()


@pytest.mark.parametrize("convert", [as_event, as_frame])
def test_none_is_no_event(convert: Any) -> None:
    """An event of nothing is a ValueError."""
    with pytest.raises(ValueError, match="at least one"):
        convert(None)


# Events whose data is made for each reader


def test_a_rendered_event_is_made_of_the_readers_properties() -> None:
    """The function gets the properties, and its result is the data of an event of the given type and retry."""
    rendered = RenderedEvent(lambda properties: {"for": properties}, "chat", 5)
    assert rendered.render_for("ann") == ServerSentEvent({"for": "ann"}, event="chat", retry=5)


@pytest.mark.parametrize("nothing", [None, "", b"", 0, {}, []])
def test_a_falsy_result_skips_the_reader(nothing: Any) -> None:
    """A function that gives something falsy makes no event."""
    assert RenderedEvent(lambda _: nothing, None, None).render_for("ann") is None


def test_a_rendered_event_has_no_bytes_of_its_own() -> None:
    """Before there is a reader there is nothing to write."""
    assert RenderedEvent(str, "chat", 5).encode() == b""


# Events that are published


def test_data_is_published_as_an_event() -> None:
    """An event is published as it is, and other data becomes an event with the given type and retry."""
    assert as_published(FULL_WITHOUT_ID, None, None) is FULL_WITHOUT_ID
    assert as_published({"a": 1}, "chat", 5) == ServerSentEvent({"a": 1}, event="chat", retry=5)
    assert as_published("", None, None) == ServerSentEvent("")


def test_a_function_is_published_as_a_rendered_event() -> None:
    """Its fields are checked at once, though its data is made later."""
    assert as_published(str, "chat", 5) == RenderedEvent(str, "chat", 5)
    with pytest.raises(ValueError, match="retry"):
        as_published(str, "chat", -1)


@pytest.mark.parametrize("nothing", [None, ServerSentEvent(comment="x"), FULL])
def test_an_event_without_data_or_with_an_id_is_not_published(nothing: Any) -> None:
    """Browsers ignore an event without data, and the log assigns the ids."""
    with pytest.raises(ValueError, match=r"without data|needs data, and no id"):
        as_published(nothing, None, None)


@pytest.mark.parametrize(("event", "retry"), [("chat", None), (None, 5)])
def test_the_fields_of_an_event_are_its_own(event: str | None, retry: int | None) -> None:
    """A type or a retry beside a ServerSentEvent is a ValueError."""
    with pytest.raises(ValueError, match="give event and retry to the ServerSentEvent"):
        as_published(ServerSentEvent("x"), event, retry)


# Events in a log

POSITION = Position("0123abcd", 42)


def test_an_entry_is_written_with_its_position_as_id() -> None:
    """The frame of an entry is its event's, behind the id that resumes after it."""
    assert Entry(ServerSentEvent("x", event="chat"), POSITION).frame == b"id: 0123abcd-42\nevent: chat\ndata: x\n\n"


def test_an_entry_without_a_position_is_written_as_its_event() -> None:
    """Without history there is no id."""
    assert Entry(ServerSentEvent("x")).frame == b"data: x\n\n"


def test_a_position_is_a_named_event_with_data() -> None:
    """An entry without an event is an event of its own type, because many clients take an id from nothing less."""
    frame = Entry(None, POSITION).frame
    assert frame == b"id: 0123abcd-42\nevent: sse.position\ndata: {}\n\n"
    assert interpret(frame) == ([("sse.position", "{}", "0123abcd-42")], "0123abcd-42", None)


def test_an_entry_keeps_what_it_was_given() -> None:
    """Channels and key stay beside the event and its position."""
    event = ServerSentEvent("x")
    entry = Entry(event, POSITION, ("a", "b"), "k")
    assert (entry.event, entry.position, entry.channels, entry.key) == (event, POSITION, ("a", "b"), "k")


def test_a_reader_sees_the_id_and_its_own_channels() -> None:
    """The event of a reader has the position as id and those of the entry's channels that the reader reads."""
    entry = Entry(ServerSentEvent("x", event="chat", retry=5, comment="c"), POSITION, ("a", "b", "c"))
    seen = entry.for_reader(ServerSentEvent("x", event="chat", retry=5, comment="c"), ["c", "a", "z"])
    assert seen == ServerSentEvent("x", event="chat", id="0123abcd-42", retry=5, comment="c")
    assert seen.channels == ("a", "c")


@pytest.mark.parametrize("id_", [None, "mine"])
def test_without_a_position_a_reader_sees_the_events_own_id(id_: str | None) -> None:
    """Without history the event keeps its own id."""
    event = ServerSentEvent("x", id=id_)
    assert Entry(event, None, ("a",)).for_reader(event, ["a"]).id == id_


@pytest.mark.parametrize(("position", "first"), [(POSITION, b"id: 0123abcd-42\n"), (None, b"")])
def test_an_entry_that_came_as_a_frame_makes_its_event_once(position: Position | None, first: bytes) -> None:
    """The event equals the published one, without the entry's id, and is made once."""
    event = ServerSentEvent("x", event="chat")
    entry = ReceivedEntry(first + event.encode(), position, ("a",), None)
    assert entry.event == event
    assert entry.event is entry.event
    assert not hasattr(entry, "evnt")


def test_an_entry_whose_event_is_made_for_each_reader_has_no_frame() -> None:
    """There is nothing that could be sent to all of them."""
    assert Entry(RenderedEvent(str, None, None), POSITION, ("a",)).frame == b""


def test_a_page_of_history_is_complete_unless_it_says_otherwise() -> None:
    """By default there is no next page and no reason."""
    assert History([]) == ([], None, None, 0)


LOSSES: list[tuple[str | None, int, int | None, str | None]] = [
    (None, 0, 0, None),
    ("trimmed", 5, 0, "trimmed"),
    ("trimmed", 5, 5, None),
    ("trimmed", 5, None, None),
    ("expired", 6, 5, "expired"),
    ("epoch", 0, 0, "epoch"),
    ("fork", 5, 9, "fork"),
    ("epoch", 5, None, "epoch"),
]


@pytest.mark.parametrize(("reason", "lost", "told", "announced"), LOSSES)
def test_a_loss_is_announced_once(reason: str | None, lost: int, told: int | None, announced: str | None) -> None:
    """A loss that the reader knows is not announced again; a position of another log always is."""
    page = History([], None, reason, lost)
    assert page.announced(told) == announced
    assert page.foreign == (reason in ("epoch", "fork"))


def test_an_entry_can_carry_the_bytes_for_one_reader() -> None:
    """The position stays, and the entry that all readers share does not change."""
    entry = Entry(ServerSentEvent("x"), POSITION, ("a",))
    mine = entry.seen_as(b"mine")
    assert (mine.frame, mine.position) == (b"mine", POSITION)
    assert entry.frame == b"id: 0123abcd-42\ndata: x\n\n"


def test_readers_of_one_channel_share_the_event_that_they_see() -> None:
    """The object is made once; a reader whose event was transformed gets another."""
    event = ServerSentEvent("x")
    entry = Entry(event, POSITION, ("a",))
    seen = entry.for_reader(event, ["a"])
    assert entry.for_reader(event, ["a"]) is seen
    assert entry.for_reader(ServerSentEvent("y"), ["a"]).data == "y"


@pytest.mark.parametrize("event", [FULL_WITHOUT_ID, ServerSentEvent("x"), ServerSentEvent(comment="only")])
def test_an_event_of_a_frame_has_its_fields(event: ServerSentEvent) -> None:
    """The fields are read from the frame at the first access, and another name is an AttributeError."""
    made = ServerSentEvent.from_frame(event.encode())
    assert made == event
    assert repr(made) == repr(event)
    with pytest.raises(AttributeError, match="has no attribute 'evnt'"):
        _ = made.evnt  # type: ignore[attr-defined]


def test_a_frame_of_another_library_is_parsed() -> None:
    """With all of its fields; see test_others.py for what is refused."""
    assert ServerSentEvent.parse("id: 7\r\nretry: 1\r\nevent: chat\r\n: why\r\ndata: a\r\ndata: b\r\n\r\n") == FULL
