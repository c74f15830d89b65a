"""A hub that is created when its module is imported; `gunicorn --preload` imports it before it forks the workers."""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from sse_asgi import EventSourceMiddleware, Hub

hub = Hub()


async def publish(_: Request) -> JSONResponse:
    return JSONResponse({"process": os.getpid(), "id": await hub.publish("a", "x")})


app = EventSourceMiddleware(Starlette(routes=[Route("/publish", publish)]), hub=hub)
