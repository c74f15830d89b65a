"""The Lua scripts. Each is run by its hash; a server that does not know the hash gets the text.

MULTI is not enough: the entry and the message carry the sequence that the script has just found. FUNCTION LOAD needs
more rights, and two versions of this library would replace each other's functions.
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
        """Read the files of its text."""
        self._text = b"".join(files(__package__).joinpath(name).read_bytes() for name in names)
        self._hash = sha1(self._text, usedforsecurity=False).hexdigest()

    async def run(self, link: Link, keys: list[bytes], arguments: list[Argument]) -> Any:
        """Run the script, and return its reply.

        Raises:
            ReplyError: The server refused, or the script failed.
            LinkLostError: The script may have run.
        """
        try:
            return await link.call("EVALSHA", self._hash, len(keys), *keys, *arguments)
        except ReplyError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
            return await link.call("EVAL", self._text, len(keys), *keys, *arguments)


class Storage(NamedTuple):
    """The arguments of the scripts that write to a log: its names, and how much it keeps.

    Attributes:
        keys: The names of the hub.
        scripts: The scripts.
        size: The number of events that a channel keeps.
        ttl: The milliseconds that a channel keeps events; 0 is for ever.
        bytes: The bytes of events that a channel keeps.
        total: The bytes of events that all channels of the application keep together.
        keeps: True if any channel keeps events.
    """

    keys: Keys
    scripts: "Scripts"
    size: Callable[[str], int]
    ttl: Callable[[str], int]
    bytes: Callable[[str], int]
    total: int
    keeps: bool


class Scripts:
    """All scripts."""

    def __init__(self) -> None:
        """Read the files."""
        self.publish = Script("log.lua", "publish.lua")
        self.attend = Script("log.lua", "attend.lua")
        self.announce = Script("announce.lua")
        self.fence = Script("fence.lua")
        self.page = Script("merge.lua", "page.lua")
        self.trace = Script("trace.lua")
        self.start_run = Script("log.lua", "runs.lua", "start_run.lua")
        self.append_run = Script("log.lua", "runs.lua", "append_run.lua")
        self.end_run = Script("log.lua", "runs.lua", "end_run.lua")
        self.renew_runs = Script("log.lua", "runs.lua", "renew_runs.lua")
