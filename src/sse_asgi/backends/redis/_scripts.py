"""The Lua scripts, each run by its hash; a server that does not know it yet is sent the text.

Not MULTI: what is added and announced carries the sequence that the script has just found. Not FUNCTION LOAD: that
needs more rights, and two versions of this library would replace each other's functions.
"""

from collections.abc import Callable
from hashlib import sha1
from importlib.resources import files
from typing import Any, NamedTuple

from ._keys import Keys
from ._link import Link
from ._resp import Argument, ReplyError


class Script:
    """One script, and its hash."""

    def __init__(self, *names: str) -> None:
        """Read the files that it is made of."""
        self._text = b"".join(files(__package__).joinpath(name).read_bytes() for name in names)
        self._hash = sha1(self._text, usedforsecurity=False).hexdigest()

    async def run(self, link: Link, keys: list[bytes], arguments: list[Argument]) -> Any:
        """Run it, and return its reply.

        Raises:
            ReplyError: The server refused, or the script failed.
            LinkLostError: It may have run.
        """
        try:
            return await link.call("EVALSHA", self._hash, len(keys), *keys, *arguments)
        except ReplyError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
            return await link.call("EVAL", self._text, len(keys), *keys, *arguments)


class Storage(NamedTuple):
    """What the scripts are told of the log that they write to.

    Attributes:
        keys: The names of the hub.
        scripts: The scripts.
        size: How many events a channel keeps.
        ttl: For how many milliseconds; 0 is for ever.
        bytes: How many bytes of events a channel keeps.
        total: How many bytes of events all channels of the application keep together.
        keeps: Whether any channel keeps events.
    """

    keys: Keys
    scripts: "Scripts"
    size: Callable[[str], int]
    ttl: Callable[[str], int]
    bytes: Callable[[str], int]
    total: int
    keeps: bool


class Scripts:
    """All of them."""

    def __init__(self) -> None:
        """Read the files."""
        self.publish = Script("log.lua", "publish.lua")
        self.attend = Script("log.lua", "attend.lua")
        self.announce = Script("announce.lua")
        self.fence = Script("fence.lua")
        self.page = Script("merge.lua", "page.lua")
        self.trace = Script("trace.lua")
