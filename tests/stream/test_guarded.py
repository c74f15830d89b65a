"""A stream of our own and the guard of its request: admission, telemetry, cutting off, breaking off, draining."""

from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
from starlette.routing import Mount, Router
from starlette.types import Message, Receive, Scope, Send

from sse_asgi import ConnectionLimit
from sse_asgi._loop.timer import shared_timer
from sse_asgi._stream import guarded
from sse_asgi._stream.foreign import Guard
from sse_asgi._stream.terms import GuardTerms
from stream.foreigners import SCOPE, Telemetry

pytestmark = pytest.mark.anyio


async def nothing(*_: Any) -> Message:
    return {"type": "http.disconnect"}


async def send(_: Message) -> None:
    """Take every message."""


async def within(app: Any, terms: GuardTerms) -> None:
    """Run an application in a guard with these terms."""
    guard = Guard(terms, {**SCOPE}, nothing, send)
    await guard.run(app)
    guard.leave()


async def test_a_guard_admits_refuses_and_tells() -> None:
    """Telemetry is told of the kind, of the head and of the reason; a refused stream ends at once."""
    telemetry, limit = Telemetry(), ConnectionLimit(1)
    terms = GuardTerms(1.0, 1.0, limit, 7.0, telemetry)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert guarded.admit(scope, "iterable")
        assert guarded.default_drain_timeout(scope) == 7.0
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await within(refused, terms)
        guarded.watch_again(scope, "error")

    async def refused(scope: Scope, receive: Receive, send: Send) -> None:
        assert not guarded.admit(scope, "poll")

    await within(app, terms)
    assert telemetry.told == ["iterable", "started", "poll", "refused", "error"]


@pytest.mark.parametrize(
    ("case", "handed"),
    [("known", True), ("bare", True), ("stranger", False), ("open", False), ("task", False), ("unguarded", False)],
)
async def test_a_stream_is_handed_over_past_known_coroutines_alone(case: str, *, handed: bool) -> None:
    """A stranger in between, another task, or an open dependency of FastAPI keeps it where it is."""
    log: list[Any] = []
    stack = AsyncExitStack()
    if case == "open":
        stack.callback(log.clear)

    async def go_on() -> None:
        log.append("on")

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        given = {"headers": []} if case == "unguarded" else scope
        log.append(guarded.hand_over(given, go_on))
        log.append("fastapi_inner_astack" in scope)

    async def stranger(scope: Scope, receive: Receive, send: Send) -> None:
        await stream(scope, receive, send)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(router, scope, receive, send)

    router = Router([Mount("/", stranger if case == "stranger" else stream)])
    scope = {**SCOPE, "root_path": ""}
    if case != "bare":
        scope["fastapi_inner_astack"] = stack
    guard = Guard(GuardTerms(1.0, 1.0, None), scope, nothing, send)
    await guard.run(app if case == "task" else router)
    if guard.rest is not None:
        await guard.rest
    assert log == ([True, False, "on"] if handed else [False, True])
    stack.pop_all()


async def test_a_guard_without_telemetry() -> None:
    """It admits and forgets; a stream without a known reason is told as finished."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert guarded.admit(scope, "iterable")
        guarded.watch_again(scope, None)

    telemetry = Telemetry()
    await within(app, GuardTerms(1.0, 1.0, None))
    await within(app, GuardTerms(1.0, 1.0, None, observer=telemetry))
    assert telemetry.told == ["iterable", "finished"]


@pytest.mark.parametrize("guard", [True, False])
async def test_a_connection_is_ended_by_the_guard_or_directly(guard: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    """Without a middleware, the server is asked."""
    done: list[str] = []

    async def interrupt(_: Receive) -> None:
        done.append("interrupted")

    async def finish() -> None:
        done.append("finished")

    for module in ("guarded", "foreign"):
        path = f"sse_asgi._stream.{module}"
        monkeypatch.setattr(f"{path}.abort", lambda *_: done.append("aborted"))
        monkeypatch.setattr(f"{path}.can_interrupt", lambda *_: True)
        monkeypatch.setattr(f"{path}.interrupt", interrupt)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        guarded.cut_off(scope, receive, shared_timer())
        assert guarded.can_be_interrupted(scope, receive)
        await guarded.end_incomplete(scope, receive, send, finish)

    async def send(_: Message) -> None:
        pass

    if guard:
        await within(app, GuardTerms(1.0, 1.0, None))
    else:
        assert guarded.admit({}, "iterable")
        guarded.watch_again({}, "client")
        assert guarded.default_drain_timeout({}) == 0.0
        await app({**SCOPE}, nothing, send)
    assert done == ["aborted", "finished" if guard else "interrupted"]
