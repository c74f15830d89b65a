"""A report that takes a minute, with a progress bar for everybody who opens the page. Started twice, it is made once.

    python examples/progress/progress.py    # or in examples/progress/: uvicorn progress:app

The page at / reads with the package's client, and the one at /htmx is written with htmx. On Redis, a process that is
not a web server can make the report as well: worker.py.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sse_asgi import EventSourceMiddleware, EventSourceResponse, ServerSentEvent, create_hub, get_hub

KEY = "report:sales"  # names the report, so everybody who starts it gets the same one
KEPT_SECONDS = 30.0  # after its end; then it can be made again
STEPS, STEP_SECONDS = 60, float(os.environ.get("STEP_SECONDS", "1"))
HERE = Path(__file__).parent


def report() -> Iterator[ServerSentEvent]:
    """Make the report, and say after each step how far it is: as data, and as HTML for htmx.

    It may block, because a generator that is not async runs in a thread of its own.
    """
    for done in range(STEPS + 1):
        yield ServerSentEvent({"done": done, "of": STEPS}, event="progress")
        yield ServerSentEvent(f'<progress max="{STEPS}" value="{done}"></progress><p>{done} of {STEPS} shops</p>')
        time.sleep(STEP_SECONDS if done < STEPS else 0)


async def start(request: Request) -> Response:
    """Start the report, unless it has started. The page of htmx takes the answer, which reads the stream."""
    run = await get_hub(request).start_run(KEY, report, ttl=KEPT_SECONDS)
    if "hx-request" in request.headers:
        return HTMLResponse((HERE / "reading.html").read_text(), 202)
    return JSONResponse({"started": run.started}, 202)


async def events(request: Request) -> Response:
    """Stream the progress from the start, or behind the Last-Event-ID.

    If there is no report, the status is 204. Both pages then ask again after a while.
    """
    run = await get_hub(request).get_run(KEY)
    return Response(status_code=204) if run is None else EventSourceResponse(run)


async def cancel(request: Request) -> Response:
    """Stop the report, in whatever process it is made: a generator in a thread stops at its next `yield`."""
    return JSONResponse({"cancelled": await get_hub(request).cancel_run(KEY)})


async def page(request: Request) -> Response:
    """Send one of the pages."""
    return FileResponse(HERE / ("htmx.html" if request.url.path.endswith("htmx") else "index.html"))


app = Starlette(
    routes=[
        Route("/", page),
        Route("/htmx", page),
        Route("/report", start, methods=["POST"]),
        Route("/report/events", events),
        Route("/report/cancel", cancel, methods=["POST"]),
        Mount("/client", StaticFiles(packages=[("sse_asgi", "client")])),  # sse-asgi.js, with which the page reads
    ],
    middleware=[Middleware(EventSourceMiddleware, hub=create_hub())],
)

if __name__ == "__main__":
    uvicorn.run(app)
