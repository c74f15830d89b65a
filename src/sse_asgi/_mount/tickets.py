"""Signed channel tickets, for EventSource, which cannot set headers; `pip install 'sse-asgi[tickets]'`.

A ticket is a part of the URL, and URLs are stored in many places: logs, histories, error reports. A person who finds a
valid ticket can read as its owner, so a ticket should be valid for the moment of connecting only.
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
# A server reads the name with each letter as it is or escaped.
NAME = "".join(f"(?:{letter}|%{ord(letter):x})" for letter in "ticket")
TICKET = re.compile(rf"""(?<!\w){NAME}=[^&\s"'#]*""", re.IGNORECASE)


class TicketError(ValueError):
    """A ticket is forged, damaged or expired."""


class Ticket(NamedTuple):
    """The content of a ticket.

    Attributes:
        channels: The channels that may be read with it.
        grant: The properties and the identity of its owner.
    """

    channels: tuple[str, ...]
    grant: Grant


class ChannelSigner:
    """Makes tickets and reads them. Every process needs the same secret, and nothing is stored."""

    def __init__(self, secret: str | Sequence[str], *, salt: str = "sse_asgi.ticket") -> None:
        """Check the secret.

        Args:
            secret: At least 16 random characters, as `secrets.token_urlsafe()` makes them. Of several secrets the first
                signs, and all are accepted, so that a secret can be changed without a break.
            salt: A ticket of one salt is refused with another: for apps that share a secret, but not their readers.

        Raises:
            ImportError: itsdangerous is not installed.
            TypeError: A secret that is not a str.
            ValueError: No secret, or a short one.
        """
        try:
            from itsdangerous import URLSafeSerializer  # noqa: PLC0415 - an optional dependency
        except ImportError as error:
            msg = f"ChannelSigner needs itsdangerous: pip install 'sse-asgi[tickets]' ({error})"
            raise ImportError(msg) from error
        self._serializer = URLSafeSerializer(
            [*reversed(_checked(secret))],  # itsdangerous signs with the last one
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
        """Write a ticket, to be sent as `?ticket=...`. It is signed, not secret: its owner can read its content.

        Args:
            channels: A name or several, or a Pattern of the hub.
            expires_in: Seconds within which a client must connect. Keep them few.
            properties: The reader's properties, as plain JSON.
            identity: The reader's name.

        Raises:
            ValueError: A bad name, an `expires_in` that is not above 0, or a bad identity.
            TypeError: Properties that are not JSON, or an identity that is not a str.
        """
        if not expires_in > 0:
            msg = f"expires_in must be above 0 seconds (got {expires_in})"
            raise ValueError(msg)
        names = offered((channels,) if isinstance(channels, str) else channels)
        Grant(identity=identity)
        written = [[name] if isinstance(name, Pattern) else name for name in names]
        text = self._serializer.dumps([time.time() + expires_in, written, properties, identity])
        return text if isinstance(text, str) else text.decode()

    def read(self, ticket: str) -> Ticket:
        """Return the content of a ticket.

        Raises:
            TicketError: The ticket is forged, damaged or expired.
        """
        from itsdangerous import BadData  # noqa: PLC0415 - an optional dependency

        try:
            expires, channels, properties, identity = self._serializer.loads(ticket)
        except (BadData, ValueError) as error:
            msg = "the ticket was not signed here, or not for this app: get a new one"
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
            msg = f"a secret must be a str (got {type(one).__name__})"
            raise TypeError(msg)
    if not secrets or any(len(one) < MIN_SECRET for one in secrets):
        msg = f"a secret must have at least {MIN_SECRET} characters: secrets.token_urlsafe() makes a good one"
        raise ValueError(msg)
    return secrets


class RedactTickets(logging.Filter):
    """Takes tickets out of log records: `logging.getLogger("uvicorn.access").addFilter(RedactTickets())`."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the values of `ticket=` in a record, and let it pass."""
        record.msg = _redacted(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(map(_redacted, record.args))
        elif isinstance(record.args, Mapping):  # gunicorn's and hypercorn's have `__missing__`
            record.args = copy.copy(record.args)
            for key, value in [*record.args.items()]:
                record.args[key] = _redacted(value)  # type: ignore[index]
        return True


def _redacted(value: Any) -> Any:
    return TICKET.sub(REDACTED, value) if isinstance(value, str) else value
