"""Compress: one compressed block of each event for all readers, compared with a compressor for each connection."""

import json
import random
import resource
import time
import zlib
from collections.abc import Callable

import zstandard
from suite.answer import Answer, Setting, number, shown
from suite.duel import Values, duel

EVENTS = 200
STATES = 200
SIZES = {"100 bytes": 0, "1 KiB": 27, "16 KiB": 465}  # rows of a table of prices in each event


def events(rows: int) -> list[bytes]:
    """Return similar frames of JSON, as those of one channel are."""
    chance = random.Random(rows)
    found = []
    for number_ in range(EVENTS):
        price = {"time": 1_790_000_000 + number_, "symbol": f"S{chance.randrange(400):03d}", "price": chance.random()}
        table = [{"symbol": f"S{row:03d}", "price": round(chance.random() * 100, 2)} for row in range(rows)]
        data = json.dumps({**price, "table": table} if table else price)
        found.append(f"id: 1790000000-{number_}\nevent: prices\ndata: {data}\n\n".encode())
    return found


class Gzip:
    """A stream that begins with a gzip header; a block that was compressed alone fits into any such stream."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(wbits=31)

    def next(self, frame: bytes) -> bytes:
        return self._stream.compress(frame) + self._stream.flush(zlib.Z_SYNC_FLUSH)

    @staticmethod
    def alone(frame: bytes) -> bytes:
        block = zlib.compressobj(wbits=-15)
        return block.compress(frame) + block.flush(zlib.Z_FULL_FLUSH)

    @staticmethod
    def read(blocks: list[bytes], *, alone: bool) -> bytes:
        head = b"\x1f\x8b\x08" + bytes(6) + b"\xff" if alone else b""
        return zlib.decompressobj(wbits=31).decompress(head + b"".join(blocks))


class Zstd:
    """A stream of frames; a frame that was compressed alone can follow any other."""

    def __init__(self) -> None:
        self._stream = zstandard.ZstdCompressor().compressobj()

    def next(self, frame: bytes) -> bytes:
        return self._stream.compress(frame) + self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    @staticmethod
    def alone(frame: bytes) -> bytes:
        return zstandard.ZstdCompressor().compress(frame)

    @staticmethod
    def read(blocks: list[bytes], *, alone: bool) -> bytes:
        return zstandard.ZstdDecompressor().decompressobj(read_across_frames=alone).decompress(b"".join(blocks))


KINDS: dict[str, type[Gzip | Zstd]] = {"gzip": Gzip, "zstd": Zstd}


def turn(kind: type[Gzip | Zstd], frames: list[bytes], *, alone: bool) -> Callable[[], Values]:
    def take() -> Values:
        compress = kind.alone if alone else kind().next
        began = time.process_time()
        blocks = [compress(frame) for frame in frames]
        seconds = time.process_time() - began
        assert kind.read(blocks, alone=alone) == b"".join(frames)
        return {"us": seconds / len(frames) * 1e6, "bytes": sum(map(len, blocks)) / len(frames)}

    return take


def memory(kind: type[Gzip | Zstd], frame: bytes) -> float:
    """Return the KiB of a compressor, which each connection needs."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    streams = [kind() for _ in range(STATES)]
    for stream in streams:
        stream.next(frame)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / len(streams)


def run(setting: Setting) -> Answer:
    answer = Answer("compress", "Compression")
    states = {name: memory(kind, events(SIZES["1 KiB"])[0]) for name, kind in KINDS.items()}
    rows = []
    for size, table in SIZES.items():
        frames = events(table)
        turns = {
            f"{name}, {way}": turn(kind, frames, alone=way == "once")
            for name, kind in KINDS.items()
            for way in ("each", "once")
        }
        rounds = answer.rounds[size] = duel(f"compress: {size}", setting.rounds, turns)
        plain = sum(map(len, frames)) / len(frames)
        for name in KINDS:
            each, once = f"{name}, each", f"{name}, once"
            ratios = (shown(rounds.of(one, "us"), 1) for one in (each, once))
            parts = (f"{rounds.of(one, 'bytes').middle / plain:.0%}" for one in (each, once))
            rows.append([size, name, number(plain, 0), *parts, *ratios])
    answer.say(
        "A compressor for each connection remembers what it sent; a block of an event that is made once goes to all "
        "readers, and begins from nothing. Bytes on the wire in % of the plain frame, and µs for each call: for each "
        "reader, or for each event. Every stream is read back and compared."
    )
    heads = ("event", "with", "bytes", "% left, each", "% left, once", "µs for each reader", "µs once")
    answer.table(heads, rows)
    answer.say("A compressor takes " + ", ".join(f"{kib:.0f} KiB ({name})" for name, kib in states.items()) + ".")
    return answer
