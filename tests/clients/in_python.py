"""The clients of PyPI, and curl: `python -m clients.in_python URL COLUMNS CLIENT...`.

Each client reads all columns at once, as its own documentation says. Each thing that the client's user sees is
printed as one line of JSON, until this process is killed.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from urllib.parse import quote

import aiohttp
import httpx
import requests
import requests_sse
import sseclient
from aiohttp_sse_client2 import client as aiohttp_client
from httpx_sse import connect_sse
from ld_eventsource import SSEClient
from ld_eventsource.config import ErrorStrategy

Say = Callable[[str, str], None]


def httpx_sse(url: str, say: Say) -> None:
    """Its recipe for reconnecting, in a loop that ends where the server says 204."""
    last_event_id, delay = "", 0.0
    with httpx.Client(timeout=None) as client:
        while True:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
            try:
                with connect_sse(client, "GET", url, headers=headers) as source:
                    if source.response.status_code == 204:
                        return say("closed", "")
                    for event in source.iter_sse():
                        last_event_id = event.id
                        if event.retry is not None:
                            delay = event.retry / 1000
                        say(event.event, event.data)
            except httpx.TransportError:
                pass
            time.sleep(delay)


def sseclient_py(url: str, say: Say) -> None:
    """With requests; it does not reconnect, so its user does."""
    last_event_id = ""
    while True:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
        with contextlib.suppress(requests.RequestException):
            response = requests.get(url, stream=True, headers=headers, timeout=60)
            if response.status_code == 204:
                return say("closed", "")
            for event in sseclient.SSEClient(response.iter_content(None)).events():
                last_event_id = event.id or last_event_id
                say(event.event, event.data)
        time.sleep(0.05)


def requests_sse_(url: str, say: Say) -> None:
    with requests_sse.EventSource(url, timeout=60) as source:
        try:
            for event in source:
                say(event.type, event.data)
            say("closed", "")
        except requests_sse.InvalidStatusCodeError as error:
            say("closed", str(error.status_code))
        except requests.RequestException as error:
            say("closed", type(error).__name__)


def launchdarkly(url: str, say: Say) -> None:
    for event in SSEClient(url, error_strategy=ErrorStrategy.always_continue()).events:
        say(event.event, event.data)
    say("closed", "")


def aiohttp_sse_client2(url: str, say: Say) -> None:
    """It raises where the connection breaks, so its user connects again."""

    async def read() -> None:
        headers: dict[str, str] = {}
        while True:
            try:
                async with aiohttp_client.EventSource(url, headers=headers, max_connect_retry=1000) as source:
                    async for event in source:
                        headers["Last-Event-ID"] = event.last_event_id
                        say(event.type or "message", event.data)
            except ConnectionAbortedError:  # 204
                return say("closed", "")
            except (aiohttp.ClientError, ConnectionError):
                await asyncio.sleep(0.05)

    asyncio.run(read())


def curl(url: str, say: Say) -> None:
    """Its user reads what is on the screen."""
    process = subprocess.Popen(["curl", "-sN", url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    kind, data = "message", ""
    for line in process.stdout:
        name, _, value = line.rstrip("\n").partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            data = value
        elif not name and data:
            say(kind, data)
            kind, data = "message", ""
    say(f"exit {process.wait()}", "")


CLIENTS = {
    "httpx-sse": httpx_sse,
    "sseclient-py": sseclient_py,
    "requests-sse": requests_sse_,
    "launchdarkly-eventsource": launchdarkly,
    "aiohttp-sse-client2": aiohttp_sse_client2,
    "curl": curl,
}


def main(base: str, columns: str, *names: str) -> None:
    lock = threading.Lock()

    def run(name: str, column: str) -> None:
        def say(kind: str, text: str) -> None:
            with lock:
                print(json.dumps([name, column, kind, text]), flush=True)

        CLIENTS[name](f"{base}/{column}?client={quote(name)}", say)

    for name in names:
        for column in columns.split(","):
            threading.Thread(target=run, args=(name, column)).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
