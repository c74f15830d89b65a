"""The values of a run."""

import pytest

from sse_asgi._log.position import Position
from sse_asgi._log.run import RunRecord, end_event, followers_channel, run_channel


def test_a_new_run_has_no_events() -> None:
    begin = Position("00000000", 3)
    record = RunRecord("a", "me", "running", begin, begin)
    assert (record.appended, record.fingerprint, record.reason) == (0, "", "")


def test_the_channels_are_the_librarys_own() -> None:
    assert run_channel("chat:42") == "sse.run:chat:42"
    assert followers_channel("chat:42") == "sse.followers:chat:42"


@pytest.mark.parametrize(
    ("reason", "data"), [("", '{"state":"failed"}'), ("max_bytes", '{"state":"failed","reason":"max_bytes"}')]
)
def test_the_last_event_says_the_state(reason: str, data: str) -> None:
    event = end_event("failed", reason)
    assert (event.event, event.data) == ("sse.end", data)
