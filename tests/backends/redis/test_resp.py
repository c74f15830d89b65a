"""Bytes to replies, and commands to bytes."""

import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import hiredis
import pytest

from sse_asgi.backends.redis import _resp
from sse_asgi.backends.redis._resp import (
    NOT_ENOUGH,
    Parser,
    ProtocolError,
    Push,
    ReplyError,
    new_reader,
    pack,
    pack_slowly,
)

REPLIES = [
    (b"+OK\r\n", b"OK"),
    (b":-7\r\n", -7),
    (b"$5\r\nhe\r\no\r\n", b"he\r\no"),
    (b"$-1\r\n", None),
    (b"$0\r\n\r\n", b""),
    (b"*-1\r\n", None),
    (b"*2\r\n:1\r\n*1\r\n+a\r\n", [1, [b"a"]]),
    (b"_\r\n", None),
    (b",1.5\r\n", 1.5),
    (b"#t\r\n", True),
    (b"=7\r\ntxt:abc\r\n", b"abc"),
    (b"%1\r\n+a\r\n:1\r\n", {b"a": 1}),
    (b">2\r\n+message\r\n+x\r\n", [b"message", b"x"]),
]


@pytest.mark.parametrize("make", [Parser, new_reader], ids=["python", "hiredis"])
@pytest.mark.parametrize(("data", "reply"), REPLIES)
def test_a_reply_is_read_however_it_is_cut(make: Callable[[], Any], data: bytes, reply: object) -> None:
    """Both readers read each kind of reply, cut in two at any byte."""
    for at in range(len(data)):
        reader = make()
        reader.feed(data[:at])
        assert reader.gets() is NOT_ENOUGH
        reader.feed(data[at:])
        assert reader.gets() == reply
        assert reader.gets() is NOT_ENOUGH


@pytest.mark.parametrize("make", [Parser, new_reader], ids=["python", "hiredis"])
def test_errors_and_pushes_are_told_from_replies(make: Callable[[], Any]) -> None:
    """An error is returned, not raised; a push has a type of its own."""
    reader = make()
    reader.feed(b"-ERR no\r\n>1\r\n+a\r\n*1\r\n+a\r\n")
    error = reader.gets()
    assert isinstance(error, ReplyError)
    assert str(error) == "ERR no"
    assert isinstance(reader.gets(), Push | hiredis.PushNotification)
    assert type(reader.gets()) is list


@pytest.mark.parametrize("make", [Parser, new_reader], ids=["python", "hiredis"])
@pytest.mark.parametrize("data", [b"HTTP/1.1 400\r\n", b":seven\r\n"])
def test_what_is_no_resp_is_an_error(make: Callable[[], Any], data: bytes) -> None:
    """Another protocol is recognised."""
    reader = make()
    reader.feed(data)
    with pytest.raises(ProtocolError):
        reader.gets()


def test_both_ways_to_write_a_command_agree() -> None:
    """Text, bytes and numbers are written alike with and without hiredis."""
    command = ("SET", b"k\r\n", 7, "ä")
    assert pack_slowly(command) == pack(command)


def test_without_hiredis_the_parser_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module offers the same names."""
    monkeypatch.setitem(sys.modules, "hiredis", None)
    spec = importlib.util.spec_from_file_location("without_hiredis", _resp.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (module.new_reader, module.pack, module.PUSH) == (module.Parser, module.pack_slowly, module.Push)
    assert _resp.new_reader is not Parser
