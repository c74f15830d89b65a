"""Presence in Redis: a lease and a set of members for each process, a hash of counts for each channel."""

import json
from collections.abc import Collection

from ..._log.position import new_epoch
from ..base import Member
from ._resp import Argument
from ._scripts import Storage
from ._session import Session

NO_PROCESS = ""


class Attendance:
    """The presence lists of one hub. Every call may be repeated."""

    def __init__(self, storage: Storage) -> None:
        """Publish joins and leaves to this log."""
        self._storage = storage

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
        """Update the members of a process; return how many it has now."""
        keys = [
            self._storage.keys.meta,
            self._storage.keys.presence_index,
            self._storage.keys.leases,
            self._storage.keys.members(process),
        ]
        arguments: list[Argument] = [
            new_epoch(),
            epoch,
            session.verbs[0],
            int(self._storage.keeps),
            self._storage.keys.base,
            process,
        ]
        arguments += [
            str(lease),
            int(0 < lease <= session.age),
            len(entered),
            *map(self._write, entered),
            *map(self._write, left),
        ]
        return int(await self._storage.scripts.attend.run(session.server.link, keys, arguments))

    async def present(self, session: Session, epoch: str, channel: str) -> list[str]:
        """Expire members of dead processes, then return the channel's identities."""
        await self.attend(session, epoch, NO_PROCESS, lease=0)
        listed = await session.server.link.call("HKEYS", self._storage.keys.present(channel))
        return [json.loads(identity) for identity in listed]

    def _write(self, member: Member) -> bytes:
        identity = json.dumps(member.identity, ensure_ascii=False)
        size, ttl = self._storage.size(member.channel), self._storage.ttl(member.channel)
        return f"{size} {ttl}\n{identity}\n{member.channel}".encode()
