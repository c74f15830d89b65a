"""Telemetry: what is scraped is what the clients have counted, spans are short, and hubs leave nothing behind."""

import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
import starlette.routing
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Mount, Route

from sse_asgi import (
    BackendError,
    EventSourceApp,
    EventSourceMiddleware,
    EventSourceResponse,
    Hub,
    HubClosedError,
    MemoryBackend,
    ServerSentEvent,
)
from sse_asgi import telemetry as module
from sse_asgi._log.position import Position
from sse_asgi._servers.shutdown import current_notice
from sse_asgi.telemetry import Telemetry, context_of, traced
from sse_asgi.testing import EventStream, EventStreamClient

pytestmark = pytest.mark.anyio
ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


# An old Starlette does not name the route in the scope, so the streams of its routes have no `http.route`.
ROUTES = pytest.mark.skipif(
    'scope["route"]' not in inspect.getsource(starlette.routing), reason="this Starlette names no route"
)


class Sdk:
    """An SDK with a Prometheus exporter and a list of spans, and a Telemetry."""

    def __init__(self, **options: Any) -> None:
        self.meters = MeterProvider([PrometheusMetricReader(disable_target_info=True)])
        self.tracers = TracerProvider()
        self._exporter = InMemorySpanExporter()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.telemetry = Telemetry(meter_provider=self.meters, tracer_provider=self.tracers, **options)

    def scrape(self) -> dict[str, float]:
        """Return each sample, such as `sse_hub_gaps_total trimmed`, by its name and the values of its labels."""
        families = text_string_to_metric_families(generate_latest().decode())
        samples = [sample for family in families for sample in family.samples]
        own = [one for one in samples if one.name.startswith("sse_")]
        return {" ".join((one.name, *(one.labels[name] for name in labels_of(one)))): one.value for one in own}

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._exporter.get_finished_spans()}

    def traced(self) -> Any:
        return self.tracers.get_tracer("test").start_as_current_span("request")


def labels_of(sample: Sample) -> list[str]:
    return sorted(name for name in sample.labels if not name.startswith("otel_"))


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sdk]:
    """Measure every delivery."""
    monkeypatch.setattr(module, "SAMPLE_SECONDS", 0.0)
    sdk = Sdk()
    yield sdk
    sdk.meters.shutdown()


@pytest.fixture(autouse=True)
async def notice() -> AsyncIterator[None]:
    """Leave the event loop's notice as it was."""
    yield
    current_notice().heard = False


def application(telemetry: Telemetry, hub: Hub | None, *routes: Route | Mount, **options: Any) -> Starlette:
    app = Starlette(routes=[*routes, *([] if hub is None else [Mount("/events", EventSourceApp(hub, channels="*"))])])
    app.add_middleware(EventSourceMiddleware, hub=hub, telemetry=telemetry, **options)
    return app


class Counted:
    """What clients got."""

    def __init__(self) -> None:
        self.events = self.size = 0

    async def read(self, stream: EventStream, count: int) -> None:
        for _ in range(count):
            event = await stream.next_event()
            self.events += 1
            self.size += len(f"id: {event.id}\ndata: {event.data}\n\n")


async def publish(hub: Hub, count: int) -> None:
    """Publish events of which some are sent alone, and others are joined."""
    for number in range(count):
        await hub.publish("a", f"{number:03}")
        if number % 10 == 0:
            await anyio.sleep(0.002)


# Metrics


@ROUTES
@ASYNCIO
async def test_what_is_scraped_is_what_the_clients_counted(sdk: Sdk) -> None:
    """Streams, events, bytes and replays, of readers that come, go and resume under load; also when all is closed."""
    hub, counted, missed = Hub(), Counted(), 0
    last: list[str | None] = [None] * 10
    async with EventStreamClient(application(sdk.telemetry, hub)) as client:
        for _ in range(3):
            async with AsyncExitStack() as stack:
                requests = [client.stream("/events/?channel=a", last_event_id=one) for one in last]
                streams = [await stack.enter_async_context(request) for request in requests]
                async with anyio.create_task_group() as readers:
                    for stream in streams:
                        readers.start_soon(counted.read, stream, missed + 100)
                    await publish(hub, 100)
                now = sdk.scrape()
                assert now["sse_server_active_streams /events subscription"] == now["sse_hub_subscriptions"] == 10
                assert now["sse_backend_up"] == 1
                last = [stream.last_event_id for stream in streams]
            await publish(hub, 50)
            missed = 50
    found = sdk.scrape()
    assert (counted.events, found["sse_hub_events_published_total"]) == (10 * (100 + 150 + 150), 3 * 150)
    assert (found["sse_hub_events_delivered_total"], found["sse_hub_delivery_io_bytes_total"]) == (
        counted.events,
        counted.size,
    )
    assert found["sse_hub_events_replayed_total"] == 2 * 10 * 50
    assert found["sse_server_streams_opened_total /events subscription"] == 30
    assert found["sse_server_stream_duration_seconds_count /events client subscription"] == 30
    assert found["sse_server_active_streams /events subscription"] == found["sse_hub_subscriptions"] == 0
    assert "sse_backend_up" not in found
    measured = found["sse_hub_delivery_duration_seconds_count"]
    assert 0 < found["sse_hub_delivery_duration_seconds_bucket 2.5"] <= measured <= 3 * 150


async def test_slow_readers_gaps_and_drops(sdk: Sdk) -> None:
    """A full buffer, what it drops, what waits in it, and each announced gap by its reason."""
    async with Hub(buffer_size=2, overflow="drop_oldest") as hub:
        with sdk.telemetry.observe(hub):
            async with hub.subscribe("a", position_frames=False) as slow, hub.subscribe("a", last_event_id="?"):
                for _ in range(5):
                    await hub.publish("a", "x")
                waiting = sdk.scrape()
                assert (await anext(slow)).event == "sse.gap"
                found = sdk.scrape()
    assert (waiting["sse_hub_buffer_events"], waiting["sse_hub_overflows_total"]) == (5, 6)
    assert waiting["sse_hub_buffer_size_bytes"] > 4 * len("data: x")
    assert (found["sse_hub_events_dropped_total"], found["sse_hub_gaps_total overflow"]) == (3, 1)
    assert (found["sse_hub_gaps_total malformed"], found["sse_hub_events_delivered_total"]) == (1, 0)


async def test_the_backend(sdk: Sdk) -> None:
    """It is up or down; each return is counted, and so is each failure to publish."""

    class Refusing(MemoryBackend):
        async def publish(self, channels: tuple[str, ...], event: Any, **options: Any) -> Position | None:
            if event.data == "no":
                raise BackendError(event.data)
            return await super().publish(channels, event, **options)

    async with Hub(Refusing()) as hub:
        registry = hub._opened("")
        with sdk.telemetry.observe(hub):
            for _ in range(2):
                registry.state(up=False)
                assert sdk.scrape()["sse_backend_up"] == 0
                registry.state(up=True)
            with pytest.raises(BackendError):
                await hub.publish("a", "no")
            await hub.publish("a", "yes")
            found = sdk.scrape()
    assert (found["sse_backend_up"], found["sse_backend_reconnects_total"]) == (1, 2)
    assert (found["sse_hub_publish_errors_total BackendError"], found["sse_hub_events_published_total"]) == (1, 1)
    assert sdk.scrape()["sse_hub_publish_errors_total BackendError"] == 1


async def test_counters_outlive_hubs(sdk: Sdk) -> None:
    """The sum over the hubs of a process never goes back; a hub that is observed twice counts once."""
    for _ in range(2):
        async with Hub() as one, Hub() as other:
            with sdk.telemetry.observe(one), sdk.telemetry.observe(one), sdk.telemetry.observe(other):
                await one.publish("a", "x")
                await other.publish("a", "x")
    assert sdk.scrape()["sse_hub_events_published_total"] == 4


async def test_a_closed_hub_is_let_go(sdk: Sdk) -> None:
    """After the application has stopped, nothing refers to its hub, and the hub's functions are its own again."""
    hub = Hub()
    async with EventStreamClient(application(sdk.telemetry, hub)):
        registry = hub._opened("")
        assert registry.store != hub.backend.publish
    assert (registry.store, registry.when_sent) == (hub.backend.publish, None)
    assert sdk.telemetry._past.hubs == ()


async def test_a_closed_hub_cannot_be_observed(sdk: Sdk) -> None:
    """The error names the ways to open it."""
    with pytest.raises(HubClosedError, match="cannot be observed"), sdk.telemetry.observe(Hub()):
        pass


async def test_readers_are_counted_by_groups_of_channels(request: pytest.FixtureRequest) -> None:
    """The application names the groups, because there may be many channels."""
    sdk = Sdk(channel_group=lambda name: name.partition(":")[0])
    request.addfinalizer(sdk.meters.shutdown)
    async with Hub() as hub, hub.subscribe("room:1"), hub.subscribe("room:2"), hub.subscribe("news"):
        with sdk.telemetry.observe(hub):
            found = sdk.scrape()
    assert (found["sse_hub_channel_subscriptions room"], found["sse_hub_channel_subscriptions news"]) == (2, 1)


async def test_other_threads_collect_while_readers_come_and_go(sdk: Sdk) -> None:
    """Collecting waits for no event loop, so a provider that is shut down in the loop does not wait for ever."""
    async with Hub() as hub:
        with sdk.telemetry.observe(hub):
            async with hub.subscribe("a"):
                thread = threading.Thread(target=sdk.scrape)
                thread.start()
                thread.join(5)  # blocks the event loop
                assert not thread.is_alive()


# Streams


async def numbers(_: Request) -> EventSourceResponse:
    return EventSourceResponse(iter("ab"))


async def failing(_: Request) -> EventSourceResponse:
    async def items() -> AsyncIterator[str]:
        yield "1"
        raise LookupError

    return EventSourceResponse(items())


async def failing_at_once(_: Request) -> EventSourceResponse:
    async def items() -> AsyncIterator[str]:
        raise LookupError
        yield ""

    return EventSourceResponse(items())


def foreign(*frames: bytes, error: Exception | None = None) -> Any:
    async def endpoint(_: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            for frame in frames:
                yield frame
            if error is not None:
                raise error
            if not frames:
                await anyio.sleep_forever()

        return StreamingResponse(body(), media_type="text/event-stream")

    return endpoint


@ROUTES
@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        (numbers, "finished iterable"),
        (failing, "error iterable"),
        (failing_at_once, "error iterable"),
        (foreign(b"data: x\n\n"), "finished foreign"),
        (foreign(b"data: x\n\n", error=LookupError()), "error foreign"),
        (foreign(b"data: x\n\n", error=OSError()), "client foreign"),
    ],
)
async def test_a_stream_ends_for_a_reason(sdk: Sdk, endpoint: Any, reason: str) -> None:
    """Its time is measured by its route and its kind, and its span ends with its head."""
    app = application(sdk.telemetry, None, Mount("/{tenant}", routes=[Route("/x/{number}", endpoint)]))
    async with EventStreamClient(app) as client:
        try:
            async with client.stream("/t/x/7") as stream:
                await stream.read()
        except (LookupError, OSError, BaseExceptionGroup):
            pass
    found = sdk.scrape()
    assert found[f"sse_server_stream_duration_seconds_count /{{tenant}}/x/{{number}} {reason}"] == 1
    kind = reason.partition(" ")[2]
    assert found[f"sse_server_active_streams /{{tenant}}/x/{{number}} {kind}"] == 0
    assert found[f"sse_server_streams_opened_total /{{tenant}}/x/{{number}} {kind}"] == 1
    span = sdk.spans()["GET /{tenant}/x/{number}"]
    assert span.kind is SpanKind.SERVER
    assert (span.status.status_code is StatusCode.ERROR) == (endpoint is failing_at_once)


@ROUTES
@pytest.mark.parametrize("kind", ["poll", "subscription", "foreign"])
async def test_other_ends(sdk: Sdk, kind: str) -> None:
    """A poll ends by itself; the others end with the server."""
    hub = Hub()
    app = application(sdk.telemetry, hub, Route("/foreign", foreign()))
    async with EventStreamClient(app) as client:
        path = {"poll": "/events/?poll=1", "subscription": "/events/", "foreign": "/foreign"}[kind]
        async with client.stream(path) as stream:
            current_notice().hear()
            await stream.read()
    route, reason = path.partition("?")[0].rstrip("/"), "finished" if kind == "poll" else "shutdown"
    assert sdk.scrape()[f"sse_server_stream_duration_seconds_count {route} {reason} {kind}"] == 1


@ROUTES
async def test_a_refused_stream(sdk: Sdk) -> None:
    """It ends at once, and is not counted as open."""
    app = application(sdk.telemetry, Hub(), Route("/foreign", foreign()), max_connections=1)
    async with EventStreamClient(app) as client, client.stream("/events/"):
        for path in ("/events/", "/foreign"):
            async with client.stream(path) as stream:
                await stream.read()
        found = sdk.scrape()
    for labels in ("/events refused subscription", "/foreign refused foreign"):
        assert found[f"sse_server_stream_duration_seconds_count {labels}"] == 1
    assert found["sse_server_active_streams /events subscription"] == 1


@ROUTES
async def test_a_stream_whose_lifetime_is_over(sdk: Sdk) -> None:
    """Of another library, ended by the middleware."""
    app = application(sdk.telemetry, None, Route("/foreign", foreign()), max_lifetime=0.05)
    async with EventStreamClient(app) as client, client.stream("/foreign") as stream:
        await stream.read()
    assert sdk.scrape()["sse_server_stream_duration_seconds_count /foreign lifetime foreign"] == 1


@ROUTES
async def test_the_middleware_nearest_to_the_stream_observes_it(sdk: Sdk) -> None:
    """Once, if there are several; one without telemetry leaves it to the one around it."""
    inner = application(sdk.telemetry, None, Route("/x", numbers))
    app = Starlette(routes=[Mount("/in", inner)])
    app.add_middleware(EventSourceMiddleware)
    app.add_middleware(EventSourceMiddleware, telemetry=sdk.telemetry)
    async with EventStreamClient(app) as client, client.stream("/in/x") as stream:
        await stream.read()
    outer = Starlette(routes=[Route("/y", numbers)])
    outer.add_middleware(EventSourceMiddleware)
    outer.add_middleware(EventSourceMiddleware, telemetry=sdk.telemetry)
    async with EventStreamClient(outer) as client, client.stream("/y") as stream:
        await stream.read()
    found = sdk.scrape()
    assert found["sse_server_streams_opened_total /in/x iterable"] == 1
    assert found["sse_server_streams_opened_total /y iterable"] == 1


async def test_an_application_without_routes(sdk: Sdk) -> None:
    """A framework that names no route has one label less."""
    app = EventSourceMiddleware(EventSourceResponse(iter("ab")), telemetry=sdk.telemetry)
    async with EventStreamClient(app).stream("/any/7") as stream:
        await stream.read()
    assert sdk.scrape()["sse_server_streams_opened_total iterable"] == 1
    assert "GET" in sdk.spans()


# Spans


@ROUTES
@ASYNCIO
async def test_no_span_is_as_long_as_a_stream(sdk: Sdk) -> None:
    """The span of a stream has ended while the stream is open; its parent is the client's span."""
    async with EventStreamClient(application(sdk.telemetry, Hub())) as client:
        async with client.stream("/events/", headers={"traceparent": TRACEPARENT}):
            span = sdk.spans()["GET /events"]
    assert span.attributes == {
        "http.request.method": "GET",
        "http.route": "/events",
        "sse.stream.kind": "subscription",
    }
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}" in TRACEPARENT


async def test_a_span_within_the_servers_span(sdk: Sdk) -> None:
    """Another instrumentation has the server's span already."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with sdk.traced():
            await EventSourceResponse(iter("a"))(scope, receive, send)

    async with EventStreamClient(EventSourceMiddleware(app, telemetry=sdk.telemetry)).stream("/") as stream:
        await stream.read()
    span = sdk.spans()["open event stream"]
    assert span.kind is SpanKind.INTERNAL
    assert span.parent is not None


async def test_publishing_within_a_trace_has_a_span(sdk: Sdk) -> None:
    """Its name and attributes are those of OpenTelemetry's conventions for messaging."""
    async with Hub() as hub:
        with sdk.telemetry.observe(hub), sdk.traced():
            event_id = await hub.publish(["a", "b"], "x")
    span = sdk.spans()["publish"]
    assert (span.kind, span.parent is not None) == (SpanKind.PRODUCER, True)
    assert span.attributes == {
        "messaging.system": "memory",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "a,b",
        "messaging.message.id": event_id,
    }


async def test_publishing_that_fails_within_a_trace(sdk: Sdk) -> None:
    """The span has the type of the error; without history there is no id."""

    class Failing(MemoryBackend):
        async def publish(self, *_: Any, **__: Any) -> Position | None:
            msg = "away"
            raise BackendError(msg)

    async with Hub(Failing()) as hub, Hub(MemoryBackend(history_size=0)) as other:
        with sdk.telemetry.observe(hub), sdk.telemetry.observe(other), sdk.traced():
            await other.publish("a", "x")
            assert "messaging.message.id" not in (sdk.spans()["publish"].attributes or {})
            with pytest.raises(BackendError):
                await hub.publish("a", "x")
    span = sdk.spans()["publish"]
    assert (span.attributes or {})["error.type"] == "BackendError"
    assert span.status.status_code is StatusCode.ERROR


async def test_publishing_outside_of_a_trace_has_none(sdk: Sdk) -> None:
    """Else each event would be a trace of its own."""
    async with Hub() as hub:
        with sdk.telemetry.observe(hub):
            await hub.publish("a", "x")
    assert sdk.spans() == {}


async def test_an_event_carries_the_trace_where_it_is_asked_for(sdk: Sdk) -> None:
    """It reaches readers in a comment, beside the event's own fields and comment."""
    async with Hub() as hub, hub.subscribe("a", position_frames=False) as reader:
        with sdk.traced() as span:
            await hub.publish("a", traced(ServerSentEvent("x", event="said", retry=1, comment="mine")))
        await hub.publish("a", traced("y"))
        event, plain = await anext(reader), await anext(reader)
    assert (event.data, event.event, event.retry) == ("x", "said", 1)
    assert (event.comment or "").startswith("mine\ntraceparent: 00-")
    seen = get_current_span(context_of(event)).get_span_context()
    assert (seen.trace_id, seen.span_id) == (span.get_span_context().trace_id, span.get_span_context().span_id)
    assert plain.comment is None
    assert not get_current_span(context_of(plain)).get_span_context().is_valid


# Latency


async def test_the_age_of_an_event_counts(sdk: Sdk) -> None:
    """A backend that carries events between processes knows when an event was published."""

    class Late(MemoryBackend):
        def age(self, position: Position) -> float:
            return 3.0

    async with Hub(Late()) as hub:
        with sdk.telemetry.observe(hub):
            await hub.publish("a", "x")
            found = sdk.scrape()
    assert 3.0 <= found["sse_hub_delivery_duration_seconds_sum"] < 5.0


async def test_deliveries_are_sampled(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy hub measures the first delivery in each hundredth of a second."""
    monkeypatch.setattr(module, "SAMPLE_SECONDS", 60.0)
    async with Hub(MemoryBackend(history_size=0)) as hub:
        with sdk.telemetry.observe(hub):
            for _ in range(3):
                await hub.publish("a", "x")
            assert sdk.scrape()["sse_hub_delivery_duration_seconds_count"] == 1


async def test_without_an_sdk_nothing_happens() -> None:
    """OpenTelemetry's API does nothing by itself, so publishing and delivering do not call it."""
    telemetry, hub = Telemetry(), Hub()
    app = application(telemetry, hub)
    async with EventStreamClient(app) as client, client.stream("/events/") as stream:
        registry = hub._opened("")
        assert (registry.store, registry.when_sent) == (hub.backend.publish, None)
        await hub.publish("default", traced("x"))
        assert (await stream.next_event()).data == "x"
        assert b"traceparent" not in stream.content


async def test_runs_are_counted_by_their_ends(sdk: Sdk) -> None:
    """Those that this process produces; the ends of a hub that was closed are kept."""
    go_on = anyio.Event()

    async def source() -> AsyncIterator[str]:
        yield "1"
        await go_on.wait()

    def failing() -> Iterator[str]:
        yield "1"
        raise LookupError

    async with Hub() as hub:
        with sdk.telemetry.observe(hub):
            running = await hub.start_run("a", source)
            assert await (await hub.start_run("b", failing)).wait() == "failed"
            found = sdk.scrape()
            assert (found["sse_hub_runs"], found["sse_hub_runs_ended_total failed"]) == (1, 1)
            go_on.set()
            await running.wait()
            assert sdk.scrape()["sse_hub_runs"] == 0
    found = sdk.scrape()
    assert (found["sse_hub_runs_ended_total finished"], found["sse_hub_runs_ended_total lost"]) == (1, 0)
