"""`sse-asgi tail`: the events of one stream, a line each."""

import json
import time
from contextlib import aclosing
from datetime import datetime

from rich.text import Text

from .._log.names import END, RESERVED
from ..decoder import DecodedEvent
from .age import lag
from .following import Follower, Reconnect
from .screen import notes, printable, results

GAP = "sse.gap"


async def tail(follower: Follower, *, as_json: bool, time_field: str | None) -> None:
    """Print each event of a stream to its end, and each reconnect on stderr.

    Args:
        follower: Reads the stream.
        as_json: Print each event as one JSON object, for scripts.
        time_field: The field of JSON data that has the time of publication; see `published_at`.

    Raises:
        StreamError: The stream cannot be followed any more.
    """
    output, errors = results(), notes()
    async with aclosing(follower.follow()) as items:
        async for item in items:
            if isinstance(item, Reconnect):
                errors.print(
                    f"{item.reason}; reconnecting in {item.wait:.1f} s{_from(follower.last_event_id)}", style="dim"
                )
            elif as_json:
                print(_json(item, lag(item, time_field)), flush=True)  # noqa: T201
            else:
                output.print(_line(item, lag(item, time_field)))
    errors.print("the stream is finished", style="dim")


def _from(last_event_id: str) -> str:
    return f" from id {printable(last_event_id)}" if last_event_id else ""


def _json(event: DecodedEvent, seconds: float | None) -> str:
    received = round(time.time(), 3)
    lag_ms = None if seconds is None else round(seconds * 1000, 1)
    values = {"event": event.event, "id": event.id, "data": event.data, "received": received, "lag_ms": lag_ms}
    return json.dumps(values, ensure_ascii=False)


def _line(event: DecodedEvent, seconds: float | None) -> Text:
    color = "bold red" if event.event == GAP else "dim" if event.event.startswith(RESERVED) else "bold cyan"
    parts = [
        (datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3], "dim"),
        (printable(event.event), color),
        (printable(event.id) if event.id and event.id != END else "-", "magenta"),
        *([] if seconds is None else [(f"{seconds * 1000:+.0f} ms", "yellow")]),
        (printable(event.data), "dim" if color == "dim" else ""),
    ]
    return Text("  ").join(Text(text, style) for text, style in parts)
