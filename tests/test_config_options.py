"""Options of settings and URLs, as the hub, its readers and its backend get them."""

from typing import Any

import pytest

from sse_asgi import Hub, MemoryBackend, RunLimitError, Settings, create_hub
from sse_asgi.backends.redis import RedisBackend


async def kept(hub: Hub, count: int) -> list[str | None]:
    """Open a hub, publish `count` events, and return the data of those that its backend keeps."""
    async with hub:
        for number in range(count):
            await hub.publish("a", str(number))
        return [event.data for event in await hub.history("a")]


@pytest.mark.anyio
async def test_the_hub_gets_the_options() -> None:
    """A subscription of the hub has the options of the settings."""
    hub = create_hub(Settings(buffer_size=3, buffer_bytes=99, overflow="latest", ping_interval=2.5))
    async with hub:
        options = hub.subscribe("a").options
    assert (options.buffer_size, options.buffer_bytes, options.overflow) == (3, 99, "latest")
    assert options.ping_interval == 2.5


@pytest.mark.anyio
async def test_the_hub_gets_the_limit_of_runs_and_the_types_of_events() -> None:
    async with create_hub(Settings(max_runs=1), events={"said": str}) as hub:
        await hub.start_run("a", ["x"], ttl=60)
        with pytest.raises(RunLimitError):
            await hub.start_run("b", ["x"])
        with pytest.raises(ValueError, match="said"):
            await hub.publish("a", "x", event="shouted")


@pytest.mark.anyio
async def test_a_ping_interval_of_zero_turns_pings_off() -> None:
    """The hub's readers get no pings."""
    async with create_hub(Settings(ping_interval=0)) as hub:
        assert hub.subscribe("a").options.ping_interval is None


@pytest.mark.anyio
async def test_the_history_size_reaches_the_backend() -> None:
    """The backend keeps `history_size` events."""
    assert await kept(create_hub(Settings(history_size=2)), 3) == ["1", "2"]


@pytest.mark.anyio
async def test_the_urls_query_wins() -> None:
    """An option in the URL overrides the variable of the same name."""
    assert await kept(create_hub(Settings(backend_url="memory://?history_size=1", history_size=2)), 3) == ["2"]


@pytest.mark.anyio
@pytest.mark.parametrize("option", ["history_bytes", "total_bytes"])
async def test_bounds_in_bytes_reach_the_memory_backend(option: str) -> None:
    """A setting sets the bound, and the URL overrides it."""
    given: dict[str, Any] = {option: 1}
    assert await kept(create_hub(Settings(**given)), 3) == []
    assert await kept(create_hub(Settings(backend_url=f"memory://?{option}=5000", **given)), 3) == ["0", "1", "2"]


@pytest.mark.parametrize("option", ["history_bytes", "total_bytes"])
def test_bounds_in_bytes_reach_the_redis_backend(option: str) -> None:
    """A setting sets the bound, and the URL overrides it; a wrong value is refused."""
    given: dict[str, Any] = {option: 7}
    for settings, value in (
        (Settings(backend_url="redis://cache", **given), 7),
        (Settings(backend_url=f"redis://cache?{option}=9", **given), 9),
    ):
        backend = create_hub(settings).backend
        assert isinstance(backend, RedisBackend)
        storage = backend._submitter._storage
        assert {"history_bytes": storage.bytes("a"), "total_bytes": storage.total}[option] == value
    with pytest.raises(ValueError, match=f"^{option} in SSE_BACKEND_URL='0': must be a whole number of bytes, 1 to"):
        create_hub(Settings(backend_url=f"redis://cache?{option}=0"))


@pytest.mark.anyio
async def test_a_history_size_of_zero_keeps_nothing() -> None:
    """A hub without history returns no ids."""
    async with create_hub(Settings(history_size=0)) as hub:
        assert await hub.publish("a", "x") is None


@pytest.mark.parametrize(
    "url", ["memory://?history_ttl=7.5", "memory:///?history_ttl=7.5", "MEMORY://?history_ttl=7.5"]
)
def test_the_history_ttl_reaches_the_backend(url: str) -> None:
    """The option of the URL sets it; the case of the scheme does not matter."""
    backend = create_hub(Settings(backend_url=url)).backend
    assert isinstance(backend, MemoryBackend)
    assert backend._ttl == 7.5
