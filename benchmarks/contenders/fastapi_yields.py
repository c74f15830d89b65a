"""Tokens from endpoints of FastAPI: STYLE says what the endpoint does."""

import os
from collections.abc import AsyncIterable

import fastapi.sse
from control import tokens
from fastapi import FastAPI, Request
from pydantic import RootModel

from sse_asgi import EventSourceMiddleware, EventSourceResponse

Text = RootModel[str]
STYLE = os.environ["STYLE"]

app = FastAPI()
app.add_middleware(EventSourceMiddleware)


async def texts(request: Request) -> AsyncIterable[str]:
    async for token in tokens(request.url.query):
        yield token


async def models(request: Request) -> AsyncIterable[Text]:
    async for token in tokens(request.url.query):
        yield Text(token)


async def returned(request: Request) -> EventSourceResponse:
    return EventSourceResponse(generator(request))


generator = models if STYLE.endswith("models") else texts
if STYLE.startswith("returned"):
    app.get("/tokens")(returned)
else:
    kind = fastapi.sse.EventSourceResponse if STYLE.startswith("fastapi") else EventSourceResponse
    app.get("/tokens", response_class=kind)(generator)
