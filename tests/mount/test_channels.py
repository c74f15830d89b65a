"""The channels of a request: fixed names, templates, patterns, functions, limits."""

from typing import Any
from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Host, Mount, Route, Router

from mount.helpers import mounted, status
from sse_asgi import (
    EventSourceApp,
    Hub,
    Pattern,
)
from sse_asgi._mount.channels import ServedChannels
from sse_asgi.testing import EventStreamClient

pytestmark = pytest.mark.anyio


async def test_a_star_serves_any_name() -> None:
    """`"*"` lets the query choose every channel, several for one stream."""
    async with mounted(channels="*") as (hub, client):
        async with client.stream("/events/?channel=a&channel=b") as stream:
            await hub.publish("a", "1")
            await hub.publish("b", "2")
            assert [(await stream.next_event()).data for _ in range(2)] == ["1", "2"]
        assert await status(client) == 200


@pytest.mark.parametrize("channels", [["a", "b"], {"a": 1, "b": 2}, ("a", "b")])
async def test_a_collection_allows_its_names(channels: Any) -> None:
    """Other channels are 403; a request without `?channel=` gets all names of the collection."""
    async with mounted(channels=channels) as (hub, client):
        assert await status(client, "?channel=a") == 200
        assert await status(client, "?channel=a&channel=c") == 403
        async with client.stream("/events/") as stream:
            await hub.publish("b", "x")
            assert (await stream.next_event()).data == "x"


async def test_one_name_is_a_collection_of_one() -> None:
    """`channels="news"` serves the channel `news`."""
    async with mounted(channels="news") as (_, client):
        assert await status(client, "?channel=news") == 200
        assert await status(client, "?channel=n") == 403


@pytest.mark.parametrize("kind", ["sync", "async", "single"])
async def test_a_function_chooses_and_the_query_does_not(kind: str) -> None:
    """The function gets the request, and may be async."""

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
    """Names that begin with `sse.` are refused, even if every channel is allowed."""
    async with mounted(channels=channels, authorize=lambda *_: None) as (_, client):
        assert await status(client, "?channel=sse.presence") == 403


@pytest.mark.parametrize("options", [{"channels": ["a", "sse.x"]}, {"default_channel": "sse.x"}, {"channels": "sse.x"}])
async def test_the_librarys_own_channels_cannot_be_offered(options: dict[str, Any]) -> None:
    """Such an app is a ValueError."""
    with pytest.raises(ValueError, match="the library's own"):
        EventSourceApp(Hub(), **options)


@pytest.mark.parametrize("chosen", [[], None, "sse.x", ["a", "sse.x"]])
async def test_a_function_that_chooses_nothing_refuses(chosen: Any) -> None:
    """No channel, or one of the library's own, is 403."""
    async with mounted(channels=lambda _: chosen) as (_, client):
        assert await status(client) == 403


@pytest.mark.parametrize("name", ["", "a%0Ab", "%00", "x" * 513])
async def test_bad_names_are_400(name: str) -> None:
    """The answer has the reason."""
    async with mounted(channels="*") as (_, client), client.stream(f"/events/?channel={name}") as stream:
        assert stream.status_code == 400
        assert b"channel" in await stream.read()


async def test_too_many_channels_are_400_with_the_limit() -> None:
    """The limit is 100, or `max_channels`."""
    async with mounted(channels="*") as (_, client):
        async with client.stream("/events/", params={"channel": [str(n) for n in range(101)]}) as stream:
            assert stream.status_code == 400
            assert b"at most 100" in await stream.read()
        assert await status(client, params={"channel": [str(n) for n in range(100)]}) == 200
    async with mounted(channels="*", max_channels=1) as (_, client):
        assert await status(client, "?channel=a&channel=b") == 400


# Templates


@pytest.mark.parametrize("room", ["lobby", "a b", "*", "{room}", "é"])
async def test_a_template_is_filled_from_the_path(room: str) -> None:
    """The value is literal, even if it looks like a pattern or a template."""
    async with mounted(path="/rooms/{room}", channels=["room:{room}", "news"]) as (hub, client):
        async with client.stream(f"/rooms/{quote(room)}/") as stream:
            await hub.publish("room:other", "not this")
            await hub.publish(f"room:{room}", "this")
            await hub.publish("news", "and this")
            assert [(await stream.next_event()).data for _ in range(2)] == ["this", "and this"]
        assert await status(client, f"?channel=room:{quote(room)}", f"/rooms/{quote(room)}/") == 200
        assert await status(client, "?channel=room:other", f"/rooms/{quote(room)}/") == 403
        assert await status(client, "?channel=room:%7Broom%7D", "/rooms/lobby/") == 403


async def test_a_route_fills_templates_as_a_mount_does() -> None:
    """A Route may stand below a Mount, and the whole path is the app's."""
    hub = Hub()
    route = Route("/{room}", EventSourceApp(hub, channels="room:{room}"))
    async with hub:
        for app, path in (
            (Starlette(routes=[route]), "/a"),
            (Starlette(routes=[Mount("/rooms", Router([route]))]), "/rooms/a"),
        ):
            async with EventStreamClient(app).stream(path) as stream:
                await hub.publish("room:a", "x")
                assert (await stream.next_event()).data == "x"


async def test_a_route_is_recognised_where_starlette_does_not_name_it() -> None:
    """An old Starlette names only the endpoint, and only a Route has one."""
    hub = Hub()
    app = EventSourceApp(hub, channels="room:{room}")
    route = Route("/{room}", app)
    known: dict[str, Any] = {"endpoint": app, "path_params": {"room": "a"}, "root_path": "/rooms", "app_root_path": ""}
    async with hub:
        for router in (Router([route]), Router([Mount("/rooms", Router([route]))])):
            async with EventStreamClient(app).stream("/rooms/a", router=router, **known) as stream:
                assert stream.status_code == 200
        mount = Mount("/rooms", app)
        for router in (Router([mount]), Router([Host("example.com", Router([mount]))])):
            async with EventStreamClient(app).stream("/rooms/a", router=router, **known) as stream:
                assert stream.status_code == 404


async def test_a_converter_gives_the_text_of_its_value() -> None:
    """A parameter may be an int, for example."""
    async with mounted(path="/rooms/{room:int}", channels=["room:{room}"]) as (hub, client):
        async with client.stream("/rooms/007/") as stream:
            await hub.publish("room:7", "x")
            assert (await stream.next_event()).data == "x"


async def test_doubled_braces_are_braces() -> None:
    """Doubled braces make a name that is not a template."""
    async with mounted(channels=["{{a}}"]) as (_, client):
        assert await status(client, "?channel=%7Ba%7D") == 200
        assert await status(client, "?channel=%7B%7Ba%7D%7D") == 403


@pytest.mark.parametrize("name", ["room:{", "room:}", "room:{}", "room:{0}", "{a.b}", "{a[0]}", "{a!r}", "{a:5}"])
def test_a_bad_template_is_refused_at_once(name: str) -> None:
    """The error says how braces are written."""
    with pytest.raises(ValueError, match="for braces"):
        EventSourceApp(Hub(), channels=[name])


async def test_a_template_without_its_parameter_is_the_applications_mistake() -> None:
    """The ValueError says where to mount the app."""
    async with mounted(channels=["room:{room}"]) as (_, client):
        with pytest.raises(ValueError, match=r"\.\.\./\{room\}"):
            await status(client)


@pytest.mark.parametrize(("value", "code"), [("sse.control", 403), ("%00", 400), ("x" * 513, 400)])
async def test_a_value_that_makes_no_channel_is_refused(value: str, code: int) -> None:
    """The name is checked as if the request had named it."""
    async with mounted(path="/{name}", channels=["{name}"]) as (_, client):
        assert await status(client, "", f"/{value}/") == code


# Patterns


async def test_a_pattern_allows_matching_names() -> None:
    """Other names are refused, and so are the library's own channels."""
    async with mounted(channels=["news", "orders.*.eu", "s*"]) as (hub, client):
        async with client.stream("/events/?channel=orders.7.eu") as stream:
            await hub.publish("orders.7.eu", "x")
            assert (await stream.next_event()).data == "x"
        assert await status(client, "?channel=orders.7.us") == 403
        assert await status(client, "?channel=sse.control") == 403


async def test_a_request_without_a_query_gets_the_plain_names() -> None:
    """A request cannot get all matching channels by naming none."""
    async with mounted(Hub(patterns=["orders.*"]), channels=["news", "orders.*"]) as (hub, client):
        async with client.stream("/events/") as stream:
            await hub.publish("orders.1", "not this")
            await hub.publish("news", "this")
            assert (await stream.next_event()).data == "this"


async def test_a_pattern_itself_is_served_where_app_and_hub_know_it() -> None:
    """One stream has all of its channels, and resumes; an app with patterns only serves them by default."""
    async with mounted(Hub(patterns=["orders.*"]), channels=["orders.*", "bills.*"]) as (hub, client):
        for query in ("", "?channel=orders.*"):
            async with client.stream(f"/events/{query}") as stream:
                first = await hub.publish("orders.1", "1")
                await hub.publish("orders.2", "2")
                assert [(await stream.next_event()).data for _ in range(2)] == ["1", "2"]
            async with client.stream(f"/events/{query}", last_event_id=first) as stream:
                assert (await stream.next_event()).data == "2"
        assert await status(client, "?channel=bills.*") == 403


async def test_a_pattern_unknown_to_the_hub_needs_a_name() -> None:
    """The answer is 400, because there is nothing to stream."""
    async with mounted(channels=["orders.*"]) as (_, client):
        assert await status(client) == 400
        assert await status(client, "?channel=orders.1") == 200


@pytest.mark.parametrize("options", [{"channels": "*"}, {"authorize": lambda *_: None}, {"channels": ["news"]}])
@pytest.mark.parametrize("name", ["orders.*", "*", "a*b"])
async def test_a_pattern_is_refused_where_it_is_not_offered(options: dict[str, Any], name: str) -> None:
    """A pattern is refused even if every channel is allowed."""
    hub = Hub(patterns=["orders.*", "*", "a*b"])
    async with mounted(hub, **options) as (_, client), client.stream(f"/events/?channel={name}") as stream:
        assert stream.status_code == 403
        assert b"pattern" in await stream.read()


async def test_a_pattern_may_be_filled_from_the_path() -> None:
    """A tenant gets its own channels; a `*` in the path opens no other tenant's channels."""
    async with mounted(path="/{tenant}", channels=["{tenant}.*"]) as (_, client):
        assert await status(client, "?channel=acme.1", "/acme/") == 200
        assert await status(client, "?channel=other.1", "/acme/") == 403
        assert await status(client, "?channel=other.1", "/*/") == 403


async def test_a_value_from_the_path_is_no_way_to_a_gathered_pattern() -> None:
    """The value is refused, although the pattern's channel has that name."""
    async with mounted(Hub(patterns=["room:*"]), path="/rooms/{room}", channels=["room:{room}"]) as (_, client):
        assert await status(client, "", "/rooms/a/") == 200
        assert await status(client, "", "/rooms/*/") == 403
        assert await status(client, "?channel=room:*", "/rooms/*/") == 403


# Functions


@pytest.mark.parametrize(("chosen", "error"), [([1], TypeError), (7, TypeError)])
async def test_a_function_that_returns_no_names_is_an_error(chosen: Any, error: type[Exception]) -> None:
    """It is the application's mistake, so it is raised."""
    async with mounted(channels=lambda _: chosen) as (_, client):
        with pytest.raises(error):
            await status(client)


@pytest.mark.parametrize("value", ["%0A", "x" * 513])
async def test_a_bad_name_made_of_a_request_is_400(value: str) -> None:
    """It is the client's mistake, as for a template."""
    options: dict[str, Any] = {"channels": lambda request: f"room:{request.path_params['room']}"}
    async with mounted(path="/rooms/{room}", **options) as (_, client):
        assert await status(client, "", f"/rooms/{value}/") == 400


async def test_a_function_may_choose_a_gathered_pattern() -> None:
    """A Pattern can only come from the application."""
    hub = Hub(patterns=["orders.*"])
    chosen = Pattern("orders.*")
    async with mounted(hub, channels=lambda _: chosen) as (_, client), client.stream("/events/") as stream:
        await hub.publish("orders.1", "x")
        assert (await stream.next_event()).data == "x"


async def test_a_name_that_a_function_makes_is_no_way_to_a_gathered_pattern() -> None:
    """A str is refused, because a part of it may come from the request."""
    options: dict[str, Any] = {"channels": lambda request: f"room:{request.path_params['room']}"}
    async with mounted(Hub(patterns=["room:*"]), path="/rooms/{room}", **options) as (_, client):
        assert await status(client, "", "/rooms/a/") == 200
        assert await status(client, "", "/rooms/*/") == 403


def test_it_is_known_whether_a_function_chooses() -> None:
    """A function may choose several channels for a POST; a collection does not."""
    assert ServedChannels(lambda _: ["a", "b"], default="default").chosen
    assert not ServedChannels(["a", "b"], default="default").chosen
