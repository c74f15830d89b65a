"""The lines that `tail` prints."""

import json
import re

import anyio
import pytest

from cli.scripted import Answer, Asked, Scripted
from sse_asgi._cli.following import Follower
from sse_asgi._cli.request import StreamRequest
from sse_asgi._cli.tail import tail

END = b"event: sse.end\nid: sse.end\ndata: {}\n\n"


def lines_of(
    capsys: pytest.CaptureFixture[str], body: bytes, *, as_json: bool = False, time_field: str | None = None
) -> tuple[list[str], list[str]]:
    """Tail a stream whose first connection has this body, and whose second one ends it; return both outputs."""

    async def script(asked: Asked, answer: Answer) -> None:
        await answer.begin()
        await answer.send(b"retry: 1\n" + body if len(server.asked) == 1 else END)
        await answer.end()

    with Scripted(script) as server:
        follower = Follower(StreamRequest.of(server.url))
        anyio.run(lambda: tail(follower, as_json=as_json, time_field=time_field))
    output, errors = capsys.readouterr()
    return output.splitlines(), errors.splitlines()


def test_an_event_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Its time, type, id and data; then the reconnect with the id, and the end."""
    lines, notes = lines_of(capsys, b"event: said\nid: 7\ndata: [red]hi[/red] :smile:\n\n")
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}  said  7  \[red]hi\[/red] :smile:", lines[0])
    assert re.fullmatch(r"\S+  sse\.end  -  {}", lines[1])
    assert notes[0] == "the stream ended; reconnecting in 0.0 s from id 7"
    assert notes[1] == "the stream is finished"


def test_a_lag_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """In milliseconds, if the event has a time; without an id the reconnect has none."""
    lines, notes = lines_of(capsys, b'data: {"at": 1790000000}\n\n', time_field="at")
    assert re.fullmatch(r'\S+  message  -  \+\d+ ms  {"at": 1790000000}', lines[0])
    assert notes[0] == "the stream ended; reconnecting in 0.0 s"


def test_a_stream_cannot_change_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters are escapes, and line ends too, so that an event stays one line."""
    lines, _ = lines_of(capsys, b"event: sse.gap\nid: \x07\ndata: \x1b[2J\ndata: two\n\n")
    assert lines[0].endswith(r"sse.gap  \x07  \x1b[2J\ntwo")


def test_json_is_a_line_for_each_event(capsys: pytest.CaptureFixture[str]) -> None:
    """With all fields; data stay a string."""
    lines, _ = lines_of(capsys, 'id: 7\ndata: {"at": 1790000000, "é": 1}\n\n'.encode(), as_json=True, time_field="at")
    first, last = map(json.loads, lines)
    assert (first["event"], first["id"], first["data"]) == ("message", "7", '{"at": 1790000000, "é": 1}')
    assert first["received"] - first["lag_ms"] / 1000 == pytest.approx(1790000000, abs=1)
    assert (last["event"], last["lag_ms"]) == ("sse.end", None)
