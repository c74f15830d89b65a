"""The tables of docs/comparison.md: facts in rows, peers in columns."""

import re
from datetime import UTC, datetime
from pathlib import Path

from strangers.comparison import read
from strangers.comparison.peers import AIOHTTP, FASTAPI, LITESTAR, NCHAN, OURS, SSE_STARLETTE, Peer

Cells = dict[str, str]

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "comparison.md"
BENCHMARKS = ROOT / "benchmarks" / "README.md"
VERSION = "version, date"

TABLES = {
    "comparison_responses": (
        "402 before the stream is made",
        "402 from the generator, before its first event",
        "an error after `one`",
        "the client leaves; after 1 s",
        "a generator faster than its client",
        "a client that reads nothing",
        "Ctrl-C with open streams",
        "a finished job is asked for again",
        "HEAD",
    ),
    "comparison_bytes": (
        "line ends in data",
        "a line end in `event`",
        "a line end in `id`",
        "15 s of silence",
        "headers for proxies",
    ),
    "comparison_channels": (
        "`2` and `3` missed, then `4`",
        "the last id is too old",
        "16 MiB for a reader that does not read",
    ),
    "comparison_redis": (
        "connections to Redis, 1 reader and 11",
        "publishing while Redis is away",
        "`1`, Redis dies and is back, `2`",
    ),
}
COLUMNS = (OURS, SSE_STARLETTE, FASTAPI, LITESTAR, AIOHTTP, NCHAN, read.MERCURE, read.CENTRIFUGO)

# Facts that a column has no cell for, because it has no channels, or runs no code of an application.
_NO_CHANNELS = dict.fromkeys((*TABLES["comparison_channels"], *TABLES["comparison_redis"]), "left to the application")
_NO_CODE = {
    **dict.fromkeys(TABLES["comparison_responses"], "runs no generator"),
    "a line end in `event`": "is the value of a header",
    "a line end in `id`": "is made by the server",
}
DEFAULTS: dict[str, Cells] = {
    OURS: {},
    SSE_STARLETTE: _NO_CHANNELS,
    FASTAPI: _NO_CHANNELS,
    LITESTAR: {"the last id is too old": "events have no ids"},
    AIOHTTP: _NO_CHANNELS,
    NCHAN: _NO_CODE,
    read.MERCURE: {**_NO_CODE, **dict.fromkeys(TABLES["comparison_redis"], "not public")},
    read.CENTRIFUGO: _NO_CODE,
}

# The section, the column and the contenders of benchmarks/README.md, whose figures the page repeats.
COSTS = {
    "CPU for each delivery to 1,000 readers, µs": ("fanout", 1),
    "latency to 1,000 readers, p99, ms": ("latency", 2),
    "CPU for each connection that opens, µs": ("connects", 1),
    "memory for each idle connection, KiB": ("idle", 1),
}
CONTENDERS = {SSE_STARLETTE: "sse-starlette, as in its examples", NCHAN: "nchan (nginx module, C)"}


def row(fact: str, observed: dict[str, Cells]) -> Cells:
    """Return the cells of a fact by column."""
    found = {column: {**DEFAULTS[column], **cells} for column, cells in {**observed, **_read()}.items()}
    return {column: found[column][fact] for column in COLUMNS}


def _read() -> dict[str, Cells]:
    return {column: read.cells(column) for column in read.CELLS}


def versions(peers: dict[str, Peer]) -> Cells:
    """Return the row that dates a table."""
    today = datetime.now(UTC).date().isoformat()
    ran = {name: f"{peer.version}, {today}" for name, peer in peers.items()}
    return ran | {name: f"{version}, {read.READ}" for name, version in read.VERSIONS.items()}


def costs(fact: str) -> Cells:
    """Return the figures of the benchmarks by column."""
    section, column = COSTS[fact]
    (text,) = re.findall(rf"<!-- {section} -->(.*?)<!-- end", BENCHMARKS.read_text(), re.DOTALL)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    figures = {cells[0]: cells[column] for cells in reversed(rows) if column < len(cells)}
    return {name: figures.get(CONTENDERS.get(name, name), "not measured") for name in COLUMNS}
