"""Events of other libraries: their frames are parsed, their classes recognised, and what looks like them is told."""

from typing import Any

import datastar_py
import pytest
import sse_starlette
from ag_ui.core import RunStartedEvent
from ag_ui.encoder import EventEncoder
from hypothesis import given

from sse_asgi import ServerSentEvent
from sse_asgi._log.event import as_event, as_published
from sse_asgi._log.others import advice_on, fields_of_frame, is_event_class
from strategies import PATIENT, fields

fastapi_sse = pytest.importorskip("fastapi.sse")  # which the lowest version of FastAPI does not have

# Frames


@PATIENT
@given(fields())
def test_a_frame_of_ours_is_parsed_to_an_equal_event(given_fields: dict[str, Any]) -> None:
    """What encode() wrote, as bytes and as text."""
    event = ServerSentEvent(**given_fields)
    assert ServerSentEvent.parse(event.encode()) == event
    assert ServerSentEvent.parse(event.encode().decode()) == event


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_all_line_ends_are_read(end: str) -> None:
    """LF, CR LF and CR, and one leading BOM."""
    frame = "\ufeff" + end.join((": why", "id:7", "event: chat", "retry: 5", "data: a", "data:b", "", ""))
    assert ServerSentEvent.parse(frame) == ServerSentEvent("a\nb", event="chat", id="7", retry=5, comment="why")


def test_fields_are_read_as_the_standard_says() -> None:
    """The last one counts; what the standard ignores is left out."""
    frame = "event: a\nevent:\nid: 1\nid: \0\nretry: 5\nretry: x\nretry: " + "9" * 5000 + "\ndata\nother: x\n\n"
    expected = {"data": "", "event": None, "id": "1", "retry": 5, "comment": None}
    assert fields_of_frame(frame) == expected


@pytest.mark.parametrize(
    "frame",
    ["", "\n", "\n\n", "data: x", "data: x\n", "data: x\n\n\n", "\ndata: x\n\n", "data: x\n\ndata: y\n\n", "x: y\n\n"],
)
def test_what_is_not_exactly_one_frame_is_refused(frame: str) -> None:
    """No frame, an unfinished one, several ones, and one without a field."""
    with pytest.raises(ValueError, match="a frame must"):
        ServerSentEvent.parse(frame)


def test_a_frame_is_utf_8() -> None:
    """Its bytes are not replaced."""
    with pytest.raises(ValueError, match="a frame must be UTF-8"):
        ServerSentEvent.parse(b"data: \xff\n\n")


def test_a_frame_is_text() -> None:
    """Anything else is refused by its type."""
    with pytest.raises(TypeError, match="a frame must be str or bytes"):
        ServerSentEvent.parse(5)  # type: ignore[arg-type]


def test_frames_of_other_libraries_are_parsed() -> None:
    """sse-starlette's, with CR LF; ag-ui-protocol's; Datastar's."""
    assert ServerSentEvent.parse(sse_starlette.ServerSentEvent("a\nb", event="e").encode()) == ServerSentEvent(
        "a\nb", event="e"
    )
    event = RunStartedEvent(thread_id="1", run_id="2")
    assert ServerSentEvent.parse(EventEncoder().encode(event)).data == event.model_dump_json(by_alias=True)
    datastar = datastar_py.ServerSentEventGenerator.merge_fragments("<p>x</p>")
    assert ServerSentEvent.parse(datastar).event == "datastar-merge-fragments"


# Classes


class Sub(sse_starlette.ServerSentEvent):
    """An event as an application may derive it."""


@pytest.mark.parametrize(
    ("foreign", "event"),
    [
        (fastapi_sse.ServerSentEvent(data="x"), ServerSentEvent('"x"')),
        (fastapi_sse.ServerSentEvent(data={"a": 1}), ServerSentEvent({"a": 1})),
        (fastapi_sse.ServerSentEvent(data=b"x"), ServerSentEvent('"x"')),
        (fastapi_sse.ServerSentEvent(raw_data="x\ny", event="e", id="1"), ServerSentEvent("x\ny", event="e", id="1")),
        (fastapi_sse.ServerSentEvent(retry=5, comment="c"), ServerSentEvent(retry=5, comment="c")),
        (sse_starlette.ServerSentEvent("x", event="e", id="1"), ServerSentEvent("x", event="e", id="1")),
        (sse_starlette.ServerSentEvent(5, retry=5), ServerSentEvent("5", retry=5)),
        (sse_starlette.ServerSentEvent(comment="c"), ServerSentEvent(comment="c")),
        (sse_starlette.JSONServerSentEvent({"a": 1}), ServerSentEvent({"a": 1})),
        (Sub("x"), ServerSentEvent("x")),
    ],
)
def test_events_of_other_libraries_are_taken_for_what_they_are(foreign: Any, event: ServerSentEvent) -> None:
    """With all of their fields, as their own libraries write them."""
    assert as_event(foreign) == event


def test_an_event_of_another_library_is_published_as_one() -> None:
    """The rules for publishing hold for it."""
    assert as_published(sse_starlette.ServerSentEvent("x", event="e"), None, None) == ServerSentEvent("x", event="e")
    with pytest.raises(ValueError, match="cannot be published"):
        as_published(fastapi_sse.ServerSentEvent(raw_data="x", id="1"), None, None)


def test_a_namesake_is_data() -> None:
    """Only the classes of these two libraries are recognised, and plain values are none."""
    assert as_event({"data": "x"}) == ServerSentEvent({"data": "x"})
    namesake = type("ServerSentEvent", (dict,), {})(data="x")
    assert as_event(namesake) == ServerSentEvent({"data": "x"})


# Looks


@pytest.mark.parametrize(
    "value",
    ["data: x\n\n", "event: e\r\ndata: x\r\n\r\n", ": c\n\n", b"id: 1\ndata: x\n\n", "retry: 1\r\r"],
)
def test_text_that_looks_like_a_frame_is_told(value: str | bytes) -> None:
    """With what to do."""
    advice = advice_on(value) or ""
    assert "text that looks like a frame is sent as data" in advice
    assert "ServerSentEvent.parse(frame)" in advice
    assert "encoded=True" in advice


@pytest.mark.parametrize("value", [{"data": 1}, {"event": "e", "data": "x"}, {"id": "1", "retry": 5, "data": None}])
def test_a_mapping_of_fields_is_told(value: dict[str, Any]) -> None:
    """Those whose keys are all names of an event's fields."""
    assert "is sent as JSON data: yield ServerSentEvent(...)" in (advice_on(value) or "")


@pytest.mark.parametrize(
    "value", ["data: x", "x\n\n", "data: x\n", b"x", {"data": 1, "more": 2}, {"id": 1}, {}, 5, None, ["data"]]
)
def test_other_data_are_not(value: object) -> None:
    """No advice for what may well be meant."""
    assert advice_on(value) is None


def test_a_class_of_events_is_known() -> None:
    """Also one that is derived from it."""

    class Derived(sse_starlette.ServerSentEvent):
        pass

    assert is_event_class(fastapi_sse.ServerSentEvent)
    assert is_event_class(Derived)
    assert not is_event_class(dict)
