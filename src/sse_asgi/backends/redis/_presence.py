"""Who is here, listed in Redis: a lease and a set of members for each process, a hash of counts for each channel."""

import json
from collections.abc import Callable, Collection

from ..._position import new_epoch
from ..base import Member
from ._keys import Keys
from ._resp import Argument
from ._scripts import Scripts
from ._session import Session

NOBODY = ""


class Attendance:
    """Lists who is here for one hub; whatever it does may be repeated."""

    def __init__(
        self,
        keys: Keys,
        scripts: Scripts,
        size: Callable[[str], int],
        ttl: Callable[[str], int],
        *,
        keeps: bool,
    ) -> None:
        """Keep the names, the scripts, and what each channel keeps."""
        self._keys = keys
        self._scripts = scripts
        self._size = size
        self._ttl = ttl
        self._keeps = keeps

    async def attend(
        self,
        session: Session,
        epoch: str,
        process: str,
        *,
        lease: float,
        entered: Collection[Member] = (),
        left: Collection[Member] = (),
    ) -> int:
        """List whom a process has here; return how many it has now."""
        keys = [self._keys.meta, self._keys.index, self._keys.leases, self._keys.members(process)]
        arguments: list[Argument] = [new_epoch(), epoch, session.verbs[0], int(self._keeps), self._keys.base, process]
        arguments += [
            str(lease),
            int(0 < lease <= session.age),
            len(entered),
            *map(self._write, entered),
            *map(self._write, left),
        ]
        return int(await self._scripts.attend.run(session.server.link, keys, arguments))

    async def present(self, session: Session, epoch: str, channel: str) -> list[str]:
        """Return who is listed on a channel, when those are let go that nobody was left to miss."""
        await self.attend(session, epoch, NOBODY, lease=0)
        listed = await session.server.link.call("HKEYS", self._keys.present(channel))
        return [json.loads(identity) for identity in listed]

    def _write(self, member: Member) -> bytes:
        identity = json.dumps(member.identity, ensure_ascii=False)
        return f"{self._size(member.channel)} {self._ttl(member.channel)}\n{identity}\n{member.channel}".encode()
