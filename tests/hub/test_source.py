"""Source: the registry of a hub is one."""

import inspect

import pytest

from sse_asgi import Hub
from sse_asgi._hub.registry import Registry
from sse_asgi._hub.source import Source

METHODS = {name: member for name, member in vars(Source).items() if inspect.isfunction(member) and name[0] != "_"}


@pytest.mark.parametrize("name", METHODS)
def test_the_registry_has_each_method_of_a_source(name: str) -> None:
    """With the same parameters, and awaited where the source's is."""
    method = getattr(Registry, name)
    assert [*inspect.signature(method).parameters] == [*inspect.signature(METHODS[name]).parameters]
    assert inspect.iscoroutinefunction(method) == inspect.iscoroutinefunction(METHODS[name])


@pytest.mark.anyio
async def test_the_registry_of_an_open_hub_has_each_attribute_of_a_source() -> None:
    """The event loop that it belongs to, and the counters."""
    async with Hub() as hub:
        source: Source | None = hub._registry
        assert source is not None
        assert source.home.is_here()
        assert source.tally.gaps.total() == 0
        assert source.position() is not None
