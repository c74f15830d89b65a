"""All peers at once, each in a thread."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock

from servers.processes import Server
from strangers.comparison.channels import burst, burst_from_outside, of_channel, of_redis, stall
from strangers.comparison.peers import LITESTAR, NCHAN, OURS, Peer
from strangers.comparison.responses import of_generators, of_nchan

BACKLOG = 100  # events

Cells = dict[str, str]


def observe(peers: dict[str, Peer], folder: Path) -> dict[str, Cells]:
    """Run every peer; return the cells of each column."""
    starting = Lock()  # one after the other, because each start takes a processor

    def in_turn(start: Callable[..., Server], *arguments: str, **environment: str) -> Server:
        with starting:
            return start(*arguments, **environment)

    peers = {name: peer._replace(start=partial(in_turn, peer.start)) for name, peer in peers.items()}
    ours, litestar, nchan = (peers[name].start for name in (OURS, LITESTAR, NCHAN))
    jobs: list[tuple[str, Callable[[], Cells]]] = [
        *((name, partial(_generators, peer)) for name, peer in peers.items() if name != NCHAN),
        (NCHAN, partial(_observed, nchan, of_nchan)),
        (OURS, partial(_channel, peers[OURS], burst)),
        (LITESTAR, partial(_channel, peers[LITESTAR], burst)),
        (NCHAN, partial(_channel, peers[NCHAN], burst_from_outside)),
        (LITESTAR, partial(_observed, partial(litestar, BACKLOG=str(BACKLOG)), _bounded)),
        (OURS, partial(of_redis, lambda url: ours(SSE_BACKEND_URL=url), folder / "ours")),
        (LITESTAR, partial(of_redis, lambda url: litestar(REDIS=url), folder / "litestar")),
        (NCHAN, partial(of_redis, nchan, folder / "nchan")),
    ]
    columns: dict[str, Cells] = {name: {} for name in peers}
    with ThreadPoolExecutor(len(jobs)) as threads:
        for (name, _), cells in zip(jobs, threads.map(lambda job: job[1](), jobs), strict=True):
            for fact, text in cells.items():
                columns[name][fact] = "; ".join(filter(None, (columns[name].get(fact), text)))
    return columns


def _observed(start: Callable[[], Server], look: Callable[[Server], Cells]) -> Cells:
    """Start a server, observe it, and remove it."""
    server = start()
    try:
        return look(server)
    finally:
        server.remove()


def _generators(peer: Peer) -> Cells:
    return _observed(peer.start, lambda server: of_generators(server, peer.send_timeout))


def _channel(peer: Peer, publish: Callable[[Server], None]) -> Cells:
    return _observed(peer.start, lambda server: of_channel(server, publish, peer.send_timeout))


def _bounded(server: Server) -> Cells:
    """Observe Litestar with a bound."""
    text = f"with `subscriber_max_backlog={BACKLOG}`: {stall(server, burst)}"
    return {"16 MiB for a reader that does not read": text}
