"""Names, addresses and sentinels of which some do not answer: none of them holds anything else up."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from real_redis.deaf_dns import deaf_dns
from real_redis.launcher import RedisServer
from sse_asgi import BackendError, Hub

pytestmark = pytest.mark.anyio

NewServer = Callable[..., RedisServer]
NewHub = Callable[..., Hub]

PATIENCE = 30.0
STOP_SECONDS = 8.0  # a look-up takes 40 s here; 2 s are promised, on a machine that has nothing else to do

SERVE = """
import asyncio, sys, threading
from concurrent.futures import ThreadPoolExecutor
from sse_asgi import Hub, BackendError
from sse_asgi.backends.redis import RedisBackend
{loop}

async def main():
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    async with Hub(RedisBackend(sys.argv[1], timeout=1)) as hub:
        try:
            await hub.publish("a", "1")
        except BackendError as error:
            print(error)
        await asyncio.wait_for(asyncio.to_thread(len, ()), 5)
        print(sum("look-up" in one.name for one in threading.enumerate()), flush=True)
        await asyncio.sleep(60)

{run}
"""

PUBLISH = """
import sys
from sse_asgi import BackendError, Publisher
with Publisher(sys.argv[1]) as publisher:
    try:
        publisher.publish("a", "1")
    except BackendError as error:
        print(error, flush=True)
"""

LOOPS = [("", "asyncio.run(main())"), ("import uvloop", "uvloop.run(main())")]


@pytest.mark.parametrize(("loop", "run"), LOOPS, ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("url", ["redis://redis.example", "redis+sentinel://redis.example,other.example/main"])
def test_a_dns_that_does_not_answer(tmp_path: Path, loop: str, run: str, url: str) -> None:
    """It takes no thread of the application, one look-up runs for each name, and the process ends at once."""
    script = SERVE.format(loop=loop, run=run)
    with deaf_dns(tmp_path) as (prefix, environment):
        command = [*prefix, sys.executable, "-c", script, url]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as one:
            assert one.stdout is not None
            said, look_ups = one.stdout.readline(), one.stdout.readline()
            began = time.monotonic()
            one.send_signal(signal.SIGINT)
            one.communicate(timeout=PATIENCE)
            assert time.monotonic() - began < STOP_SECONDS
    assert "not published: Redis was away for 1 s: " in said
    assert "DNS does not answer for the name 'redis.example'" in said
    assert int(look_ups) == url.count("example")


def test_a_publisher_with_a_dns_that_does_not_answer(tmp_path: Path) -> None:
    """Its script says why, and ends at once without a traceback."""
    with deaf_dns(tmp_path) as (prefix, environment):
        command = [*prefix, sys.executable, "-c", PUBLISH, "redis://redis.example?timeout=1"]
        began = time.monotonic()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
        assert time.monotonic() - began < PATIENCE / 2
    assert (
        "Redis was away for 1 s: no answer within 2 s: DNS does not answer for the name 'redis.example'" in done.stdout
    )
    assert "Traceback" not in done.stderr


async def test_a_name_that_is_not_there(new_hub: NewHub) -> None:
    """The error of publishing has the name."""
    async with new_hub(url="redis://no-such-host.invalid", timeout=0.3) as hub:
        with pytest.raises(BackendError, match=r"away for 0\.3 s: the name 'no-such-host\.invalid' was not found"):
            await hub.publish("a", "1")
