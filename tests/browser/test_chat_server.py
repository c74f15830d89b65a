"""The chat's server, asked by an HTTP client."""

import json
import socket
import uuid
from typing import Any

import pytest

from browser.peers import Demo, Stream, until


def snapshot(chat: Demo, room: str, name: str) -> dict[str, Any]:
    """Return the snapshot that a stream begins with."""
    with chat.stream(room=room, name=name) as stream:
        return dict(json.loads(stream.next("snapshot").data))


def who(stream: Stream) -> tuple[str, str]:
    """Return the next join or leave."""
    event = stream.next("sse.join", "sse.leave")
    (name,) = json.loads(event.data).values()
    return event.event, name


def test_a_stream_begins_with_the_state_of_the_room(chat: Demo, room: str) -> None:
    """The snapshot has the messages as they were published, and the members."""
    assert chat.post(room, " said \r\n before ", name=" Ada ") == 204
    state = snapshot(chat, room, "Bob")
    assert state["here"] == ["Bob"]
    (message,) = state["messages"]
    assert set(message) == {"id", "name", "text", "time"}
    assert (message["name"], message["text"]) == ("Ada", "said \r\n before")


def test_a_message_is_an_event_with_the_id_of_its_writer(chat: Demo, room: str) -> None:
    """The event's type is message, and its data has the client's id."""
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


def test_the_query_can_have_the_last_event_id(chat: Demo, room: str) -> None:
    """`?last_event_id=` resumes there: only later events follow, without a snapshot and without a gap."""
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
    """The answer to an id that this server does not know is a gap and a snapshot, not an error."""
    for unknown in ("00000000-1", "nonsense"):
        with chat.stream(room=room, name="Bob", last_event_id=unknown) as stream:
            assert stream.next("snapshot", "sse.gap").event == "sse.gap"
            assert stream.next("snapshot", "sse.gap").event == "snapshot"


def test_joins_and_leaves_are_events(chat: Demo, room: str) -> None:
    """Every member gets joins and leaves with the name; two tabs are one member; the room is listed meanwhile."""
    with chat.stream(room=room, name="Ada") as stream:
        with chat.stream(room=room, name="bob") as second, chat.stream(room=room, name="bob") as third:
            for one in (second, third):
                assert json.loads(one.next("snapshot").data)["here"] == ["Ada", "bob"]
            assert [who(stream), who(stream)] == [("sse.join", "Ada"), ("sse.join", "bob")]
        assert who(stream) == ("sse.leave", "bob")
        assert room in json.loads(chat.get("rooms"))
    until(lambda: room not in json.loads(chat.get("rooms")))


def test_joins_do_not_push_messages_out_of_the_snapshot(chat: Demo, room: str) -> None:
    """The snapshot has the messages, also if many visitors have joined since."""
    assert chat.post(room, "said before") == 204
    for number in range(210):
        state = snapshot(chat, room, str(number))
    assert [message["text"] for message in state["messages"]] == ["said before"]


def test_a_tab_that_closes_at_once_leaves(chat: Demo, room: str) -> None:
    """A tab that closes before its first byte either never joins, or leaves before tabs that close later."""
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
    """A blank, too long or unprintable name or text, and an id that is not a UUID, are a 422."""
    assert chat.post(room, **{"text": "good", **wrong}) == 422  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["", " ", "x" * 41, "a\0b", "a\nb"])
def test_a_bad_room_or_name_is_refused(chat: Demo, wrong: str) -> None:
    """A room that cannot be a channel is refused before the server subscribes or publishes."""
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
