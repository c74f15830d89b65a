"""Signed channel tickets, for EventSource, which cannot set headers; `pip install 'sse-asgi[tickets]'`.

A ticket is a part of the URL, and URLs are written down in many places: logs, histories, error reports. Whoever finds
one can read as its owner for as long as it is valid, so let it be valid for the moment of connecting.
"""

import copy
import hashlib
import logging
import re
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from .._hub.patterns import Pattern
from .channels import offered
from .grant import Grant

MIN_SECRET = 16
REDACTED = "ticket=[redacted]"
# Each letter of the name as it is, or escaped, which servers read all the same.
NAME = "".join(f"(?:{letter}|%{ord(letter):x})" for letter in "ticket")
TICKET = re.compile(rf"""(?<!\w){NAME}=[^&\s"'#]*""", re.IGNORECASE)


class TicketError(ValueError):
    """A ticket is forged, damaged or expired."""


class Ticket(NamedTuple):
    """What a ticket says.

    Attributes:
        channels: What may be read with it.
        grant: To whom it was given.
    """

    channels: tuple[str, ...]
    grant: Grant


class ChannelSigner:
    """Makes tickets and reads them; every process needs the same secret, and nothing is stored."""

    def __init__(self, secret: str | Sequence[str], *, salt: str = "sse_asgi.ticket") -> None:
        """Take the secret.

        Args:
            secret: At least 16 random characters, as `secrets.token_urlsafe()` makes them. Of several the first signs,
                and all are accepted, so that a secret can be changed without a break.
            salt: Tickets of one salt are no good with another: for apps that share a secret but no readers.

        Raises:
            ImportError: itsdangerous is not installed.
            TypeError: A secret that is no str.
            ValueError: No secret, or a short one.
        """
        try:
            from itsdangerous import URLSafeSerializer  # noqa: PLC0415 - an extra, for those who sign
        except ImportError as error:
            msg = f"ChannelSigner needs itsdangerous: pip install 'sse-asgi[tickets]' ({error})"
            raise ImportError(msg) from error
        self._serializer = URLSafeSerializer(
            [*reversed(_checked(secret))],  # the last one signs there
            salt=salt,
            signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
        )

    def ticket(
        self,
        channels: str | Collection[str],
        *,
        expires_in: float = 60.0,
        properties: Any = None,
        identity: str | None = None,
    ) -> str:
        """Write a ticket, to be given as `?ticket=...`; it is signed, not secret: its owner can read what it says.

        Args:
            channels: A name or several, or a Pattern of the hub.
            expires_in: Seconds in which one can connect with it. Keep them few.
            properties: The reader's, as plain JSON.
            identity: Who the reader is.

        Raises:
            ValueError: A bad name, an `expires_in` that is not above 0, or a bad identity.
            TypeError: Properties that are no JSON, or an identity that is no str.
        """
        if not expires_in > 0:
            msg = f"expires_in={expires_in} must be above 0 seconds"
            raise ValueError(msg)
        names = offered((channels,) if isinstance(channels, str) else channels)
        Grant(identity=identity)
        written = [[name] if isinstance(name, Pattern) else name for name in names]
        text = self._serializer.dumps([time.time() + expires_in, written, properties, identity])
        return text if isinstance(text, str) else text.decode()

    def read(self, ticket: str) -> Ticket:
        """Return what a ticket says.

        Raises:
            TicketError: It is forged or damaged, or it has expired.
        """
        from itsdangerous import BadData  # noqa: PLC0415 - it is there, or there were no signer

        try:
            expires, channels, properties, identity = self._serializer.loads(ticket)
        except (BadData, ValueError) as error:
            msg = "the ticket was not signed here, or not for this"
            raise TicketError(msg) from error
        if time.time() >= expires:
            msg = "the ticket has expired: get a new one"
            raise TicketError(msg)
        names = tuple(name if isinstance(name, str) else Pattern(*name) for name in channels)
        return Ticket(names, Grant(properties, identity=identity))


def _checked(secret: str | Sequence[str]) -> list[str]:
    secrets = [secret] if isinstance(secret, str) else list(secret)
    for one in secrets:
        if not isinstance(one, str):
            msg = f"a secret is a str, not {type(one).__name__}"
            raise TypeError(msg)
    if not secrets or any(len(one) < MIN_SECRET for one in secrets):
        msg = f"a secret must have at least {MIN_SECRET} characters: secrets.token_urlsafe() makes a good one"
        raise ValueError(msg)
    return secrets


class RedactTickets(logging.Filter):
    """Takes tickets out of what is logged: `logging.getLogger("uvicorn.access").addFilter(RedactTickets())`."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the values of `ticket=` in a record, and let it pass."""
        record.msg = _redacted(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(map(_redacted, record.args))
        elif isinstance(record.args, Mapping):  # gunicorn's and hypercorn's know more keys than they show
            record.args = copy.copy(record.args)
            for key, value in [*record.args.items()]:
                record.args[key] = _redacted(value)  # type: ignore[index]
        return True


def _redacted(value: Any) -> Any:
    return TICKET.sub(REDACTED, value) if isinstance(value, str) else value
