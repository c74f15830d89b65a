"""Tickets: made, read, refused, used in place of headers, and kept out of logs."""

import json
import logging
import sys
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from mount.helpers import mounted, status
from sse_asgi import (
    ChannelSigner,
    Grant,
    Hub,
    Pattern,
)
from sse_asgi.tickets import RedactTickets, Ticket, TicketError
from strategies import PATIENT

pytestmark = pytest.mark.anyio


SECRET = "a secret of many characters"


SIGNER = ChannelSigner(SECRET)


TICKET = SIGNER.ticket("a", identity="ada", expires_in=1e6)


# Making and reading


def test_a_ticket_is_read_as_it_was_signed() -> None:
    """It has channels, properties and an identity."""
    text = SIGNER.ticket(["a", "é"], properties={"tenant": 7}, identity="ada")
    assert SIGNER.read(text) == Ticket(("a", "é"), Grant({"tenant": 7}, identity="ada"))
    assert SIGNER.read(SIGNER.ticket("a")) == Ticket(("a",), Grant())


def test_a_ticket_needs_no_escaping() -> None:
    """It goes into a URL as it is."""
    text = SIGNER.ticket(["&?=#/é"] * 3, properties="x" * 1000)
    assert urlencode({"ticket": text}) == f"ticket={text}"


def test_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ticket is valid for a minute, or for `expires_in`; the error says that it has expired."""
    now = 1_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    usual, short = SIGNER.ticket("a"), SIGNER.ticket("a", expires_in=0.5)
    now += 0.4
    SIGNER.read(short)
    now += 0.2
    with pytest.raises(TicketError, match="expired"):
        SIGNER.read(short)
    now += 59.3
    SIGNER.read(usual)
    now += 0.1
    with pytest.raises(TicketError, match="expired"):
        SIGNER.read(usual)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        ".",
        "a.b",
        "\ud800",
        "é.é",
        "\0",
        "." * 5000,
        pytest.param(TICKET[:-1], id="cut"),
        pytest.param("x" + TICKET, id="longer"),
    ],
)
def test_a_text_that_was_not_signed_is_refused(text: str) -> None:
    """Every other text is a TicketError."""
    with pytest.raises(TicketError, match="not signed here"):
        SIGNER.read(text)


@PATIENT
@given(st.integers(0, len(TICKET) - 1), st.characters())
def test_no_changed_ticket_says_anything_else(index: int, char: str) -> None:
    """It is refused, unless the change means nothing, as that of base64's last bits."""
    try:
        assert SIGNER.read(TICKET[:index] + char + TICKET[index + 1 :]) == SIGNER.read(TICKET)
    except TicketError as error:
        assert "not signed here" in str(error)  # noqa: PT017 - it may be accepted as well


def test_a_ticket_of_another_secret_or_salt_is_refused() -> None:
    """Signers accept only tickets of their own secret and salt."""
    text = SIGNER.ticket("a")
    for other in (ChannelSigner("another secret of characters"), ChannelSigner(SECRET, salt="other")):
        with pytest.raises(TicketError):
            other.read(text)


def test_secrets_can_be_changed_without_a_break() -> None:
    """The first secret signs, and all are accepted."""
    both = ChannelSigner(["the new secret, which is long", SECRET])
    assert both.read(SIGNER.ticket("a")).channels == ("a",)
    with pytest.raises(TicketError):
        SIGNER.read(both.ticket("a"))


@pytest.mark.parametrize(
    ("secret", "error"),
    [("short", ValueError), ("", ValueError), ([], ValueError), ([SECRET, "x"], ValueError), ([b"x" * 16], TypeError)],
)
def test_a_secret_that_can_be_guessed_is_refused(secret: Any, error: type[Exception]) -> None:
    """The error is raised when the signer is made."""
    with pytest.raises(error, match="secret"):
        ChannelSigner(secret)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"channels": []}, ValueError),
        ({"channels": "a\n"}, ValueError),
        ({"channels": "sse.control"}, ValueError),
        ({"channels": "a", "expires_in": 0}, ValueError),
        ({"channels": "a", "expires_in": float("nan")}, ValueError),
        ({"channels": "a", "identity": ""}, ValueError),
        ({"channels": "a", "identity": 7}, TypeError),
        ({"channels": "a", "properties": object()}, TypeError),
    ],
)
def test_a_ticket_that_means_nothing_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    """The error is raised when the ticket is made."""
    with pytest.raises(error):
        SIGNER.ticket(**options)


def test_without_itsdangerous_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is an extra, and the ImportError names it."""
    monkeypatch.setitem(sys.modules, "itsdangerous", None)
    with pytest.raises(ImportError, match=r"sse-asgi\[tickets\]"):
        ChannelSigner(SECRET)


# In the app


@pytest.mark.anyio
async def test_a_ticket_gives_its_channels_and_grant() -> None:
    """A request without a query gets all channels of the ticket."""
    async with mounted(tickets=SIGNER) as (hub, client):
        text = SIGNER.ticket(["a", "b"], properties=7, identity="ada")
        async with client.stream(f"/events/?ticket={text}") as stream:
            await hub.publish("b", "x")
            assert (await stream.next_event()).data == "x"
            (subscription,) = hub.subscriptions()
            assert subscription.channels == ("a", "b")
            assert (subscription.options.properties, subscription.options.identity) == (7, "ada")


@pytest.mark.anyio
async def test_a_ticket_lists_its_identity() -> None:
    """Presence uses the identity of the ticket."""
    async with mounted(tickets=SIGNER, presence=True) as (hub, client):
        async with client.stream(f"/events/?ticket={SIGNER.ticket('a', identity='ada')}"):
            assert await hub.presence("a") == ["ada"]


@pytest.mark.anyio
@pytest.mark.parametrize("query", ["", "&channel=orders.*"])
async def test_a_ticket_for_a_gathered_pattern_says_so(query: str) -> None:
    """A ticket names a pattern by a Pattern; a str, of which a part may come from a user, is refused."""
    async with mounted(Hub(patterns=["orders.*"]), tickets=SIGNER) as (hub, client):
        assert await status(client, f"?ticket={SIGNER.ticket('orders.*')}{query}") == 403
        async with client.stream(f"/events/?ticket={SIGNER.ticket(['a', Pattern('orders.*')])}{query}") as stream:
            await hub.publish("orders.1", "x")
            assert (await stream.next_event()).data == "x"


@pytest.mark.anyio
async def test_a_query_chooses_among_the_tickets_channels() -> None:
    """Other channels are 403, and bad names 400."""
    async with mounted(tickets=SIGNER, max_channels=2) as (_, client):
        text = SIGNER.ticket(["a", "b", "c"])
        assert await status(client, f"?ticket={text}&channel=b") == 200
        assert await status(client, f"?ticket={text}&channel=b&channel=d") == 403
        assert await status(client, f"?ticket={text}&channel=sse.control") == 403
        assert await status(client, f"?ticket={text}&channel=") == 400
        assert await status(client, f"?ticket={text}&channel=a&channel=b&channel=c") == 400


@pytest.mark.anyio
@pytest.mark.parametrize(
    "query", ["", "?ticket=", "?ticket=forged", pytest.param(f"?ticket=x&ticket={TICKET}", id="second")]
)
async def test_without_a_good_ticket_it_is_401(query: str) -> None:
    """The first ticket counts."""
    async with mounted(tickets=SIGNER) as (hub, client), client.stream(f"/events/{query}") as stream:
        assert stream.status_code == 401
        assert "www-authenticate" in stream.headers
        assert hub.stats().connections == 0


@pytest.mark.anyio
async def test_an_expired_ticket_is_401_also_on_resuming(monkeypatch: pytest.MonkeyPatch) -> None:
    """An EventSource reconnects with the URL that it has, so it must get another ticket."""
    now = 1_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    text = SIGNER.ticket("a", expires_in=60)
    async with mounted(tickets=SIGNER) as (hub, client):
        last = await hub.publish("a", "x")
        assert await status(client, f"?ticket={text}", last_event_id=last) == 200
        now += 60
        assert await status(client, f"?ticket={text}", last_event_id=last) == 401


@pytest.mark.anyio
async def test_authorize_decides_where_there_is_no_ticket() -> None:
    """It is not called if there is a ticket, even a bad one."""

    def refuse(*_: Any) -> None:
        raise HTTPException(403)

    async with mounted(tickets=SIGNER, authorize=refuse, revalidate=0.001) as (hub, client):
        assert await status(client) == 403
        assert await status(client, "?ticket=x") == 401
        async with client.stream(f"/events/?ticket={SIGNER.ticket('a')}") as stream:
            await hub.publish("a", "x")
            assert (await stream.next_event()).data == "x"


@pytest.mark.anyio
async def test_a_ticket_means_nothing_where_tickets_are_not_taken() -> None:
    """It opens no channel."""
    async with mounted() as (_, client):
        assert await status(client, f"?ticket={SIGNER.ticket('a')}&channel=a") == 403


@pytest.mark.anyio
async def test_a_ticket_is_not_in_our_logs(caplog: pytest.LogCaptureFixture) -> None:
    """It is not logged even if the stream fails."""

    async def snapshot() -> Any:
        raise RuntimeError

    async with mounted(tickets=SIGNER, snapshot=snapshot, initial=["x"]) as (_, client):
        text = SIGNER.ticket("a")
        with caplog.at_level(logging.DEBUG), pytest.raises(RuntimeError):
            async with client.stream(f"/events/?ticket={text}") as stream:
                await stream.read()
    assert caplog.records
    assert text not in caplog.text


# Servers' logs


def logged(message: Any, *args: Any) -> str:
    record = logging.LogRecord("access", logging.INFO, "", 0, message, args, None)
    assert RedactTickets().filter(record)
    return record.getMessage()


def test_tickets_are_taken_out_of_arguments() -> None:
    """Uvicorn gives the URL as an argument; the rest of the line stays."""
    line = logged('%s - "%s %s HTTP/%s" %d', "1.2.3.4:5", "GET", "/e/?a=1&ticket=abc.d-e_f&b=2", "1.1", 200)
    assert line == '1.2.3.4:5 - "GET /e/?a=1&ticket=[redacted]&b=2 HTTP/1.1" 200'


def test_tickets_are_taken_out_of_messages() -> None:
    """A message may be formatted already."""
    assert logged('"GET /e/?ticket=abc HTTP/1.1"') == '"GET /e/?ticket=[redacted] HTTP/1.1"'
    assert logged("the ticket=abc and ticket=def") == "the ticket=[redacted] and ticket=[redacted]"


@pytest.mark.parametrize("name", ["%74icket", "tic%6Bet", "tic%6bet", "%74%69%63%6B%65%74"])
def test_tickets_are_taken_out_however_their_name_is_written(name: str) -> None:
    """Escaped letters in the name are accepted by servers as well."""
    assert logged(f'"GET /e/?a=1&{name}=abc&b=2 HTTP/1.1"') == '"GET /e/?a=1&ticket=[redacted]&b=2 HTTP/1.1"'


def test_tickets_are_taken_out_of_mappings_that_know_more_than_they_have() -> None:
    """The mappings of gunicorn and hypercorn have `__missing__`, and must keep it."""

    class Atoms(dict[str, Any]):
        def __missing__(self, key: str) -> str:
            return "-"

    atoms = Atoms(r="GET /e/?ticket=abc HTTP/1.1", s=200)
    assert logged("%(h)s %(r)s %(s)d", atoms) == "- GET /e/?ticket=[redacted] HTTP/1.1 200"
    assert atoms["r"].endswith("ticket=abc HTTP/1.1")


def test_a_record_without_text_is_not_changed() -> None:
    """A record may have a message of every type."""
    assert logged({"a": 1}) == "{'a': 1}"
    assert json.loads(logged("%s", 5)) == 5
    assert RedactTickets().filter(logging.makeLogRecord({"msg": "x", "args": None}))
