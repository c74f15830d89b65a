"""Reading what a hub keeps: one page of several channels, merged, and what is missing before it.

Nothing here is atomic, nor need it be: whatever is published meanwhile comes live, and is after `upto`. Each entry
carries its channel's previous sequence, so that the first one that is read proves whether something is missing; for a
channel with no entry left, the index knows its last sequence.
"""

import asyncio
import heapq
import time
from collections.abc import Callable, Collection
from itertools import groupby
from math import isinf
from typing import Any, NamedTuple

from ..._event import Entry, History
from ..._position import Position
from ._dial import Server
from ._keys import Keys
from ._message import entry
from ._resp import ReplyError

META = ("e", "s", "h", "o", "x")
CATCH_UP = 10_000
FEWEST = 20


class Loss(NamedTuple):
    """The last sequence that is missing, and why."""

    sequence: int = 0
    reason: str = ""


class Row(NamedTuple):
    """An entry of a stream, as it was read; None as its channel's previous sequence if it is not ours."""

    sequence: int
    channel: str
    previous: int | None
    data: bytes


class Page(NamedTuple):
    """What was read.

    Attributes:
        epoch: The life of the log; None if there is none.
        rows: In the order of the log, one for each event.
        end: The sequence after which the next page begins; None on the last page.
        losses: For each channel that misses something before the rows.
        whole: Why the position asked for is not of this log, or None.
    """

    epoch: str | None
    rows: list[Row]
    end: int | None
    losses: dict[str, Loss]
    whole: str | None

    def history(self, decode: Callable[[Row, Position], Entry | None]) -> History:
        """Return it as the contract has it."""
        places = [(row, Position(self.epoch or "", row.sequence)) for row in self.rows]
        entries = [one for row, position in places if (one := decode(row, position)) is not None]
        following = None if self.end is None else Position(self.epoch or "", self.end)
        last = max(self.losses.values(), default=Loss())
        return History(entries, following, self.whole or last.reason or None, 0 if self.whole else last.sequence)


class Recovery:
    """Reads history over a command connection."""

    def __init__(self, keys: Keys, ttl: Callable[[str], float | None]) -> None:
        """Read this hub.

        Args:
            keys: The names of the hub.
            ttl: How long a channel keeps events, in seconds.
        """
        self._keys = keys
        self._ttl = ttl

    async def read(
        self, server: Server, channels: tuple[str, ...], after: Position | None, upto: Position, limit: int
    ) -> Page:
        """Read up to so many events after one position and up to another.

        Raises:
            ReplyError: The server refused.
            LinkLostError: The connection ended.
        """
        # As many of each channel as there may be of all, unless that were very many.
        count = limit + 1 if len(channels) * limit <= CATCH_UP * FEWEST else max(FEWEST, CATCH_UP // len(channels))
        now = time.monotonic()
        horizons = [self._horizon(server, name, now) for name in channels]
        start = 0 if after is None else after.sequence
        meta, scores, streams = await self._fetch(server, channels, [max(start, one) for one in horizons], count)
        whole, known = meta.compare(after)
        if known < start:  # the position says nothing about this log
            return (await self.read(server, channels, None, upto, limit))._replace(whole=whole)
        read = {name: _rows(name, stream) for name, stream in zip(channels, streams, strict=True)}
        scores = [None if score is None or isinf(score) else score for score in scores]  # infinite ones are not ours
        last = {name: meta.x if score is None else int(score) for name, score in zip(channels, scores, strict=True)}
        if meta.x > start > 0:
            several = zip(channels, scores, streams, strict=True)
            last |= await self._newest(
                server, [name for name, score, kept in several if (score, kept) == (None, [])], upto
            )
        losses = {
            name: loss
            for name, horizon in zip(channels, horizons, strict=True)
            if after is not None and (loss := _loss(read[name], last[name], start, horizon)).sequence
        }
        rows, end = _merge(list(read.values()), count, upto.sequence, limit)
        return Page(meta.epoch, rows, end, losses, whole)

    async def _fetch(
        self, server: Server, channels: tuple[str, ...], starts: list[int], count: int
    ) -> "tuple[_Meta, list[float | None], list[Any]]":
        call, keys = server.link.call, self._keys
        pairs = zip(channels, starts, strict=True)
        replies: list[Any] = await asyncio.gather(
            call("ZMSCORE", keys.index, *channels),
            *(call("XRANGE", keys.stream(name), f"({start}", "+", "COUNT", count) for name, start in pairs),
            call("HMGET", keys.meta, *META),  # last: if this is the log's life, all of them are of it
            return_exceptions=True,
        )
        scores, *streams, meta = replies
        for reply in replies:
            strange = reply is not meta and reply is not scores and str(reply).startswith("WRONGTYPE")
            if isinstance(reply, Exception) and not strange:
                raise reply
        return _Meta.read(meta), scores, streams

    async def _newest(self, server: Server, channels: list[str], upto: Position) -> dict[str, int]:
        """Find the last sequences of channels that the index has lost, where their streams are still there."""
        call, stream = server.link.call, self._keys.stream
        calls = (call("XREVRANGE", stream(name), upto.sequence, "-", "COUNT", 1) for name in channels)
        replies = zip(channels, await asyncio.gather(*calls), strict=True)
        return {name: _rows(name, reply)[0].sequence for name, reply in replies if reply}

    def _horizon(self, server: Server, channel: str, now: float) -> int:
        ttl = self._ttl(channel)
        return 0 if ttl is None else round((now - ttl + server.clock) * 1_000_000)

    async def changed(self, server: Server, channels: Collection[str], after: Position) -> tuple[str, ...]:
        """Name those of these channels that something may have been published to since."""
        call, index = server.link.call, self._keys.index
        known, count, meta = await asyncio.gather(
            call("ZRANGE", index, f"({after.sequence}", "+inf", "BYSCORE"),
            call("ZCARD", index),
            call("HMGET", self._keys.meta, *META),
        )
        if not count or _Meta.read(meta).x > after.sequence:
            return tuple(channels)  # the index was evicted, or let go of some
        names = {name.decode(errors="replace") for name in known}
        return tuple(name for name in channels if name in names)


class _Meta(NamedTuple):
    epoch: str | None
    last: int
    holes: list[tuple[int, int]]
    before: str | None
    x: int

    @classmethod
    def read(cls, values: list[bytes | None]) -> "_Meta":
        epoch, last, holes, before, x = (None if value is None else value.decode(errors="replace") for value in values)
        try:
            return cls(epoch, int(last or 0), _read_holes(holes or ""), before, int(x or 0))
        except ValueError as error:
            msg = f"the hub's meta key holds no numbers: {values}"
            raise ReplyError(msg) from error

    def compare(self, position: Position | None) -> tuple[str | None, int]:
        """Tell why a position is not of this log, and after which sequence there is something new for it."""
        if position is None:
            return None, 0
        if position.epoch == self.epoch:
            if any(first < position.sequence < following for first, following in self.holes):
                return "fork", position.sequence  # this server lost it, and all that is newer is after it
            return ("fork", 0) if position.sequence > self.last else (None, position.sequence)
        return "epoch", position.sequence if position.epoch == self.before else 0


def _read_holes(text: str) -> list[tuple[int, int]]:
    pairs = (hole.partition("-") for hole in text.split())
    return [(int(first), int(following)) for first, _, following in pairs]


def _rows(channel: str, stream: Any) -> list[Row]:
    """Read a stream; what is no stream is not ours, and holds nothing."""
    return [] if isinstance(stream, Exception) else [_row(channel, key, fields or []) for key, fields in stream]


def _row(channel: str, key: bytes, fields: list[bytes]) -> Row:
    sequence = int(key.partition(b"-")[0])
    try:
        values = dict(zip(fields[::2], fields[1::2], strict=True))
        return Row(sequence, channel, int(values[b"p"]), values[b"d"])
    except (KeyError, ValueError):
        return Row(sequence, channel, None, b"")


def _loss(rows: list[Row], score: int, start: int, horizon: int) -> Loss:
    """Find the last sequence after `start` that the channel had and has not any more."""
    previous = next((row.previous for row in rows if row.previous is not None), None)
    last = score if previous is None else previous
    if last <= start:
        return Loss()
    if last < horizon:
        return Loss(last, "expired")
    return Loss(last, "evicted" if previous is None else "trimmed")


def _merge(channels: list[list[Row]], count: int, upto: int, limit: int) -> tuple[list[Row], int | None]:
    """Join the channels as far as all of them were read; return the rows, and where the next page begins."""
    read = min((rows[-1].sequence for rows in channels if len(rows) == count), default=upto)
    merged = heapq.merge(*channels, key=lambda row: row.sequence)
    # An event that was published to several of the channels is in several streams, and one in the page.
    rows = [next(same) for sequence, same in groupby(merged, lambda row: row.sequence) if sequence <= min(read, upto)]
    if len(rows) > limit:
        return rows[:limit], rows[limit - 1].sequence
    return rows, read if read < upto else None


def decode(row: Row, position: Position) -> Entry:
    """Make the log's entry of a row.

    Raises:
        ValueError: It is not one of ours.
    """
    if row.previous is None:
        raise ValueError
    return entry((row.channel,), position, f"id: {position}".encode(), row.data)
