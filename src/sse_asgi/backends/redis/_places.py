"""Names to sockets: every address of a name is tried, as browsers do it, so that a dead address is not an outage.

https://www.rfc-editor.org/rfc/rfc8305
"""

import asyncio
import os
import socket
from collections.abc import Sequence
from functools import partial
from itertools import chain, zip_longest
from typing import Any, NamedTuple

from ._inquiries import Inquiries
from ._reasons import UnusableError

HEAD_START = 0.25


class Place(NamedTuple):
    """One address of a name, in the form of the socket module."""

    family: int
    address: Any

    def __str__(self) -> str:
        """Write the address for an error message."""
        host, port = self.address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Names:
    """Looks up names, and remembers which of their addresses could not be used."""

    def __init__(self, inquiries: Inquiries) -> None:
        """Look up by these inquiries."""
        self._inquiries = inquiries
        self._avoided: set[Place] = set()

    async def find(self, host: str, port: int) -> list[Place]:
        """Return the addresses of a name in the order in which they should be tried.

        Raises:
            UnusableError: The name was not found.
        """
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            try:
                found = look_up(flags=socket.AI_NUMERICHOST)  # an address needs no thread
            except OSError:
                found = await self._inquiries.ask((host, port), look_up)
        except (OSError, UnicodeError) as error:
            msg = f"the name {host!r} was not found: {error}"
            raise UnusableError(msg) from error
        places = _by_turns([Place(family, address) for family, _, _, _, address in found])
        if self._avoided.issuperset(places):
            self._avoided.difference_update(places)
        return sorted(places, key=self._avoided.__contains__)

    def avoid(self, place: Place) -> None:
        """Try the other addresses of the name first from now on."""
        self._avoided.add(place)


def _by_turns(places: list[Place]) -> list[Place]:
    """Alternate the address families, so that a network without one of them costs one head start."""
    first = [place for place in places if place.family == places[0].family]
    others = [place for place in places if place.family != places[0].family]
    turns = chain.from_iterable(zip_longest(first, others))
    return list(dict.fromkeys(place for place in turns if place is not None))


class _Failure(NamedTuple):
    """The reason why a place was not reached."""

    place: Place
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


Reached = tuple[socket.socket, Place]


async def connect_first(places: Sequence[Place]) -> Reached:
    """Connect to all places and return the first connection; each place has a head start before the next.

    Raises:
        UnusableError: Every place failed.
    """
    waiting, failures = list(places), list[_Failure]()
    trying: set[asyncio.Task[Reached | _Failure]] = set()
    try:
        while waiting or trying:
            if waiting:
                trying.add(asyncio.create_task(_connect(waiting.pop(0))))
            pause = HEAD_START if waiting else None
            done, _ = await asyncio.wait(trying, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                trying.remove(task)
                result = task.result()
                if not isinstance(result, _Failure):
                    return result
                failures.append(result)
    finally:
        for task in trying:
            task.cancel()
            task.add_done_callback(_discard)
    reasons = {one.reason for one in failures}
    raise UnusableError(reasons.pop() if len(reasons) == 1 else "; ".join(map(str, failures)))


async def _connect(place: Place) -> Reached | _Failure:
    try:
        connection = socket.socket(place.family, socket.SOCK_STREAM)
    except OSError as error:  # a system without IPv6
        return _Failure(place, str(error))
    try:
        connection.setblocking(False)  # noqa: FBT003 - the socket module takes it so
        await asyncio.get_running_loop().sock_connect(connection, place.address)
    except OSError as error:
        connection.close()
        return _Failure(place, os.strerror(error.errno) if error.errno else str(error))
    except BaseException:
        connection.close()
        raise
    return connection, place


def _discard(task: "asyncio.Task[Reached | _Failure]") -> None:
    if not task.cancelled() and not isinstance(result := task.result(), _Failure):
        result[0].close()
