"""One server: how to open a connection to it, and how to log in.

redis-py reads the options, the credentials and TLS, and its public attributes have all that is needed to open a
connection. It does not open the connection itself: its connections are read one reply at a time, and its PubSub
subscribes again without a word of the lost messages.
"""

import asyncio
import ssl
from typing import Any, Self

from redis.asyncio.connection import AbstractConnection, SSLConnection

from ._inquiries import Inquiries
from ._places import Names, Place, connect_first
from ._reasons import CredentialsError, UnusableError

CREDENTIAL_SECONDS = 30.0
PLAIN_HINT = "if this server does not use TLS, begin the URL with redis{plus}:// and not with rediss{plus}://"
TLS_HINT = "if this server uses TLS, begin the URL with rediss{plus}:// and not with redis{plus}://"
PROVIDER = "the credential provider"


class Endpoint:
    """How to connect to one server.

    Attributes:
        shown: The name of the server in logs, without credentials.
        db: The number of the database.
        doing: The step that takes time now, for the error after a timeout; empty while the server must answer.
        hint: Advice for the error when a server does not answer as Redis does.
    """

    def __init__(self, connection: AbstractConnection, names: Names, kind: str = "") -> None:
        """Take over the options that redis-py has read.

        Args:
            connection: redis-py's connection, which is never opened.
            names: Looks up the name of the host.
            kind: The part of the URL's scheme after the plus sign, or empty.
        """
        plus = f"+{kind}" if kind else ""
        self._plain_hint, self._tls_hint = PLAIN_HINT.format(plus=plus), TLS_HINT.format(plus=plus)
        self._connection = connection
        self._names = names
        self._place: Place | None = None
        self._login: tuple[Any, ...] | None = None
        self.db = int(connection.db or 0)
        self._path: str | None = getattr(connection, "path", None)
        self._host: str = getattr(connection, "host", "")
        self._port = int(getattr(connection, "port", 0))
        self.shown = self._path or f"{self._host}:{self._port}"
        self.doing = ""
        self.hint = ""

    async def connect(self, link: asyncio.Protocol) -> None:
        """Open the socket. A second call connects to the same address of the name.

        Raises:
            UnusableError: No connection was possible.
        """
        loop = asyncio.get_running_loop()
        if self._path is not None:
            self.doing = "it cannot be reached"
            await loop.create_unix_connection(lambda: link, self._path)
            self.doing = ""
            return
        context = self._context()
        if self._place is None:
            self.doing = f"DNS does not answer for the name {self._host!r}"
            places = await self._names.find(self._host, self._port)
        else:
            places = [self._place]
        self.doing = "it cannot be reached"
        socket, self._place = await connect_first(places)
        self.doing, self.hint = "", self._plain_hint if context else self._tls_hint
        try:
            name = self._host if context else None
            await loop.create_connection(lambda: link, sock=socket, ssl=context, server_hostname=name)
        except ssl.SSLCertVerificationError as error:
            msg = f"its certificate is refused, {error.verify_message}: name its authority with ssl_ca_certs in the URL"
            raise UnusableError(msg, advice=True) from error
        except ssl.SSLError as error:
            msg = f"TLS failed, {error}: {self._plain_hint}"
            raise UnusableError(msg, advice=True) from error
        except OSError as error:
            raise UnusableError(self.hinted(str(error) or type(error).__name__)) from error
        if context:
            self.hint = ""

    def _context(self) -> ssl.SSLContext | None:
        if not isinstance(self._connection, SSLConnection):
            return None
        try:
            return self._connection.ssl_context.get()
        except (OSError, TypeError, ValueError) as error:
            msg = f"the TLS options (ssl_...) cannot be used, {error}: check the files that they name"
            raise UnusableError(msg, advice=True) from error

    def hinted(self, reason: str) -> str:
        """Return the reason with the hint, if there is one."""
        return f"{reason}; {self.hint}" if self.hint else reason

    def avoid(self) -> None:
        """Try the other addresses of the host's name first from now on."""
        if self._place is not None:
            self._names.avoid(self._place)

    async def ask_login(self, inquiries: Inquiries) -> None:
        """Ask the credential provider, unless it has been asked.

        Raises:
            CredentialsError: The provider failed, or takes too long.
        """
        if self._login is not None:
            return
        one = self._connection
        if one.credential_provider is None:
            self._login = (one.username or "default", one.password or "") if one.username or one.password else ()
        else:
            self._login = await _ask(one.credential_provider, inquiries)

    def with_login_of(self, other: "Endpoint") -> Self:
        """Use the login of another node of the same cluster."""
        self._login = other._login  # noqa: SLF001 - the same class
        return self

    def hello(self) -> tuple[Any, ...]:
        """Return the command that chooses RESP3 and logs in."""
        client = self._connection.client_name
        return (
            "HELLO",
            "3",
            *(("AUTH", *self._login) if self._login else ()),
            *(("SETNAME", client) if client else ()),
        )


async def _ask(provider: Any, inquiries: Inquiries) -> tuple[Any, ...]:
    asynchronous = getattr(provider, "get_credentials_async", None)
    try:
        async with asyncio.timeout(CREDENTIAL_SECONDS) as bound:
            # The method of redis-py's own classes calls `get_credentials`, which may block the event loop.
            if asynchronous is None or asynchronous.__module__.startswith("redis."):
                found = await inquiries.ask(PROVIDER, provider.get_credentials)
            else:
                found = await asynchronous()
    except Exception as error:
        late = f"{PROVIDER} has not answered within {CREDENTIAL_SECONDS:g} s"
        msg = late if bound.expired() else f"{PROVIDER} failed: {type(error).__name__}: {error}"
        raise CredentialsError(msg) from error
    if not isinstance(found, tuple | list) or not 1 <= len(found) <= 2:  # noqa: PLR2004 - a user and a password
        msg = f"{PROVIDER} must return (user, password) or (password,) (got {type(found).__name__})"
        raise CredentialsError(msg, advice=True)
    return ("default", *found)[-2:]
