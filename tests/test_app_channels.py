"""Which channels a mounted app serves: fixed names, templates, patterns, functions, limits."""

from typing import Any

import pytest
from starlette.requests import Request

from mounting import mounted, status
from sse_asgi import EventSourceApp, Hub

pytestmark = pytest.mark.anyio


async def test_a_star_serves_any_name() -> None:
    """The explicit way to let the query decide; several channels in one stream."""
    async with mounted(channels="*") as (hub, client):
        async with client.stream("/events/?channel=a&channel=b") as stream:
            await hub.publish("a", "1")
            await hub.publish("b", "2")
            assert [(await stream.next_event()).data for _ in range(2)] == ["1", "2"]
        assert await status(client) == 200


@pytest.mark.parametrize("channels", [["a", "b"], {"a": 1, "b": 2}, ("a", "b")])
async def test_a_collection_allows_its_names(channels: Any) -> None:
    """Others are 403; without `?channel=` the stream has all of them."""
    async with mounted(channels=channels) as (hub, client):
        assert await status(client, "?channel=a") == 200
        assert await status(client, "?channel=a&channel=c") == 403
        async with client.stream("/events/") as stream:
            await hub.publish("b", "x")
            assert (await stream.next_event()).data == "x"


async def test_one_name_is_a_collection_of_one() -> None:
    """`channels="news"`."""
    async with mounted(channels="news") as (_, client):
        assert await status(client, "?channel=news") == 200
        assert await status(client, "?channel=n") == 403


@pytest.mark.parametrize("kind", ["sync", "async", "single"])
async def test_a_function_chooses_and_the_query_does_not(kind: str) -> None:
    """From the request, which may be awaited for."""

    async def later(request: Request) -> list[str]:
        return [f"user:{request.headers['x-user']}"]

    choices: dict[str, Any] = {
        "sync": lambda request: [f"user:{request.headers['x-user']}"],
        "single": lambda request: f"user:{request.headers['x-user']}",
        "async": later,
    }
    async with mounted(channels=choices[kind]) as (hub, client):
        async with client.stream("/events/?channel=other", headers={"x-user": "ann"}) as stream:
            await hub.publish("other", "not this")
            await hub.publish("user:ann", "this")
            assert (await stream.next_event()).data == "this"


@pytest.mark.parametrize("channels", ["*", None])
async def test_the_librarys_own_channels_are_never_served(channels: Any) -> None:
    """Names beginning with `sse.`, whatever is allowed."""
    async with mounted(channels=channels, authorize=lambda *_: None) as (_, client):
        assert await status(client, "?channel=sse.presence") == 403


@pytest.mark.parametrize("options", [{"channels": ["a", "sse.x"]}, {"default_channel": "sse.x"}, {"channels": "sse.x"}])
async def test_the_librarys_own_channels_cannot_be_offered(options: dict[str, Any]) -> None:
    """A ValueError where the app is made."""
    with pytest.raises(ValueError, match="never served"):
        EventSourceApp(Hub(), **options)


@pytest.mark.parametrize("chosen", [[], "sse.x", ["a", "sse.x"]])
async def test_a_function_that_chooses_nothing_refuses(chosen: Any) -> None:
    """No channel, or one of the library's own: 403."""
    async with mounted(channels=lambda _: chosen) as (_, client):
        assert await status(client) == 403


@pytest.mark.parametrize("name", ["", "a%0Ab", "%00", "x" * 513])
async def test_bad_names_are_400(name: str) -> None:
    """With the reason."""
    async with mounted(channels="*") as (_, client), client.stream(f"/events/?channel={name}") as stream:
        assert stream.status_code == 400
        assert b"channel" in await stream.read()


async def test_too_many_channels_are_400_with_the_limit() -> None:
    """100, unless another limit was given."""
    async with mounted(channels="*") as (_, client):
        async with client.stream("/events/", params={"channel": [str(n) for n in range(101)]}) as stream:
            assert stream.status_code == 400
            assert b"at most 100" in await stream.read()
        assert await status(client, params={"channel": [str(n) for n in range(100)]}) == 200
    async with mounted(channels="*", max_channels=1) as (_, client):
        assert await status(client, "?channel=a&channel=b") == 400
