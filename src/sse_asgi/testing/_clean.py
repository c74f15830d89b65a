"""assert_clean: a block that must leave no task, subscription, thread, run or open hub behind."""

import asyncio
import gc
import sys
import threading
import time
from contextvars import Context
from pathlib import Path
from typing import Any, NamedTuple, Self, TypedDict, Unpack

import anyio

from .._hub.hub import Hub
from .._hub.producer import Producer
from .._log.run import RUNNING
from .._loop.running import on_asyncio, running_loop
from .._loop.tasks import coroutines
from ..exceptions import SSEError

LOOK_SECONDS = 0.01
# The modules in which a frame is not the one that made a task for a reason of its own.
MACHINERY = {"sse_asgi", "starlette", "fastapi", "anyio", "asyncio", "trio", "contextlib", "functools"}
# trio's side of the timer: one task of each event loop, which is not anybody's.
TIMER_TASK = "DeadlineHandle._sleep"


class TaskOptions(TypedDict, total=False):
    """Options with which an event loop makes a task; newer versions of Python have more of them."""

    name: str | None
    context: Context | None


class Thing(NamedTuple):
    """Something that may be left.

    Attributes:
        what: The object itself. Holding it keeps its identity from being used again.
        words: What it is, for the error.
    """

    what: Any
    words: str


class assert_clean:  # noqa: N801 - it reads as an assertion
    """Fail if a block leaves something that was not there before: use it as `async with` or `with`.

    These are looked for: tasks of this event loop (only by `async with`), the library's threads, open hubs, open
    subscriptions, and runs that this process produces. What ends within `timeout` seconds is not left. A block that
    raises is not looked at.
    """

    def __init__(self, *, timeout: float = 1.0) -> None:
        """Prepare.

        Args:
            timeout: Seconds that everything has to end after the block.
        """
        self._timeout = timeout
        self._before: set[int] = set()
        self._kept: list[Thing] = []
        self._makers = Makers()

    def __enter__(self) -> Self:
        """Remember what is there.

        Raises:
            RuntimeError: An event loop runs here, whose tasks could not end.
        """
        if running_loop() is not None:
            msg = "`with assert_clean()` would block the event loop that runs here: use `async with assert_clean()`"
            raise RuntimeError(msg)
        self._remember()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        """Raise AssertionError if something is left."""
        late, latest = False, time.monotonic() + self._timeout
        while exc_type is None and self._left() and not late:
            late = time.monotonic() >= latest  # then one more look: a look may take long
            time.sleep(LOOK_SECONDS)
        self._check(exc_type)

    async def __aenter__(self) -> Self:
        """Remember what is there, and where tasks are made from now on."""
        self._remember()
        self._makers.watch()
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        """Raise AssertionError if something is left."""
        self._makers.unwatch()
        late, latest = False, time.monotonic() + self._timeout
        while exc_type is None and self._left() and not late:
            late = time.monotonic() >= latest
            await anyio.sleep(LOOK_SECONDS)
        self._check(exc_type)

    def _remember(self) -> None:
        self._kept = self._things()
        self._before = {id(thing.what) for thing in self._kept}

    def _left(self) -> list[Thing]:
        return [thing for thing in self._things() if id(thing.what) not in self._before]

    def _check(self, exc_type: type[BaseException] | None) -> None:
        if exc_type is None and self._left():
            gc.collect()  # what nobody holds any more is not left
            if left := self._left():
                msg = "\n- ".join(["the block has left:", *(thing.words for thing in left)])
                raise AssertionError(msg)

    def _things(self) -> list[Thing]:
        tasks = coroutines() if running_loop() is not None else ()
        threads = [one for one in threading.enumerate() if one.name.startswith("sse_asgi ")]
        return [
            *(Thing(one, self._task(one)) for one in tasks if _name(one) != TIMER_TASK),
            *(Thing(one, f"the thread {one.name!r}: close what it works for") for one in threads),
            *_hub_things(),
        ]

    def _task(self, coroutine: Any) -> str:
        return f"the task {_name(coroutine)}(), which {_place(coroutine)}{self._makers.made(coroutine)}"


class Makers:
    """Remembers where the tasks of an event loop are made. trio does not say."""

    def __init__(self) -> None:
        """Begin with no tasks."""
        self._made: dict[int, str] = {}
        self._factory: Any = None

    def watch(self) -> None:
        """Begin to remember."""
        if on_asyncio():
            loop = asyncio.get_running_loop()
            self._factory = loop.get_task_factory()
            loop.set_task_factory(self._make)

    def unwatch(self) -> None:
        """Remember no more tasks."""
        if on_asyncio():
            asyncio.get_running_loop().set_task_factory(self._factory)

    def made(self, coroutine: Any) -> str:
        """Return where a task was made, for the error."""
        place = self._made.get(id(coroutine))
        return f", and was made at {place}" if place else ""

    def _make(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Unpack[TaskOptions]) -> Any:
        frame: Any = sys._getframe(1)  # noqa: SLF001 - the documented way to look at the caller
        while _is_machinery(frame):
            frame = frame.f_back
        self._made[id(coroutine)] = _short(frame)
        if self._factory is not None:
            return self._factory(loop, coroutine, **options)
        return asyncio.Task(coroutine, loop=loop, **options)


def _hub_things() -> list[Thing]:
    things = []
    kinds = (Producer, *_classes(Hub))
    for one in gc.get_referrers(*kinds):  # an object refers to its class
        if type(one) is Producer and one.record.state == RUNNING:
            words = f"the run {one.record.key!r}: let it end, or `await hub.cancel_run({one.record.key!r})`"
            things.append(Thing(one, words))
        elif type(one) in kinds[1:]:  # isinstance would ask proxies for their class
            try:
                readers = one.subscriptions()
            except SSEError:  # it is closed, or its event loop has ended
                continue
            things.append(Thing(one, "an open hub: leave its `async with` block, or run the application's lifespan"))
            for reader in readers:
                channels = ", ".join(map(repr, reader.channels))
                identity = "" if reader.options.identity is None else f" of {reader.options.identity!r}"
                things.append(
                    Thing(reader, f"the subscription{identity} to {channels}: leave its block, or its stream")
                )
    return things


def _classes(kind: type) -> list[type]:
    """Return a class and all that are derived from it."""
    derived: list[type] = kind.__subclasses__()
    return [kind, *(one for each in derived for one in _classes(each))]


def _name(coroutine: Any) -> str:
    inner = getattr(coroutine, "cr_await", None)
    name = str(getattr(coroutine, "__qualname__", coroutine))
    return getattr(inner, "__qualname__", name) if name == "SystemTask._run" else name


def _place(coroutine: Any) -> str:
    """Say where a task waits: in the innermost of its functions that is not machinery, or else in the outermost."""
    frames = []
    while coroutine is not None:
        frames.append(getattr(coroutine, "cr_frame", None))
        coroutine = getattr(coroutine, "cr_await", None)
    frames = [frame for frame in frames if frame is not None]
    own = [frame for frame in frames if not _is_machinery(frame)] or frames[:1]
    return f"waits at {_short(own[-1])}" if own else "waits"


def _is_machinery(frame: Any) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in MACHINERY


def _short(frame: Any) -> str:
    path, here = Path(frame.f_code.co_filename), Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{frame.f_lineno}"
