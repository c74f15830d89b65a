"""The chat's server, asked by something that is no browser."""

import json
import socket
import uuid
from typing import Any

import pytest

from browser.peers import Demo, Stream, until


def snapshot(chat: Demo, room: str, name: str) -> dict[str, Any]:
    """Return what a stream begins with."""
    with chat.stream(room=room, name=name) as stream:
        return dict(json.loads(stream.next("snapshot").data))


def who(stream: Stream) -> tuple[str, str]:
    """Return the next that came or went."""
    event = stream.next("sse.join", "sse.leave")
    (name,) = json.loads(event.data).values()
    return event.event, name


def test_a_stream_begins_with_the_state_of_the_room(chat: Demo, room: str) -> None:
    """The snapshot has the messages as they were published, and who is here."""
    assert chat.post(room, " said \r\n before ", name=" Ada ") == 204
    state = snapshot(chat, room, "Bob")
    assert state["here"] == ["Bob"]
    (message,) = state["messages"]
    assert set(message) == {"id", "name", "text", "time"}
    assert (message["name"], message["text"]) == ("Ada", "said \r\n before")


def test_a_message_is_an_event_with_the_id_of_its_writer(chat: Demo, room: str) -> None:
    """The event's type is message, and the client's id comes back."""
    with chat.stream(room=room, name="Bob") as stream:
        stream.next("snapshot")
        given = str(uuid.uuid4())
        assert chat.post(room, "now", id=given) == 204
        assert json.loads(stream.next("message").data)["id"] == given


def test_the_same_draft_is_published_once(chat: Demo, room: str) -> None:
    """A message that is posted twice with one id is one event."""
    with chat.stream(room=room, name="Bob") as stream:
        given = str(uuid.uuid4())
        for text in ("once", "once", "else"):
            assert chat.post(room, text, id=given if text == "once" else str(uuid.uuid4())) == 204
        assert [json.loads(stream.next("message").data)["text"] for _ in range(2)] == ["once", "else"]


def test_who_starts_over_says_in_the_query_what_was_seen(chat: Demo, room: str) -> None:
    """`?last_event_id=` resumes there: no snapshot, no gap, only what came later."""
    with chat.stream(room=room, name="Bob") as stream:
        stream.next("snapshot")
        assert chat.post(room, "seen") == 204
        seen = stream.next("message").id
    assert chat.post(room, "missed") == 204
    with chat.stream(room=room, name="Bob", last_event_id=seen) as stream:
        event = stream.next("message", "snapshot", "sse.gap")
        assert json.loads(event.data)["text"] == "missed"


def test_the_header_wins_over_the_query(chat: Demo, room: str) -> None:
    """A browser's own Last-Event-ID is newer than the query, which its EventSource repeats for ever."""
    with chat.stream(room=room, name="Bob") as stream:
        old = stream.next("snapshot").id
        for text in ("seen", "missed"):
            assert chat.post(room, text) == 204
        seen = stream.next("message").id
    with chat.stream({"Last-Event-ID": seen}, room=room, name="Bob", last_event_id=old) as stream:
        event = stream.next("message", "snapshot", "sse.gap")
        assert json.loads(event.data)["text"] == "missed"


def test_another_life_of_the_server_is_a_gap_and_a_snapshot(chat: Demo, room: str) -> None:
    """An id that this server never gave out is answered by a gap and the state of the room, never by an error."""
    for unknown in ("00000000-1", "nonsense"):
        with chat.stream(room=room, name="Bob", last_event_id=unknown) as stream:
            assert stream.next("snapshot", "sse.gap").event == "sse.gap"
            assert stream.next("snapshot", "sse.gap").event == "snapshot"


def test_who_comes_and_goes_is_an_event(chat: Demo, room: str) -> None:
    """It carries the name, for everybody in the room, whoever it is; two tabs are one; the room is listed meanwhile."""
    with chat.stream(room=room, name="Ada") as stream:
        with chat.stream(room=room, name="bob") as second, chat.stream(room=room, name="bob") as third:
            for one in (second, third):
                assert json.loads(one.next("snapshot").data)["here"] == ["Ada", "bob"]
            assert [who(stream), who(stream)] == [("sse.join", "Ada"), ("sse.join", "bob")]
        assert who(stream) == ("sse.leave", "bob")
        assert room in json.loads(chat.get("rooms"))
    until(lambda: room not in json.loads(chat.get("rooms")))


def test_those_who_came_hide_nothing_that_was_said(chat: Demo, room: str) -> None:
    """What was said is in the snapshot, also if many have come since."""
    assert chat.post(room, "said before") == 204
    for number in range(210):
        state = snapshot(chat, room, str(number))
    assert [message["text"] for message in state["messages"]] == ["said before"]


def test_who_goes_at_once_is_gone(chat: Demo, room: str) -> None:
    """A tab that closes before the first byte was sent was never there, or leaves before one that leaves later."""
    with chat.stream(room=room, name="Ada") as stream:
        assert who(stream) == ("sse.join", "Ada")
        with socket.create_connection(("127.0.0.1", chat.port)) as connection:
            connection.sendall(f"GET /events?name=Ghost&room={room} HTTP/1.1\r\nHost: chat\r\n\r\n".encode())
        chat.stream(room=room, name="Carl").close()
        told = list(iter(lambda: who(stream), ("sse.leave", "Carl")))
        assert [kind for kind, name in told if name == "Ghost"] in ([], ["sse.join", "sse.leave"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"text": ""},
        {"text": " \n "},
        {"text": "x" * 2001},
        {"text": None},
        {"name": " "},
        {"name": "x" * 41},
        {"name": "two\nlines"},
        {"id": "no uuid"},
    ],
    ids=repr,
)
def test_a_bad_draft_is_refused(chat: Demo, room: str, wrong: dict[str, object]) -> None:
    """A blank, too long or unprintable name or text, or an id that is no UUID, is a 422."""
    assert chat.post(room, **{"text": "good", **wrong}) == 422  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["", " ", "x" * 41, "a\0b", "a\nb"])
def test_a_bad_room_or_name_is_refused(chat: Demo, wrong: str) -> None:
    """What cannot be a channel is refused before anything is subscribed or published."""
    assert chat.post(wrong, "text") == 422
    for room, name in ((wrong, "Ada"), ("lobby", wrong)):
        with chat.stream(room=room, name=name) as stream:
            assert stream.status == 422


def test_any_other_text_will_do(chat: Demo) -> None:
    """Rooms, names and texts may be in any script."""
    room, name, text = "кафе ☕ / ?&#%", "Zoë 👩‍👩‍👧", "\u2028 \0 \U0001f600"
    assert chat.post(room, text, name=name) == 204
    state = snapshot(chat, room, name)
    assert state["here"] == [name]
    assert [message["text"] for message in state["messages"]] == ["\0 \U0001f600"]
