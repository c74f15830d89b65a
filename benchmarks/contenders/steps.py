"""This library, with the time taken before and after the steps of each publish. `GET /steps` returns the medians.

A step of the library that another version does not have, or has under another name, is part of the one before it.
"""

import importlib
import inspect
import json
import time
from collections import Counter
from statistics import median
from typing import Any

import ours

STEPS = {  # the name of the step that begins, by the module, the function, and where it begins
    ("_hub.hub", "Hub.publish", "before"): "publish",
    ("_hub.hub", "Hub._checked", "before"): "check the arguments, write the frame",
    ("_hub.hub", "Hub._checked", "after"): "one turn of the event loop",
    ("backends.memory", "MemoryBackend._store", "before"): "number the event, write its id",
    ("backends._shelf", "Shelf.keep", "before"): "keep it",
    ("backends.redis._submitter", "Submitter.publish", "before"): "make the command",
    ("backends.redis._link", "Link.request", "after"): "wait for other commands of this turn",
    ("backends.redis._link", "Link._flush", "before"): "write the command to Redis",
    ("backends.redis._link", "Link._flush", "after"): "wait for Redis",
    ("backends.redis._link", "Link.data_received", "before"): "read what Redis sends",
    ("_hub.registry", "Registry.deliver", "before"): "find the reader",
    ("_stream.sender", "Sender.send", "before"): "the server's send",
    ("_stream.sender", "Sender.send", "after"): "return",
}
marks: list[tuple[str, int]] = []
events: list[list[tuple[str, int]]] = []


def timed(function: Any, before: str | None, after: str | None) -> Any:
    """Return a function that takes the time where its steps begin."""
    if inspect.iscoroutinefunction(function):

        async def run_timed(*args: Any, **options: Any) -> Any:
            if before:
                marks.append((before, time.perf_counter_ns()))
            return await function(*args, **options)

        return run_timed

    def call_timed(*args: Any, **options: Any) -> Any:
        if before:
            marks.append((before, time.perf_counter_ns()))
        try:
            return function(*args, **options)
        finally:
            if after:
                marks.append((after, time.perf_counter_ns()))

    return call_timed


def take_times() -> None:
    """Replace the functions of the steps."""
    for module, path in {step[:2] for step in STEPS}:
        owner_name, name = path.split(".")
        try:
            owner = getattr(importlib.import_module(f"sse_asgi.{module}"), owner_name)
        except (ImportError, AttributeError):
            continue
        if function := vars(owner).get(name):
            places = (STEPS.get((module, path, place)) for place in ("before", "after"))
            setattr(owner, name, timed(function, *places))


def medians() -> dict[str, float]:
    """Return the microseconds of each step, of the events that went through the usual steps, and forget all."""
    usual = Counter(tuple(name for name, _ in one) for one in events).most_common(1)[0][0]
    chosen = [one for one in events if tuple(name for name, _ in one) == usual]
    found: Counter[str] = Counter()
    for place, name in enumerate(usual[:-1]):
        found[name] += median(one[place + 1][1] - one[place][1] for one in chosen) / 1000
    events.clear()
    return dict(found)


take_times()
publish = ours.hub.publish


async def publish_timed(channel: str, data: str) -> None:
    marks.clear()
    await publish(channel, data)
    marks.append(("end", time.perf_counter_ns()))
    events.append(marks.copy())


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope.get("path") != "/steps":
        await controlled(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": json.dumps(medians()).encode()})


controlled = ours.controlled(ours.serve, publish_timed)
