"""A process that is no web server: produces the run `a` in the hub that the environment names, until it is killed."""

import time
from collections.abc import Iterator

from sse_asgi import Publisher


def tokens() -> Iterator[str]:
    for number in range(10_000):
        yield f"{number}"
        time.sleep(0.02)


with Publisher() as publisher:
    publisher.run("a", tokens)
