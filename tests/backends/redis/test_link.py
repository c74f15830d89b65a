"""One connection: which reply is whose, and how it ends."""

import asyncio
from typing import Any

import pytest

from sse_asgi.backends.redis._link import Link, LinkLostError
from sse_asgi.backends.redis._resp import (
    ReplyError,
)


class Wire(asyncio.Transport):
    """A transport that records its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: Any) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.aborted = True


def linked(timeout: float = 5) -> tuple[Link, Wire, list[str]]:
    lost: list[str] = []
    link, wire = Link(timeout), Wire()
    link.on_lost = lost.append
    link.connection_made(wire)
    return link, wire, lost


@pytest.mark.anyio
async def test_commands_share_a_write_and_answers_keep_their_order() -> None:
    """The commands of one turn share a write; a cancelled command does not shift the replies of others."""
    link, wire, _ = linked()
    one, two, three = link.call("A"), link.call("B"), link.call("C")
    await asyncio.sleep(0)
    assert len(wire.written) == 1
    two.cancel()
    link.data_received(b"+1\r\n+2\r\n-ERR 3\r\n")
    assert await one == b"1"
    with pytest.raises(ReplyError, match="ERR 3"):
        await three


@pytest.mark.anyio
async def test_an_answer_that_does_not_come_ends_the_link() -> None:
    """The oldest command decides; it fails, and so does every later one."""
    link, wire, lost = linked(0.02)
    await asyncio.sleep(0.01)
    first = link.call("A")
    link.data_received(b"+1\r\n")
    assert await first == b"1"
    late = link.call("B")
    with pytest.raises(LinkLostError, match=r"no answer within 0\.02 s"):
        await late
    with pytest.raises(LinkLostError):
        await link.call("C")
    assert wire.aborted
    assert len(lost) == 1
    assert b"C" not in b"".join(wire.written)


@pytest.mark.anyio
async def test_much_that_arrives_at_once_is_read_to_its_end() -> None:
    """Answers are handed out in their order, wherever the pieces end that they are read in."""
    link, _, lost = linked()
    asked = [link.call("A") for _ in range(10)]
    link.data_received(b"".join(b"$4000\r\n%04000d\r\n" % number for number in range(10)))
    assert [int(await one) for one in asked] == list(range(10))
    assert lost == []


@pytest.mark.anyio
async def test_an_answer_that_takes_long_to_arrive_is_waited_for() -> None:
    """As long as some of it comes, the server is there."""
    link, _, lost = linked(0.2)
    asked = link.call("A")
    for part in (b"$", b"3\r\n", b"ab", b"c\r\n"):
        await asyncio.sleep(0.1)
        link.data_received(part)
    assert await asked == b"abc"
    assert lost == []


@pytest.mark.anyio
async def test_an_idle_link_is_left_alone() -> None:
    """Without a waiting command no reply is late."""
    link, _, lost = linked(0.01)
    link.call("A")
    link.data_received(b"+1\r\n")
    await asyncio.sleep(0.03)
    assert lost == []


@pytest.mark.anyio
async def test_an_answer_to_no_question_ends_the_link() -> None:
    """The link cannot tell any more which reply belongs to which command."""
    link, wire, lost = linked()
    link.data_received(b"+1\r\n+2\r\n")
    assert lost == ["a reply without a command: b'1'"]
    assert wire.aborted
    link.connection_lost(None)
    assert link.closed.done()


@pytest.mark.anyio
async def test_what_is_sent_last_is_not_written_to_a_lost_link() -> None:
    """A link that ends in the same turn writes nothing more."""
    link, wire, lost = linked()
    asked = link.call("A")
    link.connection_lost(OSError("gone"))
    with pytest.raises(LinkLostError, match="gone"):
        await asked
    assert wire.written == []
    assert lost == ["the connection was lost: gone"]


@pytest.mark.anyio
async def test_a_link_knows_what_was_sent() -> None:
    """Nothing is unknown of a command that was not written, nor of one that comes too late."""
    link, _, _ = linked()
    written = link.call("A")
    await asyncio.sleep(0)
    waiting = link.call("B")
    link.close("for a test")
    for asked, sent in ((written, True), (waiting, False), (link.call("C"), False)):
        with pytest.raises(LinkLostError, match="for a test") as caught:
            await asked
        assert caught.value.sent is sent


@pytest.mark.anyio
async def test_a_retired_link_ends_with_its_last_answer() -> None:
    """Commands that were sent get their replies."""
    link, wire, lost = linked()
    one = link.call("A")
    link.retire()
    assert not wire.aborted
    link.data_received(b"+1\r\n")
    assert await one == b"1"
    assert lost == ["it is not needed any more"]


@pytest.mark.anyio
async def test_pushes_are_handed_out_between_replies() -> None:
    """In their places; a push is not the reply to a command."""
    told: list[object] = []
    link, wire = Link(5, lambda push: told.append(list(push))), Wire()
    link.connection_made(wire)
    link.request(told.append, "A")
    link.data_received(b">2\r\n+message\r\n+1\r\n+reply\r\n")
    link.data_received(b">1\r\n+2\r\n")
    assert told == [[b"message", b"1"], b"reply", [b"2"]]


@pytest.mark.anyio
async def test_another_protocol_ends_the_link() -> None:
    """The reason says so, and the first reason counts."""
    link, _, lost = linked()
    link.data_received(b"HTTP/1.1 400\r\n")
    link.close("later")
    assert len(lost) == 1
    assert lost[0].startswith("it does not speak RESP")


@pytest.mark.anyio
async def test_a_retired_link_without_commands_ends_at_once() -> None:
    """There is no reply to wait for."""
    link, wire, lost = linked()
    link.retire()
    assert (wire.aborted, lost) == (True, ["it is not needed any more"])


@pytest.mark.anyio
async def test_a_link_without_a_transport_is_closed_at_once() -> None:
    """There is no socket to wait for, and a command that was not written is not sent."""
    link = Link(5)
    asked = link.call("A")
    await asyncio.sleep(0)
    link.close("for a test")
    assert link.closed.done()
    with pytest.raises(LinkLostError):
        await asked
