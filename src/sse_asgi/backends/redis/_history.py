"""History: one page of several channels, merged, and the events that are missing before it.

The server merges a page (`page.lua`), and the next page goes on where it ended: the position after a page says how far
each stream was read, so that a stream is not read again before the merge reaches that sequence.

Each entry carries its channel's previous sequence, so that the first entry of a stream proves whether an event is
missing before it. For a channel without entries the index has the last sequence. An event of several channels carries
the previous sequence of each of them: an event that one channel has lost is not missing where another one still has it.

Reading in several calls is not atomic, and need not be: later events arrive live, and are after `upto`. An event that a
stream has lost may be such a later one. It hides whether an earlier event is missing, too: the process knows that if it
has heard none on the channel since the reader's position.
"""

import asyncio
import json
import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from ..._log.event import Entry, History
from ..._log.position import Position
from ..base import PAGE_BYTES
from ._cursor import Batch, Cursor, PagePosition, Row, Stream
from ._dial import Server
from ._keys import Keys
from ._message import entry
from ._resp import Argument, ReplyError
from ._scripts import Scripts

META = ("e", "s", "h", "o", "x", "y", "j")
CATCH_UP = 10_000
WORK = 1 << 20  # bytes that a script reads in one call, so that other clients need not wait long
FEW = 8  # entries of a stream that are read first
OURS = [b"p", b"d"]  # the first fields of an entry
FORWARD, BACKWARD = 1, -1
EVERYTHING = 1 << 50


class Loss(NamedTuple):
    """The last sequence that is missing, and the reason."""

    sequence: int = 0
    reason: str = ""


class Claim(NamedTuple):
    """Events that a channel had, and that its stream does not have any more.

    Attributes:
        sequence: The sequence of the last of them.
        since: No event up to this sequence is missing.
        stream: The stream.
        reason: The reason why they are not there.
    """

    sequence: int
    since: int
    stream: Stream
    reason: str


class Page(NamedTuple):
    """One page of history.

    Attributes:
        epoch: The epoch of the log; None if there is no log.
        rows: The rows in the order of the log, one for each event.
        end: The sequence after which the next page begins; None on the last page.
        claims: The events that the streams have lost before the rows.
        whole: The reason why the position of the request is not of this log, or None.
        channels: The channels of the request.
        cursor: How far the streams were read.
        loss: The last event that none of the channels has any more.
    """

    epoch: str | None
    rows: list[Row]
    end: int | None
    claims: list[Claim]
    whole: str | None
    channels: tuple[str, ...]
    cursor: Cursor
    loss: Loss = Loss()

    @property
    def next(self) -> PagePosition | None:
        """The position where the next page begins."""
        if self.end is None:
            return None
        place = PagePosition(self.epoch or "", self.end)
        place.channels, place.cursor = self.channels, self.cursor
        return place

    def history(self, decode: Callable[[Row, Position], Entry | None]) -> History:
        """Return the page in the form of the contract."""
        places = [(row, Position(self.epoch or "", row.sequence)) for row in self.rows]
        entries = [one for row, position in places if (one := decode(row, position)) is not None]
        return History(
            entries, self.next, self.whole or self.loss.reason or None, 0 if self.whole else self.loss.sequence
        )


class HistoryReader:
    """Reads history over a command connection."""

    def __init__(self, keys: Keys, scripts: Scripts, ttl: Callable[[str], float | None]) -> None:
        """Read the history of this hub.

        Args:
            keys: The names of the hub.
            scripts: The scripts.
            ttl: The seconds that a channel keeps events; None is for ever.
        """
        self._keys = keys
        self._scripts = scripts
        self._ttl = ttl

    async def page(
        self,
        server: Server,
        channels: tuple[str, ...],
        after: Position | None,
        upto: Position,
        limit: int,
        *,
        heard: Mapping[str, int],
    ) -> Page:
        """Read up to `limit` events after one position and up to another, and find the last event that is missing.

        Args:
            server: Where to read.
            channels: The channels to read.
            after: Leave out events up to this position.
            upto: Leave out events after this position.
            limit: The most events to return.
            heard: For each channel, a sequence after which it has no event up to `upto`.

        Raises:
            ReplyError: The server refused.
            LinkLostError: The connection ended.
        """
        page = await self.read(server, channels, after, upto, limit)
        return page._replace(loss=await self._judge(server, page, upto.sequence, heard)) if page.claims else page

    async def read(
        self, server: Server, channels: tuple[str, ...], after: Position | None, upto: Position, limit: int
    ) -> Page:
        """Read up to `limit` events after one position and up to another.

        Raises:
            ReplyError: The server refused.
            LinkLostError: The connection ended.
        """
        start = 0 if after is None else after.sequence
        cursor = self._begin(channels, after, start)
        horizons = self._horizons(server, channels)
        claims: list[Claim] = []
        while True:
            meta, found, rows, learned, safe = await self._merge(server, cursor, horizons, upto.sequence, limit)
            whole, known = meta.compare(after)
            if known < start:  # the position is not of this log
                return (await self.read(server, channels, None, upto, limit))._replace(whole=whole)
            if found:
                cursor.add({number: self._stream(cursor.lacking[number], presence=True) for number in found})
                continue
            cursor.found = max(cursor.found, meta.last)
            claims += [] if after is None else _claims(cursor, learned)
            for stream in learned:
                cursor.since[stream.number] = max(cursor.since[stream.number], stream.since)
            cursor.put(rows)
            cursor.safe = safe
            rows, are_all = cursor.take(min(safe, upto.sequence), limit, PAGE_BYTES)
            done = are_all and safe >= min(upto.sequence, meta.last)
            if done or rows:
                end = None if done else rows[-1].sequence
                return Page(meta.epoch, rows, end, claims, whole, channels, cursor)

    def _begin(self, channels: tuple[str, ...], after: Position | None, start: int) -> Cursor:
        if isinstance(after, PagePosition) and after.cursor is not None and after.channels == channels:
            return after.cursor.after(start)
        return Cursor.begin([self._stream(name) for name in channels], start)

    def _stream(self, channel: str, *, presence: bool = False) -> Stream:
        return Stream((self._keys.presence_stream if presence else self._keys.stream)(channel), channel, presence)

    async def _merge(
        self, server: Server, cursor: Cursor, horizons: dict[str, int], upto: int, limit: int
    ) -> "_Merged":
        batch = cursor.batch(FORWARD)
        most, room, spare = cursor.wants(upto, limit, PAGE_BYTES)
        count = len(batch.numbers)
        few = max(1, min(FEW, 2 * most // count, room // count // (cursor.size or 1)))
        # The next of the other streams begins after its start: up to there, these streams are all that must be read.
        stop = upto if batch.rest is None else min(upto, batch.rest + 1)
        bounds: list[Argument] = [FORWARD, stop, most, room, spare, WORK, few, cursor.found, len(cursor.lacking)]
        merged = await self._run(server, cursor, batch, [*bounds, *cursor.lacking], horizons)
        if batch.rest is not None and batch.rest < merged.meta.last:
            return merged._replace(safe=min(merged.safe, batch.rest))
        return merged

    async def _run(
        self, server: Server, cursor: Cursor, batch: Batch, bounds: list[Argument], horizons: dict[str, int]
    ) -> "_Merged":
        streams = [cursor.streams[number] for number in batch.numbers]
        keys = [self._keys.meta, self._keys.index, *(stream.key for stream in streams)]
        arguments: list[Argument] = [self._keys.presence_index, *bounds]
        if horizons:
            pairs = zip(streams, batch.starts, strict=True)
            arguments += [max(start, horizons.get(stream.channel, 0)) for stream, start in pairs]
        else:
            arguments += batch.starts
        meta, found, entries, learned, safe = await self._scripts.page.run(server.link, keys, arguments)
        return _Merged(
            _Meta.read(meta),
            found,
            [_row(streams[at].channel, *entry) for at, several in entries for entry in several],
            [_Learned(batch.numbers[at], int(since), before, reason) for at, since, before, reason in learned],
            int(safe),
        )

    def _horizons(self, server: Server, channels: tuple[str, ...]) -> dict[str, int]:
        now, ttl = round((time.monotonic() + server.clock) * 1_000_000), self._ttl
        return {name: now - round(one * 1_000_000) for name in channels if (one := ttl(name)) is not None}

    # Losses

    async def _judge(self, server: Server, page: Page, upto: int, heard: Mapping[str, int]) -> Loss:
        """Find the last event that none of the channels has any more."""
        horizons = self._horizons(server, page.channels)
        end = upto if page.end is None else page.end
        rows = {row.sequence: row for row in page.cursor.rows}  # rows of later pages as well
        claims, loss = list(page.claims), Loss()
        while claims and (claim := max(claims)).sequence > loss.sequence:
            claims.remove(claim)
            sequence, is_lost = await self._follow(server, page.channels, claim, rows, end)
            if is_lost and page.end is None and sequence > upto:  # it arrives live
                sequence, is_lost = _look_before(claim, sequence, rows, heard[claim.stream.channel])
            if is_lost:
                expired = sequence < horizons.get(claim.stream.channel, 0)
                loss = max(loss, Loss(sequence, "expired" if expired else claim.reason))
            elif sequence > claim.since:
                claims.append(claim._replace(sequence=sequence))
        return loss

    async def _follow(
        self, server: Server, channels: tuple[str, ...], claim: Claim, rows: dict[int, Row], end: int
    ) -> tuple[int, bool]:
        """Go back from an event that a stream has lost while another channel has it, to the channel's event before.

        Returns:
            A sequence, and True if the event with this sequence is lost to all of the channels.
        """
        row = rows.get(claim.sequence)
        if row is not None:
            before = _before(row, claim.stream.channel)
            return (claim.sequence, True) if before is None else (before, False)
        if claim.sequence <= end or claim.stream.presence:
            return claim.sequence, True
        streams = [self._keys.stream(name) for name in channels]
        arguments: list[Argument] = [claim.stream.channel, claim.sequence, max(claim.since, end), WORK]
        sequence, is_lost = await self._scripts.trace.run(server.link, streams, arguments)
        return int(sequence), bool(is_lost) and int(sequence) not in rows

    # Positions

    async def rewind(
        self, server: Server, channels: tuple[str, ...], count: int, upto: Position
    ) -> tuple[str | None, int]:
        """Return the epoch of the log, and the sequence of the event before the newest `count` ones; 0 if none.

        Raises:
            ReplyError: The server refused.
            LinkLostError: The connection ended.
        """
        cursor = Cursor.begin([self._stream(name) for name in channels], upto.sequence + 1)
        known: set[int] = set()
        while True:
            batch = cursor.batch(BACKWARD)
            stop = 0 if batch.rest is None else 1 - batch.rest
            few = max(1, min(FEW, (count + 1) // len(batch.numbers)))
            bounds: list[Argument] = [BACKWARD, stop, count + 1, EVERYTHING, EVERYTHING, WORK, few, 0, 0]
            merged = await self._run(server, cursor, batch, bounds, {})
            for stream in merged.learned:
                cursor.since[stream.number] = min(cursor.since[stream.number], stream.since)
            known.update(row.sequence for row in merged.rows)
            safe = max(merged.safe, batch.rest or 0)
            newest = sorted((one for one in known if one >= safe), reverse=True)
            if len(newest) > count or safe <= 1:
                return merged.meta.epoch, newest[count] if len(newest) > count else 0

    async def changed(self, server: Server, channels: Collection[str], after: Position) -> tuple[str, ...]:
        """Return those of these channels to which an event may have been published since a position."""
        call, index, joins = server.link.call, self._keys.index, self._keys.presence_index
        events, comings, count, meta = await asyncio.gather(
            call("ZRANGE", index, f"({after.sequence}", "+inf", "BYSCORE"),
            call("ZRANGE", joins, f"({after.sequence}", "+inf", "BYSCORE"),
            call("ZCARD", index),
            call("HMGET", self._keys.meta, *META),
        )
        known = _Meta.read(meta)
        evicted = not count or (known.j > after.sequence and not comings)
        if evicted or max(known.x, known.y) > after.sequence:
            return tuple(channels)  # an index was evicted, or has dropped some channels
        names = {name.decode(errors="replace") for name in (*events, *comings)}
        return tuple(name for name in channels if name in names)


class _Learned(NamedTuple):
    """Facts about a stream that a script has found."""

    number: int
    since: int
    before: bytes | None
    reason: bytes | None


class _Merged(NamedTuple):
    """The reply of a script. All rows up to (backward: from) the sequence `safe` were read."""

    meta: "_Meta"
    found: list[int]
    rows: list[Row]
    learned: list[_Learned]
    safe: int


class _Meta(NamedTuple):
    epoch: str | None
    last: int
    holes: list[tuple[int, int]]
    before: str | None
    x: int
    y: int
    j: int

    @classmethod
    def read(cls, values: list[bytes | None]) -> "_Meta":
        epoch, last, holes, before, *others = (
            None if value is None else value.decode(errors="replace") for value in values
        )
        try:
            return cls(epoch, int(last or 0), _read_holes(holes or ""), before, *(int(one or 0) for one in others))
        except ValueError as error:
            msg = f"the hub's meta key holds no numbers: {values}"
            raise ReplyError(msg) from error

    def compare(self, position: Position | None) -> tuple[str | None, int]:
        """Return why a position is not of this log, or None, and the sequence after which its reader has new events."""
        if position is None:
            return None, 0
        if position.epoch == self.epoch:
            if any(first < position.sequence < following for first, following in self.holes):
                return "fork", position.sequence  # this server lost the event, and every later event is after it
            return ("fork", 0) if position.sequence > self.last else (None, position.sequence)
        return "epoch", position.sequence if position.epoch == self.before else 0


def _read_holes(text: str) -> list[tuple[int, int]]:
    pairs = (hole.partition("-") for hole in text.split())
    return [(int(first), int(following)) for first, _, following in pairs]


def _row(channel: str, key: bytes, fields: list[bytes] | None = None) -> Row:
    """Read an entry. An entry of another program may have any fields, and backward an entry has none."""
    sequence = int(key.partition(b"-")[0])
    if not fields or fields[:3:2] != OURS or not fields[1].isdigit():
        return Row(sequence, channel, None, b"")
    _, previous, _, data, *others = fields
    several = others[others.index(b"q") + 1] if b"q" in others else b""
    return Row(sequence, channel, int(previous), data, several)


def _claims(cursor: Cursor, learned: list[_Learned]) -> list[Claim]:
    """Return the events that the channels had after the sequences up to which they are complete."""
    return [
        Claim(int(one.before), since, cursor.streams[one.number], (one.reason or b"").decode())
        for one in learned
        if one.before is not None and int(one.before) > (since := cursor.since[one.number])
    ]


def _look_before(claim: Claim, sequence: int, rows: Mapping[int, Row], heard: int) -> tuple[int, bool]:
    """Go back from an event after the page, which none of the channels has, to what the channel has in the page.

    Args:
        claim: The claim of the channel.
        sequence: The sequence of the event.
        rows: The rows of the page.
        heard: A sequence after which the channel has no event in the page.

    Returns:
        A sequence from which to go on, and False; or the event's and True if the channel may lack an earlier event.
    """
    if heard <= claim.since:
        return claim.since, False
    before = _before(rows[heard], claim.stream.channel) if heard in rows else None
    return (sequence, True) if before is None else (before, False)


def _before(row: Row, channel: str) -> int | None:
    """Return the sequence of a channel's event before this one; None if the row does not name it."""
    try:
        places = json.loads(row.before)
        before = int(places[places.index(channel) + 1])
    except (ValueError, AttributeError, IndexError, TypeError, RecursionError):
        return None
    return before if before < row.sequence else None


def decode(row: Row, position: Position) -> Entry:
    """Make an entry of a row.

    Raises:
        ValueError: The row is not of this library.
    """
    if row.previous is None:
        raise ValueError
    return entry((row.channel,), position, f"id: {position}".encode(), row.data)
