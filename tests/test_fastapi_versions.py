"""FastAPI from the lowest version on: what works with each, and what an old one is refused for."""

from collections.abc import Iterator
from typing import Any

import fastapi
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from sse_asgi import EventSourceMiddleware, EventSourceResponse
from sse_asgi.fastapi import LastEventID, event_schema, prepare
from sse_asgi.testing import EventStreamClient

pytestmark = pytest.mark.anyio
YIELDS = tuple(int(part) for part in fastapi.__version__.split(".")[:2]) >= (0, 134)


class Token(BaseModel):
    text: str


async def test_an_endpoint_that_yields_works_or_is_refused_at_the_start() -> None:
    """Since FastAPI 0.134 it works. Before, the error names the endpoint and the way that works there."""
    app = FastAPI()
    app.add_middleware(EventSourceMiddleware)

    @app.get("/", response_class=EventSourceResponse)
    def endpoint() -> Any:
        yield "a"

    if not YIELDS:
        with pytest.raises(RuntimeError, match=r"endpoint.*must be 0\.134 or newer.*or return EventSourceResponse"):
            prepare(app)
        return
    async with EventStreamClient(app) as client, client.stream("/") as stream:
        assert (await stream.next_event()).data == "a"


async def test_an_endpoint_that_returns_a_response_works() -> None:
    """Its id, its stream and its events in OpenAPI."""
    app = FastAPI()
    app.add_middleware(EventSourceMiddleware)

    @app.get("/", responses=event_schema(token=Token))
    async def endpoint(last: LastEventID) -> EventSourceResponse:
        def tokens() -> Iterator[str | None]:
            yield last

        return EventSourceResponse(tokens())

    async with EventStreamClient(app) as client, client.stream("/", last_event_id="7") as stream:
        assert (await stream.next_event()).data == "7"
    described = app.openapi()["paths"]["/"]["get"]["responses"]["200"]["content"]
    assert described["text/event-stream"]["schema"] == {"$ref": "#/components/schemas/Token"}
