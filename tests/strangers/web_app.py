"""Event streams of FastAPI, Django and Quart, in one application; the last two also each alone inside our middleware.

The chunks of Django and Quart are cut where no frame, no line and no character ends.
"""

import asyncio
from collections.abc import AsyncIterator

import fastapi.sse
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import path
from quart import Quart, request
from quart import Response as QuartResponse

from sse_asgi import EventSourceMiddleware, Hub

CHUNKS = (
    *(b"id: 1\nretry: 50\ndata\n\n", b"\xef\xbb\xbfid", b": 2\r", b"\n: comment\r\nevent: x\r\ndata: \xc3"),
    *(b"\xbc\r\n", b"\r", b"\n"),
)


async def chunks(*, endless: bool) -> AsyncIterator[bytes]:
    """Yield the chunks, and then end or wait."""
    for chunk in CHUNKS:
        yield chunk
        await asyncio.sleep(0.01)
    if endless:
        await asyncio.sleep(3600)


async def django_stream(request: HttpRequest) -> StreamingHttpResponse:
    """Answer with a stream, as Django's documentation does it."""
    content = chunks(endless="endless" in request.GET)
    return StreamingHttpResponse(content, content_type="text/event-stream; charset=utf-8")


settings.configure(ROOT_URLCONF=type("urls", (), {"urlpatterns": [path("stream", django_stream)]}), ALLOWED_HOSTS=["*"])
django = get_asgi_application()

quart = Quart("stranger")


@quart.route("/stream", methods=["GET", "POST"])
async def quart_stream() -> QuartResponse:
    """Answer with a stream, as Quart's documentation does it."""
    response = QuartResponse(chunks(endless="endless" in request.args), content_type="text/event-stream")
    response.timeout = None
    return response


app = fastapi.FastAPI()


@app.api_route("/fastapi/stream", methods=["GET", "POST"], response_class=fastapi.sse.EventSourceResponse)
async def fastapi_stream(endless: str | None = None) -> AsyncIterator[fastapi.sse.ServerSentEvent]:
    """Answer with FastAPI's own stream."""
    yield fastapi.sse.ServerSentEvent(id="1", retry=50, data="x")
    if endless is not None:
        await asyncio.sleep(3600)
    yield fastapi.sse.ServerSentEvent(event="x", data={"a": 1})


app.mount("/quart", quart)
app.mount("/django", django)
app.add_middleware(EventSourceMiddleware, hub=Hub())

django_alone = EventSourceMiddleware(django, hub=Hub())
quart_alone = EventSourceMiddleware(quart, hub=Hub())
