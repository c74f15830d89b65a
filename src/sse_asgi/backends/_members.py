"""The members that the memory backend lists: a lease and a set for each process, and counts for each channel."""

from collections import Counter
from collections.abc import Collection

from .base import Member


class MemberLists:
    """The members of each process, and on each channel the number of processes that list an identity.

    A method that changes the lists returns the joins and leaves, for the caller to publish: pairs of `join` or `leave`
    and the member.
    """

    __slots__ = ("_counts", "_leases", "_listed")

    def __init__(self) -> None:
        """List no member yet."""
        self._listed: dict[str, set[Member]] = {}
        self._leases: dict[str, float] = {}
        self._counts: dict[str, Counter[str]] = {}

    def attend(
        self, process: str, now: float, lease: float, entered: Collection[Member], left: Collection[Member]
    ) -> list[tuple[str, Member]]:
        """Renew the lease of a process, expire the leases of others, and update the members of this process."""
        mine = self._listed.setdefault(process, set())
        self._leases[process] = now + lease
        changes = self.expire(now)
        changes += self._add(set(entered) - mine)
        changes += self._remove(mine.intersection(left))
        mine.update(entered)
        mine.difference_update(left)
        return changes

    def expire(self, now: float) -> list[tuple[str, Member]]:
        """Remove the processes whose leases have run out."""
        dead = [process for process, end in self._leases.items() if end < now]
        for process in dead:
            del self._leases[process]
        return [change for process in dead for change in self._remove(self._listed.pop(process))]

    def count(self, process: str) -> int:
        """Return the number of members that a process lists."""
        return len(self._listed[process])

    def identities(self, channel: str) -> Collection[str]:
        """Return the identities on a channel."""
        return self._counts.get(channel, ())

    def _add(self, members: Collection[Member]) -> list[tuple[str, Member]]:
        joins = []
        for member in members:
            here = self._counts.setdefault(member.channel, Counter())
            here[member.identity] += 1
            if here[member.identity] == 1:
                joins.append(("join", member))
        return joins

    def _remove(self, members: Collection[Member]) -> list[tuple[str, Member]]:
        leaves = []
        for member in members:
            here = self._counts[member.channel]
            here[member.identity] -= 1
            if not here[member.identity]:
                del here[member.identity]
                leaves.append(("leave", member))
            if not here:
                del self._counts[member.channel]
        return leaves
