"""aiohttp-sse, as its README shows it, on aiohttp's own server: `on_aiohttp.py PORT`."""

import asyncio
import sys

from aiohttp import web
from aiohttp_sse import sse_response

from strangers.comparison.apps.contents import FLOOD, PART, asked, report, taken


async def refused(request: web.Request) -> web.StreamResponse:
    async with sse_response(request):
        raise web.HTTPPaymentRequired


async def fails(request: web.Request) -> web.StreamResponse:
    async with sse_response(request) as response:
        await response.send("one")
        raise ValueError


async def waits(request: web.Request) -> web.StreamResponse:
    async with sse_response(request) as response:
        await response.send("one")
        try:
            await asyncio.sleep(3600)
        finally:
            report("cleanup begins")
            await asyncio.sleep(0.05)
            report("cleanup ends")
    return response


async def silent(request: web.Request) -> web.StreamResponse:
    async with sse_response(request) as response:
        await asyncio.sleep(3600)
    return response


async def flood(request: web.Request) -> web.StreamResponse:
    async with sse_response(request, send_timeout=1) as response:
        try:
            for _ in range(FLOOD):
                taken.update(events=1)
                await response.send(PART)
        finally:
            report("flood ends")
    return response


async def job(request: web.Request) -> web.StreamResponse:
    async with sse_response(request) as response:
        report("job runs")
        await response.send("done")
    return response


async def one(request: web.Request) -> web.StreamResponse:
    async with sse_response(request) as response:
        await response.send(**asked(request.query_string))
    return response


async def paid(_: web.Request) -> web.StreamResponse:
    raise web.HTTPPaymentRequired


async def count(_: web.Request) -> web.Response:
    return web.Response(text=str(taken["events"]))


application = web.Application()
application.add_routes(
    [
        web.get(f"/{handler.__name__}", handler)
        for handler in (refused, fails, waits, silent, flood, job, one, paid, count)
    ]
)
web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]))
