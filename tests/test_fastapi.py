"""FastAPI's endpoints that yield: types, OpenAPI, options, dependencies, and what is refused at the start."""

import json
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from functools import partial
from typing import Annotated, Any

import anyio
import fastapi
import fastapi.routing
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import ResponseValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from sse_asgi import EventSourceApp, EventSourceMiddleware, EventSourceResponse, Hub, ServerSentEvent
from sse_asgi.dialects import OPENAI
from sse_asgi.fastapi import EventName, LastEventID, assert_no_open_dependencies, event_schema, prepare
from sse_asgi.testing import EventStream, EventStreamClient

pytestmark = pytest.mark.anyio

FINAL = b'id: sse.end\nevent: sse.end\ndata: {"state":"finished"}\n\n'
# What an older FastAPI is refused for is in test_fastapi_versions.py.
fastapi_sse = pytest.importorskip("fastapi.sse")


class Token(BaseModel):
    text: str
    log_prob: float | None = Field(default=None, alias="logProb")


class Done(BaseModel):
    tokens: int


def application(endpoint: Callable[..., Any], **options: Any) -> FastAPI:
    """Return an application with this endpoint at `/`."""
    app = FastAPI()
    app.add_middleware(EventSourceMiddleware)
    methods = options.pop("methods", ["GET"])
    kind = options.pop("response_class", EventSourceResponse)
    app.api_route("/", methods=methods, response_class=kind, **options)(endpoint)
    return app


async def answered(
    endpoint: Callable[..., Any], *, target: str = "/", method: str = "GET", **options: Any
) -> EventStream:
    """Return the whole answer of an endpoint."""
    async with EventStreamClient(application(endpoint, methods=[method], **options)) as client:
        async with client.stream(target, method=method) as stream:
            await stream.read()
            return stream


# What endpoints yield


async def test_items_have_the_type_of_the_annotation() -> None:
    """They are validated and written by the model, with FastAPI's options; None is skipped."""

    async def endpoint() -> AsyncIterable[Token | None]:
        yield Token(text="a", logProb=0.5)
        yield None
        yield {"text": "b"}  # type: ignore[misc]

    stream = await answered(endpoint, response_model_exclude_none=True)
    assert stream.content == b'data: {"text":"a","logProb":0.5}\n\ndata: {"text":"b"}\n\n' + FINAL


@pytest.mark.parametrize("declared", [True, False])
async def test_each_event_has_a_model(declared: bool) -> None:  # noqa: FBT001
    """`event_schema` or the annotation names the events; a sync generator, a POST, events with ids."""

    def endpoint(
        text: str,
    ) -> Iterable[Annotated[Token, EventName("token")] | Annotated[Done, EventName("done")] | ServerSentEvent]:
        yield Token(text=text)
        yield {"tokens": 1}  # type: ignore[misc]
        yield ServerSentEvent({"text": "c"}, event="token", id="7")
        yield fastapi_sse.ServerSentEvent(data=Done(tokens=2), event="done")

    options: dict[str, Any] = {"responses": event_schema(token=Token, done=Done)} if declared else {}
    stream = await answered(endpoint, target="/?text=a", method="POST", **options)
    assert (
        [event[:2] for event in [*stream.events()]]
        if hasattr(stream, "events")
        else stream.content
        == (
            b'event: token\ndata: {"text":"a","logProb":null}\n\nevent: done\ndata: {"tokens":1}\n\n'
            b'id: 7\nevent: token\ndata: {"text":"c","logProb":null}\n\nevent: done\ndata: {"tokens":2}\n\n'
        )
    )


async def test_events_without_known_names_are_sent_as_they_are() -> None:
    """If no event is named, one that an endpoint makes says by itself what it is."""

    async def endpoint() -> AsyncIterable[Token | ServerSentEvent]:
        yield ServerSentEvent("any", event="other")

    assert (await answered(endpoint)).content == b"event: other\ndata: any\n\n" + FINAL


@pytest.mark.parametrize("annotation", [None, AsyncIterable[Any], AsyncIterable[ServerSentEvent]])
async def test_items_may_have_no_type(annotation: Any) -> None:
    """Then they are the data of events, as in any stream."""

    async def endpoint() -> Any:
        yield {"a": 1}

    endpoint.__annotations__["return"] = annotation
    assert (await answered(endpoint)).content == b'data: {"a":1}\n\n' + FINAL


async def test_a_wrong_first_item_is_an_error_response() -> None:
    """FastAPI's own error, as of its other endpoints, with the place of the endpoint."""

    async def endpoint() -> AsyncIterable[Token]:
        yield {"text": 1}  # type: ignore[misc]

    with pytest.raises(ResponseValidationError, match="GET /") as caught:
        await answered(endpoint)
    (error,) = caught.value.errors()
    assert (error["loc"], error["type"], caught.value.body) == (("response", "text"), "string_type", {"text": 1})


@pytest.mark.parametrize(
    "item", [{"text": 1}, ServerSentEvent("{}", event="tokn"), ServerSentEvent("{}", event="token")]
)
async def test_a_wrong_later_item_is_an_error_event(item: Any) -> None:
    """What was sent before stays, `sse.error` follows, and the application gets FastAPI's error."""

    async def endpoint() -> AsyncIterable[Annotated[Token, EventName("token")]]:
        yield Token(text="a")
        await anyio.sleep(0.001)
        yield item

    app = application(endpoint)
    seen: list[Exception] = []

    async def noted(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        except ResponseValidationError as error:
            seen.append(error)

    async with EventStreamClient(noted) as client, client.stream("/") as stream:
        content = await stream.read()
    assert content.startswith(b'event: token\ndata: {"text":"a","logProb":null}\n\nevent: sse.error\ndata: {}\n\n')
    assert len(seen) == 1


async def test_a_dialect_gets_validated_items() -> None:
    """It frames them; its own options come by `having`, which may be given twice."""

    async def endpoint() -> AsyncIterable[Token | ServerSentEvent]:
        yield {"text": "a"}  # type: ignore[misc]
        yield ServerSentEvent('{"b":1}')

    kind = EventSourceResponse.having(dialect=OPENAI).having(ping_interval=5)
    stream = await answered(endpoint, response_class=kind)
    assert stream.content == b'data: {"text":"a","logProb":null}\n\ndata: {"b":1}\n\ndata: [DONE]\n\n'


async def test_chunks_of_a_stream_have_no_type() -> None:
    """`encoded=True` passes them on."""

    async def endpoint() -> AsyncIterable[bytes]:
        yield b"event: a\ndata: 1\n"
        yield b"\n"

    stream = await answered(endpoint, response_class=EventSourceResponse.having(encoded=True))
    assert stream.content.startswith(b"event: a\ndata: 1\n\n")


# The rest of an endpoint


async def test_a_response_parameter_sets_the_head() -> None:
    """What dependencies set, and what the endpoint sets until its first item: headers, cookies, status."""
    ran: list[str] = []

    def dependency(response: Response) -> None:
        response.headers["x-dependency"] = "1"

    async def endpoint(response: Response, tasks: BackgroundTasks) -> AsyncIterable[int]:
        response.headers["cache-control"] = "private"
        response.set_cookie("a", "b")
        response.status_code = 201
        tasks.add_task(ran.append, "background")
        yield 1

    stream = await answered(endpoint, dependencies=[Depends(dependency)], status_code=202)
    assert (stream.status_code, stream.headers["x-dependency"]) == (201, "1")
    assert stream.headers.getlist("cache-control") == ["private"]
    assert stream.headers["set-cookie"].startswith("a=b")
    assert ran == ["background"]


async def test_an_error_before_the_first_item_has_its_status() -> None:
    """FastAPI's own handlers answer."""

    async def endpoint() -> AsyncIterable[int]:
        raise HTTPException(402)
        yield 1

    stream = await answered(endpoint)
    assert (stream.status_code, json.loads(stream.content)) == (402, {"detail": "Payment Required"})


async def test_a_head_request_does_not_run_the_endpoint() -> None:
    """The headers are those of the stream."""

    async def endpoint() -> AsyncIterable[int]:
        raise AssertionError
        yield 1

    stream = await answered(endpoint, method="HEAD")
    assert (stream.status_code, stream.content) == (200, b"")
    assert stream.headers["content-type"] == "text/event-stream"


@pytest.mark.parametrize(
    ("target", "headers", "expected"),
    [
        ("/", {}, None),
        ("/?last_event_id=5", {}, "5"),
        ("/?last_event_id=5", {"last-event-id": "no number"}, "no number"),
        ("/?last_event_id=5", {"last-event-id": ""}, ""),
    ],
)
async def test_the_last_event_id_is_that_of_the_response(target: str, headers: dict[str, str], expected: Any) -> None:
    """The header wins over the query, and no text is refused."""
    seen: list[str | None] = []

    async def endpoint(last: LastEventID) -> AsyncIterable[int]:
        seen.append(last)
        yield 1

    async with EventStreamClient(application(endpoint)) as client, client.stream(target, headers=headers) as stream:
        assert stream.status_code == 200
        await stream.read()
    assert seen == [expected]


@pytest.mark.parametrize(
    ("options", "error"),
    [({"ping": 5}, TypeError), ({"background": None}, TypeError), ({"ping_interval": 0}, ValueError)],
)
def test_wrong_options_are_refused_at_once(options: Any, error: type[Exception]) -> None:
    """Before any request."""
    with pytest.raises(error):
        EventSourceResponse.having(**options)


async def test_other_streams_in_fastapi_keep_their_items() -> None:
    """An endpoint that returns a response sends what it says there; its types are only documented."""

    async def endpoint() -> EventSourceResponse:
        return EventSourceResponse(["a"])

    stream = await answered(endpoint, response_class=JSONResponse, responses=event_schema(token=Token))
    assert stream.content == b"data: a\n\n" + FINAL


# What is refused at the start


async def started(app: FastAPI) -> None:
    async with EventStreamClient(app):
        pass


class Locked:
    """A class that pydantic does not know."""


async def no_types() -> AsyncIterable[Locked]:
    yield Locked()


async def no_iterable() -> Token:  # type: ignore[misc]
    yield Token(text="a")


async def one_name() -> AsyncIterable[Annotated[Token, EventName("a")] | Annotated[Done, EventName("a")]]:
    yield Done(tokens=1)


async def named() -> AsyncIterable[Annotated[Token, EventName("tokn")]]:
    yield Token(text="a")


async def tokens() -> AsyncIterable[Token]:
    yield Token(text="a")


@pytest.mark.parametrize(
    ("endpoint", "options", "error", "match"),
    [
        (no_types, {}, TypeError, "a type that pydantic can write as JSON"),
        (no_iterable, {}, TypeError, "must be annotated as AsyncIterable"),
        (one_name, {}, ValueError, "the event 'a' must have one model"),
        (named, {"responses": event_schema(token=Token)}, ValueError, "must be one of event_schema"),
        (named, {"response_class": EventSourceResponse.having(dialect=OPENAI)}, ValueError, "leave out event_schema"),
    ],
)
async def test_a_contradiction_is_refused_at_the_start(endpoint: Any, options: Any, error: Any, match: str) -> None:
    """The error names the endpoint, and the server does not start."""
    app = application(endpoint, **options)
    match = rf"GET / \({__name__}.{endpoint.__name__}\): .*{match}"
    with pytest.raises(error, match=f"^{match}"):
        prepare(app)
    with pytest.raises(RuntimeError, match=match):
        await started(app)


async def test_a_default_response_class_is_enough() -> None:
    """That of an application, whose other endpoints have to name theirs."""
    app = FastAPI(default_response_class=EventSourceResponse)
    app.get("/")(tokens)
    async with EventStreamClient(app) as client, client.stream("/") as stream:
        assert await stream.read() == b'data: {"text":"a","logProb":null}\n\n' + FINAL


async def test_an_old_fastapi_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would serialise the generator; the error names the way that works there."""
    app = application(tokens)
    monkeypatch.setattr(fastapi, "__version__", "0.133.1")
    with pytest.raises(RuntimeError, match=r"must be 0.134 or newer .* \(got 0.133.1\): upgrade it, or return Event"):
        await started(app)


async def test_a_route_is_compiled_at_its_first_request_too() -> None:
    """Without the middleware, the start checks nothing."""
    app = FastAPI()
    app.get("/", response_class=EventSourceResponse)(one_name)
    async with EventStreamClient(app) as client:
        with pytest.raises(ValueError, match="must have one model"):
            async with client.stream("/"):
                pass


# Dependencies


async def session() -> AsyncIterator[str]:
    yield "session"


def user(opened: Annotated[str, Depends(session)]) -> str:
    return opened


async def below(user: Annotated[str, Depends(user)]) -> AsyncIterable[str]:
    yield user


FOUND = "GET / keeps its dependency user -> session open for as long as the stream: Depends(..., scope="


async def test_an_open_dependency_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """By route, dependency and fix, once, also below another dependency."""
    app = application(below)
    with caplog.at_level(logging.WARNING):
        await started(app)
        await started(app)
    assert [(one.name, one.message[: len(FOUND)]) for one in caplog.records] == [("sse_asgi.fastapi", FOUND)]
    with pytest.raises(AssertionError, match="keeps its dependency user -> session open"):
        assert_no_open_dependencies(app)


@pytest.mark.parametrize("scope", ["function", "request"])
async def test_a_scope_says_what_is_meant(scope: Any) -> None:
    """A dependency that is closed before the stream, and one that is open on purpose, are no faults."""

    async def endpoint(opened: Annotated[str, Depends(session, scope=scope)]) -> AsyncIterable[str]:
        yield opened

    assert_no_open_dependencies(application(endpoint))


async def test_dependencies_of_routers_and_other_streams_are_seen() -> None:
    """Those of an included router, of a response that is returned, and of FastAPI's own streams."""
    app = FastAPI()
    router = APIRouter(dependencies=[Depends(session)])
    router.get("/a", response_class=EventSourceResponse)(tokens)
    router.get("/b", response_class=fastapi_sse.EventSourceResponse)(tokens)

    @router.get("/c")
    async def returns() -> EventSourceResponse:
        return EventSourceResponse([])

    @router.get("/d")
    async def unreadable() -> "Missing":  # type: ignore[name-defined] # noqa: F821
        return 1

    app.include_router(router, prefix="/r", dependencies=[Depends(partial(session))])
    with pytest.raises(AssertionError) as caught:
        assert_no_open_dependencies(app)
    lines = [line.split(" keeps its dependency ") for line in str(caught.value).splitlines()]
    assert [(route, what.split(" open")[0]) for route, what in lines] == [
        (f"GET /r/{name}", what) for name in "abc" for what in (repr(partial(session)).split(" open")[0], "session")
    ]


@pytest.mark.parametrize(("version", "found"), [("0.117.0", 0), ("0.120.0", 1)])
async def test_old_versions_close_dependencies_otherwise(
    monkeypatch: pytest.MonkeyPatch, version: str, found: int
) -> None:
    """Before 0.118 they were closed before the stream began, and before 0.121 there were no scopes."""
    app = application(below)
    fields = {name: value for name, value in Dependant.__dataclass_fields__.items() if name != "scope"}
    monkeypatch.setattr(Dependant, "__dataclass_fields__", fields)
    monkeypatch.setattr(fastapi, "__version__", version)
    if found:
        with pytest.raises(AssertionError, match="for as long as the stream: open what it gives inside the generator"):
            assert_no_open_dependencies(app)
    else:
        assert_no_open_dependencies(app)


# OpenAPI


def document(app: FastAPI) -> Any:
    prepare(app)
    return app.openapi()


def content(app: FastAPI, path: str = "/", method: str = "get", status: str = "200") -> Any:
    return document(app)["paths"][path][method]["responses"][status]["content"]


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def test_an_endpoint_that_yields_is_documented() -> None:
    """By its annotation, with the models among the components; once prepared, nothing is added twice."""
    app = application(tokens, status_code=201)
    described = content(app, status="201")["text/event-stream"]
    assert described["itemSchema"]["properties"]["data"]["contentSchema"] == ref("Token") == described["schema"]
    assert document(app) is app.openapi()
    assert "logProb" in app.openapi()["components"]["schemas"]["Token"]["properties"]


async def returns() -> EventSourceResponse:
    return EventSourceResponse([])


def test_an_endpoint_that_returns_a_response_is_documented() -> None:
    """By `event_schema`, in place of the JSON that FastAPI assumes; without it, as any events."""
    app = FastAPI()
    app.get("/a", responses={**event_schema(token=Token, done=Done), 404: {"description": "gone"}})(returns)
    app.get("/b", include_in_schema=False)(returns)
    app.post("/c")(returns)
    branches = content(app, "/a")["text/event-stream"]["itemSchema"]["oneOf"]
    assert [one["properties"]["event"]["const"] for one in branches] == ["token", "done"]
    assert content(app, "/a").keys() == content(app, "/c", "post").keys() == {"text/event-stream"}
    responses = app.openapi()["paths"]["/a"]["get"]["responses"]
    assert responses.keys() == {"200", "404"}
    assert responses["200"]["description"] == "Events: token, done"  # what tools that do not know itemSchema show


def test_json_beside_a_stream_is_kept() -> None:
    """An endpoint that returns JSON or a stream."""
    app = FastAPI()
    app.get("/", response_model=Done, responses=event_schema(token=Token))(returns)
    assert content(app).keys() == {"application/json", "text/event-stream"}


def test_streams_of_fastapi_are_left_alone() -> None:
    """FastAPI documents them."""
    app = application(tokens, response_class=fastapi_sse.EventSourceResponse)
    assert content(app)["text/event-stream"]["itemSchema"]["properties"]["data"]["contentSchema"] == ref("Token")
    assert "schema" not in content(app)["text/event-stream"]


def test_another_document_of_a_route_is_respected() -> None:
    """If `app.openapi` leaves a response out, nothing is added."""
    app = application(tokens)
    make = app.openapi

    def without() -> dict[str, Any]:
        found = make()
        found["paths"]["/"]["get"].pop("responses", None)
        return found

    app.openapi = without  # type: ignore[method-assign]
    assert "responses" not in document(app)["paths"]["/"]["get"]


def test_a_mounted_app_is_documented() -> None:
    """By the events of its hub, below its path; FastAPI applications that are mounted have documents of their own."""
    app, inner = FastAPI(), application(tokens)
    app.mount("/events/{room}", EventSourceApp(Hub(events={"said": Token})))
    app.mount("/inner", inner)
    found = content(app, "/events/{room}/")["text/event-stream"]
    assert found["itemSchema"]["properties"]["event"]["const"] == "said"
    assert [*app.openapi()["paths"]] == ["/events/{room}/"]
    assert "itemSchema" in content(inner)["text/event-stream"]

    app = FastAPI()
    app.mount("/events", EventSourceApp(Hub()))
    app.get("/events/", response_model=Done)(returns)  # a route that FastAPI documents stays
    assert "application/json" in content(app, "/events/")


def test_only_applications_of_fastapi_are_prepared() -> None:
    """Also one that is mounted in another application; anything else is left alone."""
    prepare(returns)
    inner = application(tokens)
    prepare(Starlette(routes=[Route("/", returns), Mount("/inner", inner)]))
    assert "itemSchema" in inner.openapi()["paths"]["/"]["get"]["responses"]["200"]["content"]["text/event-stream"]


def test_the_id_is_documented_as_a_header() -> None:
    """So that generated clients can send it."""

    async def endpoint(last: LastEventID, request: Request) -> AsyncIterable[int]:
        yield 1

    (parameter,) = document(application(endpoint))["paths"]["/"]["get"]["parameters"]
    assert (parameter["in"], parameter["name"], parameter["required"]) == ("header", "Last-Event-ID", False)
