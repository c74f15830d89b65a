"""A chat that is watched: metrics for Prometheus, traces, logs as JSON, and probes for Kubernetes.

Each worker serves its metrics on a port of its own, the first free one from METRICS_PORT on. Run it as
`SSE_BACKEND_URL=redis://localhost uvicorn observed_chat:app --workers 4`. The board and the alerts are beside it.
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path as File
from typing import Annotated
from wsgiref.simple_server import WSGIServer

import structlog
from fastapi import Depends, FastAPI, Path
from fastapi.responses import FileResponse
from opentelemetry import metrics, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import start_http_server

from sse_asgi import EventSourceMiddleware, EventSourceResponse, HealthApp, Hub, create_hub, get_hub
from sse_asgi.telemetry import Telemetry, traced

METRICS_PORT = int(os.environ.get("METRICS_PORT", "9464"))
WORKERS = 64  # the most ports that are tried

TheHub = Annotated[Hub, Depends(get_hub)]
Room = Annotated[str, Path(pattern=r"^[\w-]{1,64}$")]


def log_as_json() -> None:
    """Write every line of the log as JSON, with its `extra=` fields, such as sse_event and sse_route."""
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def serve_metrics() -> WSGIServer:
    """Serve this worker's metrics on the first free port."""
    for port in range(METRICS_PORT, METRICS_PORT + WORKERS):
        with suppress(OSError):  # another worker has it
            server, _ = start_http_server(port)
            return server
    msg = f"no port is free from {METRICS_PORT} to {METRICS_PORT + WORKERS - 1}: set METRICS_PORT"
    raise OSError(msg)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Serve the metrics while the application runs, and while its streams drain."""
    server = serve_metrics()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


log_as_json()
# Each worker imports this file, so that each has providers of its own. Add your span processor to the second one.
metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))
trace.set_tracer_provider(TracerProvider())

hub = create_hub()
app = FastAPI(title="Observed chat", lifespan=lifespan)
app.mount("/health", HealthApp(hub))
app.add_middleware(
    EventSourceMiddleware, hub=hub, telemetry=Telemetry(channel_group=lambda name: name.partition(":")[0])
)


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Send the page."""
    return FileResponse(File(__file__).with_name("index.html"))


@app.get("/rooms/{room}/events")
async def events(room: Room, hub: TheHub) -> EventSourceResponse:
    """Stream a room."""
    return EventSourceResponse(hub.subscribe(f"room:{room}"))


@app.post("/rooms/{room}")
async def say(room: Room, text: str, hub: TheHub) -> str | None:
    """Publish a message, with the context of the request's trace, if it has one."""
    return await hub.publish(f"room:{room}", traced({"text": text}))
