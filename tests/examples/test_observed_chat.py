"""The observed chat in two workers on Redis: sums over the workers, the board, the alerts, the probes and the log."""

import asyncio
import json
import re
import secrets
import socket
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from examples.conftest import EXAMPLES
from real_redis.launcher import RedisServer
from servers.processes import PATIENCE, Server, wait_until

FOLDER = EXAMPLES / "observed_chat"
READERS, LEAVERS, EVENTS = 40, 15, 50
METRIC = re.compile(r"\bsse_\w+?(?=[{\[\s)]|$)")
LABELS = {"sse_stream_end_reason", "sse_gap_reason", "sse_channel_group"}


def pair_of_ports() -> int:
    """Return the first of two free ports, below those that the system gives to other sockets."""
    while True:
        first = 20_000 + 2 * secrets.randbelow(5_000)
        with suppress(OSError), socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", first))
            two.bind(("127.0.0.1", first + 1))
            return first


class Chat:
    """The chat's server, its Redis, and the ports of its workers' metrics."""

    def __init__(self, folder: Path) -> None:
        self.redis = RedisServer(folder).start()
        first = pair_of_ports()
        self.ports = first, first + 1
        self.server = Server.start(
            ("uvicorn", "observed_chat:app", "--app-dir", str(FOLDER), "--port", "{port}", "--workers", "2"),
            SSE_BACKEND_URL=self.redis.url,
            SSE_HUB_NAME=secrets.token_hex(8),
            METRICS_PORT=str(first),
        )
        wait_until(lambda: all(self.scrape(port) for port in self.ports))

    def scrape(self, port: int) -> Counter[str]:
        """Return the samples of one worker; those that differ in labels only are added up."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
                text = response.read().decode()
        except OSError:
            return Counter()
        found: Counter[str] = Counter()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name] += int(sample.value)
        return found

    def sums(self) -> Counter[str]:
        found = Counter[str]()
        for port in self.ports:
            found.update(self.scrape(port))
        return found

    def ready(self) -> tuple[int, Any]:
        answer = httpx.get(f"http://127.0.0.1:{self.server.port}/health/ready")
        return answer.status_code, answer.json()

    def close(self) -> None:
        self.server.remove()
        self.redis.kill()


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Chat]:
    chat = Chat(tmp_path)
    yield chat
    chat.close()


async def read(client: httpx.AsyncClient, counted: Counter[str]) -> None:
    """Count the messages of a stream, and their bytes, until this is cancelled."""
    received = b""
    async with client.stream("GET", "/rooms/7/events") as response:
        counted["opened"] += 1
        async for chunk in response.aiter_bytes():
            *frames, received = (received + chunk).split(b"\n\n")
            for frame in frames:
                if b'\ndata: {"text"' in frame:
                    counted["events"] += 1
                    counted["bytes"] += len(frame[frame.index(b"id: ") :]) + 2  # without a ping before it


async def until(counted: Counter[str], name: str, number: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while counted[name] < number:
            await asyncio.sleep(0.01)


async def use(chat: Chat, check: Callable[[Counter[str]], None]) -> None:
    """Open streams, publish by requests, close some of the streams, and check while the others are open."""
    counted: Counter[str] = Counter()
    limits = httpx.Limits(max_connections=2 * READERS)
    url = f"http://127.0.0.1:{chat.server.port}"
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=PATIENCE) as client:
        readers = [asyncio.create_task(read(client, counted)) for _ in range(READERS)]
        await until(counted, "opened", READERS)
        for _ in range(EVENTS):
            assert (await client.post("/rooms/7", params={"text": "hello"})).status_code == 200
        await until(counted, "events", READERS * EVENTS)
        for reader in readers[:LEAVERS]:
            reader.cancel()
        await asyncio.to_thread(check, counted)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


def test_the_workers_add_up(chat: Chat) -> None:
    """Each figure, summed over both workers, is what the clients counted; then Redis is lost."""

    def check(counted: Counter[str]) -> None:
        wait_until(lambda: chat.sums()["sse_server_stream_duration_seconds_count"] == LEAVERS)
        wait_until(lambda: chat.sums()["sse_hub_subscriptions"] == READERS - LEAVERS)
        found = chat.sums()  # the system decides how many clients each worker has
        assert counted["events"] == READERS * EVENTS
        assert found["sse_hub_events_published_total"] == EVENTS
        assert found["sse_hub_events_delivered_total"] == counted["events"]
        assert found["sse_hub_delivery_io_bytes_total"] == counted["bytes"]
        assert found["sse_server_streams_opened_total"] == READERS
        assert found["sse_server_stream_duration_seconds_count"] == LEAVERS
        assert found["sse_server_active_streams"] == READERS - LEAVERS
        assert found["sse_hub_subscriptions"] == found["sse_hub_channel_subscriptions"] == READERS - LEAVERS
        assert 0 < found["sse_hub_delivery_duration_seconds_count"] <= 2 * EVENTS
        assert found["sse_hub_delivery_duration_seconds_bucket"] > 0
        assert found["sse_backend_up"] == 2
        for name in ("board.json", "alerts.yml"):
            named = set(METRIC.findall(expressions(name))) - LABELS
            assert len(named) > 5
            assert named - found.keys() == set()
        assert chat.ready() == (200, {"status": "up"})

    asyncio.run(use(chat, check))
    chat.redis.kill()
    wait_until(lambda: chat.ready() == (503, {"status": "down"}))
    wait_until(lambda: chat.sums()["sse_backend_up"] == 0)
    wait_until(lambda: '"redis_lost"' in chat.server.log())
    lines = [json.loads(line) for line in chat.server.log().splitlines() if line.startswith("{")]
    lost = next(line for line in lines if line.get("sse_event") == "redis_lost")
    assert (lost["level"], lost["logger"]) == ("warning", "sse_asgi.backends.redis")


def expressions(name: str) -> str:
    """Return the queries of the board, or of the alerts, one a line."""
    text = (FOLDER / name).read_text()
    if name == "board.json":
        return "\n".join(one["expr"] for panel in json.loads(text)["panels"] for one in panel["targets"])
    return "\n".join(re.findall(r"^        expr: (.+(?:\n          .+)*)", text, re.MULTILINE))


def test_the_board_is_complete() -> None:
    """Every panel has a title, a description, a place of its own and queries whose parentheses match."""
    panels = json.loads((FOLDER / "board.json").read_text())["panels"]
    places = {(one["gridPos"]["x"], one["gridPos"]["y"]) for one in panels}
    assert len(places) == len({one["id"] for one in panels}) == len({one["title"] for one in panels}) == len(panels)
    assert all(one["description"] and one["targets"] for one in panels)
    for query in (expressions("board.json") + "\n" + expressions("alerts.yml")).splitlines():
        assert query.count("(") == query.count(")")


def test_every_alert_has_a_reason() -> None:
    """A comment above its expression."""
    alerts = re.findall(r"- alert: (\w+)\n(.*?)(?=\n\n|\Z)", (FOLDER / "alerts.yml").read_text(), re.DOTALL)
    assert len(alerts) > 8
    assert [name for name, text in alerts if not text.lstrip().startswith("# ")] == []
