"""Presence: lists of identities, and the events of joins and leaves."""

import json
from collections.abc import Collection
from typing import Any

import anyio
import pytest

from sse_asgi import Backend, BackendError, Hub, MemoryBackend, Subscription
from sse_asgi._hub.presence import Presence
from sse_asgi.backends._members import MemberLists
from sse_asgi.backends.base import Member

pytestmark = pytest.mark.anyio

SOON = 0.05
NAN = float("nan")


def make_hub(backend: Backend | None = None, **options: Any) -> Hub:
    return Hub(backend, **{"presence_grace": 0, "presence_ttl": 0.3, **options})


async def told(reader: Subscription, *expected: str) -> None:
    """Wait for these comings and goings, as `+Ada` and `-Ada`."""
    got: list[str] = []
    with anyio.fail_after(5):
        while len(got) < len(expected):
            event = await anext(reader)
            sign = {"sse.join": "+", "sse.leave": "-"}[event.event or ""]
            got.append(sign + json.loads(event.data or "")["identity"])
    assert got == list(expected)


async def until_here(hub: Hub, channel: str, *identities: str) -> None:
    with anyio.fail_after(5):
        while await hub.presence(channel) != list(identities):
            await anyio.sleep(0.005)


async def test_readers_are_listed_while_they_are_open() -> None:
    """Identities are sorted, each once, on every channel that they read, and other readers get the events."""
    async with make_hub() as hub, hub.subscribe("a") as watcher:
        async with hub.subscribe("a", identity="bob", presence=True):
            await told(watcher, "+bob")
            async with hub.subscribe("b", "a", identity="ada", presence=True):
                assert await hub.presence("a") == ["ada", "bob"]
                await told(watcher, "+ada")
            assert await hub.presence("b") == ["ada"]
            await told(watcher, "-ada")
        await told(watcher, "-bob")
        assert await hub.presence("a") == await hub.presence("b") == []


async def test_an_identity_with_several_tabs_is_one() -> None:
    """It joins with the first tab and leaves with the last, in any process."""
    backend = MemoryBackend()
    async with make_hub(backend) as here, make_hub(backend) as there, here.subscribe("a") as watcher:
        async with here.subscribe("a", identity="ada", presence=True):
            async with here.subscribe("a", identity="ada", presence=True):
                async with there.subscribe("a", identity="ada", presence=True):
                    await told(watcher, "+ada")
                    await anyio.sleep(SOON)
            await anyio.sleep(SOON)
            assert await here.presence("a") == await there.presence("a") == ["ada"]
        await told(watcher, "-ada")


async def test_a_reader_that_comes_back_has_not_left() -> None:
    """Within the grace period there is no `sse.leave`, in this process or another."""
    backend = MemoryBackend()
    hubs = make_hub(backend, presence_grace=0.2), make_hub(backend, presence_grace=0.2)
    async with hubs[0] as here, hubs[1] as there, here.subscribe("a") as watcher:
        for hub in (here, there, here):
            async with hub.subscribe("a", identity="ada", presence=True):
                await anyio.sleep(SOON)
        async with here.subscribe("a", identity="bob", presence=True):
            await told(watcher, "+ada", "+bob", "-ada")


async def test_a_hub_that_is_closed_is_missed_after_the_grace() -> None:
    """Its readers reconnect to another hub without an `sse.leave`."""
    backend = MemoryBackend()
    async with make_hub(backend, presence_grace=0.2) as lives, lives.subscribe("a") as watcher:
        async with lives.subscribe("a", identity="zoe", presence=True):
            async with make_hub(backend, presence_grace=0.2) as closes:
                await closes.subscribe("a", identity="ada", presence=True).__aenter__()
                await closes.subscribe("a", identity="bob", presence=True).__aenter__()
                await until_here(lives, "a", "ada", "bob", "zoe")
            async with lives.subscribe("a", identity="ada", presence=True):
                await until_here(lives, "a", "ada", "zoe")
                with anyio.fail_after(5):
                    while (event := await anext(watcher)).event != "sse.leave":
                        pass
                assert "bob" in (event.data or "")


async def test_a_hub_that_is_opened_again_does_not_see_whom_it_had_before() -> None:
    """They expire after the grace period, though no other process beats."""
    hub = make_hub(presence_grace=SOON)
    async with hub, hub.subscribe("a") as watcher:
        await hub.subscribe("a", identity="ada", presence=True).__aenter__()
        await told(watcher, "+ada")
    async with hub, hub.subscribe("a") as watcher:
        await until_here(hub, "a")
        await told(watcher, "-ada")


async def test_many_are_told_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of the backend has a bounded size, and the rest follows at once."""
    monkeypatch.setattr("sse_asgi._hub.presence.BATCH", 2)
    async with make_hub(presence_ttl=60) as hub, hub.subscribe("a") as watcher:
        readers = [hub.subscribe("a", identity=str(number), presence=True) for number in range(7)]
        for reader in readers:
            await reader.__aenter__()
        joined = sorted([json.loads((await anext(watcher)).data or "")["identity"] for _ in readers])
        assert joined == [str(number) for number in range(7)]


class Faulty(MemoryBackend):
    """Refuses calls, or forgets its lists, on demand."""

    refuses = False
    error: Exception = BackendError("not now")

    async def attend(
        self, process: str, *, lease: float, entered: Collection[Member] = (), left: Collection[Member] = ()
    ) -> int:
        if self.refuses:
            raise self.error
        return await super().attend(process, lease=lease, entered=entered, left=left)

    def forget(self) -> None:
        self._members = MemberLists()


@pytest.mark.parametrize(
    ("error", "is_traced"), [(BackendError("not now"), False), (ZeroDivisionError("not now"), True)]
)
async def test_what_a_backend_refused_is_tried_again(
    caplog: pytest.LogCaptureFixture, error: Exception, *, is_traced: bool
) -> None:
    """The failure is logged once, and the next beat repairs it; readers go on."""
    backend = Faulty()
    backend.error = error
    async with make_hub(backend, presence_ttl=0.1) as hub, hub.subscribe("a") as watcher:
        backend.refuses = True
        async with hub.subscribe("a", identity="ada", presence=True):
            await anyio.sleep(0.15)
            backend.refuses = False
            await told(watcher, "+ada")
        await told(watcher, "-ada")
    assert caplog.text.count("will retry: not now") == 1
    assert ("Traceback" in caplog.text) is is_traced


async def test_what_a_backend_lost_is_listed_again() -> None:
    """The next beat finds that the list has changed."""
    backend = Faulty()
    async with make_hub(backend, presence_ttl=0.1) as hub, hub.subscribe("a") as watcher:
        async with hub.subscribe("a", identity="ada", presence=True):
            await told(watcher, "+ada")
            backend.forget()
            await told(watcher, "+ada")
            backend.forget()
            hub._registry.gap(None, ())  # type: ignore[union-attr]
            await told(watcher, "+ada")
        await told(watcher, "-ada")


async def test_closing_does_not_fail_with_the_backend() -> None:
    """The lease ends a little later then."""
    backend = Faulty()
    async with make_hub(backend) as hub:
        await hub.subscribe("a", identity="ada", presence=True).__aenter__()
        await until_here(hub, "a", "ada")
        backend.refuses = True
    assert hub.state == "closed"


async def test_a_reader_can_be_listed_on_some_of_its_channels() -> None:
    """Joins and leaves are then not published to the other channels."""
    async with make_hub() as hub:
        for names in ("people", ["people"], {"people"}):
            async with hub.subscribe("room", "people", identity="ada", presence=names):
                await until_here(hub, "people", "ada")
                assert await hub.presence("room") == []
            await until_here(hub, "people")
        assert await hub.history("room") == []
        with pytest.raises(ValueError, match=r"presence must name channels of the subscription \(got 'other'"):
            hub.subscribe("room", identity="ada", presence="other")


async def test_who_comes_in_the_moment_in_which_the_beat_ends_is_listed() -> None:
    """Another one begins then."""
    async with make_hub(presence_ttl=60) as hub, hub.subscribe("a") as watcher:
        async with hub.subscribe("a", identity="ada", presence=True):
            await told(watcher, "+ada")
        await told(watcher, "-ada")
        hub._registry.presence.beat()  # type: ignore[union-attr]
        await anyio.sleep(0)
        async with hub.subscribe("a", identity="bob", presence=True):
            await told(watcher, "+bob")


async def test_presence_needs_an_identity() -> None:
    """There would be nothing to list."""
    async with make_hub() as hub:
        with pytest.raises(ValueError, match="presence=True needs identity="):
            hub.subscribe("a", presence=True)


@pytest.mark.parametrize(
    "options", [{"presence_ttl": 0}, {"presence_ttl": NAN}, {"presence_grace": -1}, {"presence_grace": NAN}]
)
def test_impossible_times_are_refused(options: Any) -> None:
    """A lease must last, and a grace cannot be negative."""
    with pytest.raises(ValueError, match=next(iter(options))):
        Hub(**options)


async def test_a_backend_need_not_know_who_is_here() -> None:
    """The error then names the missing methods."""

    class Plain(MemoryBackend):
        attend = Backend.attend
        present = Backend.present

    async with make_hub(Plain()) as hub:
        with pytest.raises(NotImplementedError, match="implement `attend` and `present`"):
            await hub.presence("a")
        with pytest.raises(NotImplementedError, match="implement `attend` and `present`"):
            await hub.backend.present("a")
        with pytest.raises(NotImplementedError, match="implement `attend` and `present`"):
            hub.subscribe("a", identity="ada", presence=True)


async def test_where_nobody_is_here_nothing_runs() -> None:
    """The beat ends with the last leave, and begins again with the next join."""
    async with make_hub(presence_ttl=0.03) as hub, hub.subscribe("a") as watcher:
        for _ in range(2):
            async with hub.subscribe("a", identity="ada", presence=True):
                await told(watcher, "+ada")
            await told(watcher, "-ada")
            with anyio.fail_after(5):
                while hub._registry.presence._task is not None:  # type: ignore[union-attr]
                    await anyio.sleep(0.005)


async def test_a_beat_without_readers_does_nothing() -> None:
    """No task is started for it."""
    presence = Presence(MemoryBackend(), 15.0, 5.0)
    presence.beat()
    presence.leave("a stranger")
    await presence.close()
    assert presence._task is None
