"""What a reader of a channel sees: coming back, reading slowly, losing Redis."""

import http.client
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from real_redis.launcher import RedisServer
from servers.processes import Server
from strangers.comparison.apps.contents import FLOOD, PART
from strangers.comparison.readers import ACCEPTED, Reader, post, resident, shown
from strangers.comparison.responses import FLOODED, SMALL

SUBSCRIBED = 1.0  # seconds, for those that show nothing when they have subscribed
AGAIN = 5.0  # seconds in which a reader must have an event, once Redis is back


def _listen(reader: Reader) -> None:
    """Wait until it has subscribed, which some do after they have sent the head."""
    reader.until(lambda: reader.content, SUBSCRIBED)


def _has(reader: Reader, data: str) -> Callable[[], bool]:
    return lambda: any(event.data == data for event in reader.events)


def resume(server: Server) -> tuple[str, str]:
    """Read `1`, miss `2` and `3`, come back, and read until `4`; return the cell, and the id of `1`."""
    with Reader(server.port, "/channel/") as reader:
        _listen(reader)
        post(server.port, "/publish", "1")
        assert reader.until(_has(reader, "1"))
    for number in "23":
        post(server.port, "/publish", number)
    with Reader(server.port, "/channel/", last_event_id=reader.last_event_id) as again:
        _listen(again)
        again.until(_has(again, "3"), 0.5)
        post(server.port, "/publish", "4")
        assert again.until(_has(again, "4"))
        again.until(lambda: False, 0.2)  # nothing comes twice
        lost = "" if len(again.events) == 3 else ", **not told** of the others"
        return shown(again.events) + lost, reader.last_event_id


def burst(server: Server) -> None:
    """Let the application publish."""
    assert post(server.port, "/burst", "") == 200


def burst_from_outside(server: Server) -> None:
    """Publish the same as the applications, by one connection."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        for number in range(FLOOD):
            connection.request("POST", "/publish", f"{number} {PART}")
            connection.getresponse().read()


class Stalled(NamedTuple):
    """What became of a reader that did not read during a burst.

    Attributes:
        grown: How much memory the server took, in MiB.
        events: How many events came when it read again.
        told: Whether it was told that it missed some.
        ending: How the body ended.
    """

    grown: float
    events: int
    told: bool
    ending: str

    def __str__(self) -> str:
        memory = "keeps all" if self.grown > FLOODED / 2 else "bounded"
        if self.ending:
            return f"{memory}, then cut off"
        if self.events == FLOOD:
            return f"{memory}, nothing lost"
        return f"{memory}, told by *sse.gap*" if self.told else f"{memory}, **not told** of lost events"


def stall(server: Server, publish: Callable[[Server], None]) -> Stalled:
    """Publish 16 MiB while a reader does not read, and then let it read."""
    pid = server.workers()[0]
    before = resident(pid)
    with Reader(server.port, "/channel/", buffer=SMALL) as reader:
        _listen(reader)
        publish(server)
        grown = resident(pid) - before
        time.sleep(1.2)  # longer than the send_timeout of nchan
        reader.until_quiet(1.0)
        events = reader.events
    messages = [event for event in events if event.event == "message"]
    return Stalled(grown, len(messages), len(events) > len(messages), reader.ending)


def gone(server: Server, last_event_id: str) -> str:
    """Come back with an id after which the history does not hold everything any more."""
    with Reader(server.port, "/channel/", last_event_id=last_event_id) as reader:
        assert reader.until(lambda: reader.events)
        first = reader.events[0]
    told = "told by *sse.gap*" if first.event == "sse.gap" else "**not told**"
    return f"{told}, then the events that are kept"


def of_channel(server: Server, publish: Callable[[Server], None], send_timeout: str) -> dict[str, str]:
    """Observe a channel in memory."""
    missed, last_event_id = resume(server)
    slow = stall(server, publish)
    cells = {"`2` and `3` missed, then `4`": missed, "16 MiB for a reader that does not read": str(slow)}
    if last_event_id:
        cells["the last id is too old"] = gone(server, last_event_id)
    if slow.ending:
        cells["a client that reads nothing"] = f"cut off after `send_timeout`, {send_timeout}"
    return cells


def of_redis(start: Callable[[str], Server], folder: Path) -> dict[str, str]:
    """Let readers come, and then let Redis die, and come back with its data."""
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(folder, "--appendonly", "yes", "--appendfsync", "always"))
        server = start(redis.url)
        stack.callback(server.remove)
        reader = stack.enter_context(Reader(server.port, "/channel/"))
        _listen(reader)
        alone = _connections(redis)
        for _ in range(10):
            stack.enter_context(Reader(server.port, "/channel/"))
        crowded = _connections(redis)
        _publish(server, "1")
        assert reader.until(_has(reader, "1")), (reader.content, server.log())
        redis.kill()
        away = post(server.port, "/publish", "lost")
        redis.start()
        _publish(server, "2")
        back = reader.until(_has(reader, "2"), AGAIN)
        return {
            "connections to Redis, 1 reader and 11": f"{alone} and {crowded}",
            "publishing while Redis is away": "is accepted" if away in ACCEPTED else "fails",
            "`1`, Redis dies and is back, `2`": shown(reader.events) + ("" if back else ", then **nothing more**"),
        }


def _publish(server: Server, data: str) -> None:
    """Try until it is accepted."""
    latest = time.monotonic() + 20
    while post(server.port, "/publish", data, patience=1) not in ACCEPTED:
        assert time.monotonic() < latest, server.log()
        time.sleep(0.1)


def _connections(redis: RedisServer) -> int:
    time.sleep(0.3)
    return sum("cmd=client" not in line for line in redis.cli("CLIENT", "LIST").splitlines())
