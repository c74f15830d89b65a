"""One server: how to open a connection to it, and how to log in.

redis-py knows the options, the credentials and TLS. Its public attributes say all that is needed to open a connection;
it does not open it itself, because its connections can only be read by asking for one reply at a time, and its PubSub
subscribes again without saying that messages were lost meanwhile.
"""

import asyncio
import ssl
from typing import Any, Self

from redis.asyncio.connection import AbstractConnection, SSLConnection

from ._inquiries import Inquiries
from ._places import Names, Place, connect_first
from ._reasons import UnusableError

CREDENTIAL_SECONDS = 30.0
PLAIN_HINT = "if this server does not use TLS, begin the URL with redis:// and not with rediss://"
TLS_HINT = "if this server uses TLS, begin the URL with rediss:// and not with redis://"
PROVIDER = "the credential provider"


class Endpoint:
    """How to connect to one server.

    Attributes:
        shown: What to call it in a log, without credentials.
        db: The number of the database.
        doing: What takes time now, for the error when it takes too long; empty while the server is waited for.
        hint: What else may be wrong when a server does not answer as it should.
    """

    def __init__(self, connection: AbstractConnection, names: Names) -> None:
        """Take over what redis-py made of the URL and options."""
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
        """Open the socket; a second time, to the same address of the name.

        Raises:
            UnusableError: There is no connection to be had.
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
        self.doing, self.hint = "", PLAIN_HINT if context else TLS_HINT
        try:
            name = self._host if context else None
            await loop.create_connection(lambda: link, sock=socket, ssl=context, server_hostname=name)
        except ssl.SSLCertVerificationError as error:
            msg = f"its certificate is refused, {error.verify_message}: name its authority with ssl_ca_certs in the URL"
            raise UnusableError(msg, advice=True) from error
        except ssl.SSLError as error:
            msg = f"TLS failed, {error}: {PLAIN_HINT}"
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
        """Add what else may be wrong."""
        return f"{reason}; {self.hint}" if self.hint else reason

    def avoid(self) -> None:
        """Try the other addresses of its name first from now on."""
        if self._place is not None:
            self._names.avoid(self._place)

    async def ask_login(self, inquiries: Inquiries) -> None:
        """Ask the credential provider, unless it has been asked.

        Raises:
            UnusableError: It failed, or takes too long.
        """
        if self._login is not None:
            return
        one = self._connection
        if one.credential_provider is None:
            self._login = (one.username or "default", one.password or "") if one.username or one.password else ()
        else:
            self._login = await _ask(one.credential_provider, inquiries)

    def with_login_of(self, other: "Endpoint") -> Self:
        """Storage in as to another node of the same cluster."""
        self._login = other._login  # noqa: SLF001 - its own class's
        return self

    def hello(self) -> tuple[Any, ...]:
        """Return the command that speaks RESP3 and proves who we are."""
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
            # The one that redis-py's classes have calls `get_credentials`, which may block, in the event loop.
            if asynchronous is None or asynchronous.__module__.startswith("redis."):
                found = await inquiries.ask(PROVIDER, provider.get_credentials)
            else:
                found = await asynchronous()
    except Exception as error:
        late = f"{PROVIDER} has not answered within {CREDENTIAL_SECONDS:g} s"
        msg = late if bound.expired() else f"{PROVIDER} failed: {type(error).__name__}: {error}"
        raise UnusableError(msg) from error
    if not isinstance(found, tuple | list) or not 1 <= len(found) <= 2:  # noqa: PLR2004 - a password, and a user before it
        msg = f"{PROVIDER} must return (user, password) or (password,) (got {type(found).__name__})"
        raise UnusableError(msg, advice=True)
    return ("default", *found)[-2:]
