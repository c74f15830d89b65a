"""Encodes events: `encode_worker.py NAME` reads names of payloads, and prints the ns of an event for each."""

import json
import sys
import time
from collections.abc import Callable

SECONDS = 0.05
PAYLOADS = {
    "short line": "The quick brown fox jumps over the lazy dog",
    "1 KiB of JSON": json.dumps({f"field {number}": "x" * 20 for number in range(29)}),
    "100 lines": "\n".join(f"line {number} of a log" for number in range(100)),
}

Encode = Callable[[str], bytes]


def ours() -> Encode:
    from sse_asgi.encoder import encode

    return encode


def ours_event() -> Encode:
    from sse_asgi import ServerSentEvent

    return lambda text: ServerSentEvent(text).encode()


def sse_starlette() -> Encode:
    from sse_starlette import ServerSentEvent

    return lambda text: ServerSentEvent(text).encode()


def fastapi() -> Encode:
    """Encode a yielded ServerSentEvent as FastAPI's routing does."""
    from fastapi.sse import ServerSentEvent, format_sse_event

    def encode(text: str) -> bytes:
        item = ServerSentEvent(raw_data=text)
        return format_sse_event(
            data_str=item.raw_data, event=item.event, id=item.id, retry=item.retry, comment=item.comment
        )

    return encode


def litestar() -> Encode:
    from litestar.response import ServerSentEventMessage

    return lambda text: ServerSentEventMessage(text).encode()


def measure(encode: Encode, text: str) -> float:
    count, until = 0, time.process_time_ns() + int(SECONDS * 1e9)
    began = time.process_time_ns()
    while (now := time.process_time_ns()) < until:
        for _ in range(100):
            encode(text)
        count += 100
    return (now - began) / count


def main() -> None:
    encoders = {"ours": ours, "ours_event": ours_event, "sse_starlette": sse_starlette, "fastapi": fastapi}
    encode = (encoders | {"litestar": litestar})[sys.argv[1]]()
    for line in sys.stdin:
        print(measure(encode, PAYLOADS[line.strip()]), flush=True)


main()
