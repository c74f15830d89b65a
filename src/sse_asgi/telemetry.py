"""Metrics and traces of hubs and event streams, by OpenTelemetry: the one module that imports it.

A hub counts in plain numbers, and its registry and the guards of the middleware know what is open. OpenTelemetry reads
these when it collects, so an event costs no call of OpenTelemetry for each reader. Two histograms and the spans are
recorded directly: the end of a stream, at most a hundred deliveries a second, a stream that opens, and an event that is
published within a trace. No span is as long as a stream.

The names follow OpenTelemetry's semantic conventions: `http.route`, `error.type` and `messaging.*` are theirs, and
`sse.*` stands for what they have no name for.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Generic, NamedTuple, TypeVar

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Histogram, MeterProvider, Observation
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from ._hub.delivery import Delivery
from ._hub.hub import Hub
from ._hub.registry import Registry, Store
from ._hub.stats import Stats, Tally
from ._log.event import ServerSentEvent, as_event
from ._log.logged import route_of
from ._log.position import Position

SAMPLE_SECONDS = 0.01  # between two measurements of a hub's deliveries
SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]
LIFETIMES = [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 14400.0]

Labels = tuple[tuple[str, str], ...]
Found = Callable[[CallbackOptions], Iterable[Observation]]
T = TypeVar("T")


class Metric(NamedTuple, Generic[T]):
    """A number of a hub that OpenTelemetry reads."""

    name: str
    unit: str
    description: str
    read: Callable[[T], int]


# Reported as 0 from the beginning, so that a query sees the first one as an increase.
GAP_REASONS = dict.fromkeys(("trimmed", "expired", "evicted", "epoch", "fork", "malformed", "overflow"))
ERRORS = dict.fromkeys(("BackendError", "PublishUnknownError"))
RUN_STATES = dict.fromkeys(("finished", "failed", "cancelled", "lost"))
# A counter never goes back, even if its hub is closed.
COUNTERS: tuple[Metric[Tally], ...] = (
    Metric("sse.hub.events.published", "{event}", "Events that were published", lambda tally: tally.published),
    Metric("sse.hub.events.unpublished", "{event}", "Events that publish_soon lost", lambda tally: tally.unpublished),
    Metric("sse.hub.events.delivered", "{event}", "Events that readers were given", lambda tally: tally.delivered),
    Metric("sse.hub.events.replayed", "{event}", "Events that were read from history", lambda tally: tally.replayed),
    Metric("sse.hub.events.dropped", "{event}", "Events that slow readers lost", lambda tally: tally.drops),
    Metric("sse.hub.delivery.io", "By", "Bytes of the delivered events", lambda tally: tally.size),
    Metric("sse.hub.overflows", "{overflow}", "Full buffers of slow readers", lambda tally: tally.overflows),
    Metric("sse.backend.reconnects", "{reconnect}", "Ends of the backend's outages", lambda tally: tally.reconnects),
)
GAUGES: tuple[Metric[Stats], ...] = (
    Metric("sse.hub.subscriptions", "{subscription}", "Open subscriptions", lambda stats: stats.connections),
    Metric("sse.hub.buffer.events", "{event}", "Events that wait for readers", lambda stats: stats.buffered_events),
    Metric("sse.hub.buffer.size", "By", "Bytes that wait for readers", lambda stats: stats.buffered_bytes),
)


class _Past(NamedTuple):
    """The hubs that are open, and the counters of those that were closed. Replaced in one step, for other threads."""

    hubs: tuple["_ObservedHub", ...]
    counted: Counter[str]
    gaps: Counter[str]
    errors: Counter[str]
    runs: Counter[str]


class Telemetry:
    """The metrics and traces of one process: `EventSourceMiddleware(..., hub=hub, telemetry=Telemetry())`.

    Make one for each MeterProvider, in the process that serves: after a fork, and not before.
    """

    def __init__(
        self,
        *,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
        channel_group: Callable[[str], str] | None = None,
    ) -> None:
        """Create the instruments.

        Args:
            meter_provider: Collects the metrics; None is OpenTelemetry's global provider, which does nothing without
                its SDK.
            tracer_provider: Takes the spans; None is the global provider.
            channel_group: A plain function of a channel's name that returns the group of channels to count its readers
                in, such as `room` for `room:7`. There must be few groups. None counts readers without channels.
        """
        own = version("sse-asgi")
        meter = metrics.get_meter("sse_asgi", own, meter_provider)
        self._tracer = trace.get_tracer("sse_asgi", own, tracer_provider)
        self._providers = meter_provider, tracer_provider
        self._channel_group = channel_group
        self._past = _Past((), Counter(), Counter(), Counter(), Counter())
        self._open: dict[_ObservedStream, None] = {}
        self._opened: Counter[Labels] = Counter()
        self._lifetime = meter.create_histogram(
            "sse.server.stream.duration",
            unit="s",
            description="Time from the opening of a stream to its end",
            explicit_bucket_boundaries_advisory=LIFETIMES,
        )
        self._latency = meter.create_histogram(
            "sse.hub.delivery.duration",
            unit="s",
            description="Time from publishing an event to its last send in this process; at most 100 samples a second",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._observe(meter)

    def _observe(self, meter: metrics.Meter) -> None:
        counter, gauge = meter.create_observable_counter, meter.create_observable_up_down_counter
        for one in COUNTERS:
            counter(one.name, [self._total(one)], one.unit, one.description)
        for number in GAUGES:
            gauge(number.name, [self._now(number)], number.unit, number.description)
        gaps = self._counted("gaps", "sse.gap.reason", GAP_REASONS)
        counter("sse.hub.gaps", [gaps], "{gap}", "Gaps that were announced to readers")
        errors = self._counted("errors", "error.type", ERRORS)
        counter("sse.hub.publish.errors", [errors], "{error}", "Calls of publish that failed")
        gauge("sse.hub.runs", [self._runs], "{run}", "Runs that this process produces")
        ended = self._counted("runs", "sse.run.state", RUN_STATES)
        counter("sse.hub.runs.ended", [ended], "{run}", "Runs of this process that have ended")
        counter("sse.server.streams.opened", [self._streams_opened], "{stream}", "Event streams that were opened")
        gauge("sse.server.active_streams", [self._streams_open], "{stream}", "Event streams that are open")
        if self._channel_group is not None:
            gauge("sse.hub.channel.subscriptions", [self._readers], "{subscription}", "Open subscriptions by channel")
        meter.create_observable_gauge("sse.backend.up", [self._up], "", "1 if the backend can be reached, else 0")

    # What the middleware and scripts call

    @contextmanager
    def observe(self, hub: Hub) -> Iterator[None]:
        """Observe an open hub inside the block. The middleware does this by itself for its own hub.

        Raises:
            HubClosedError: The hub is not open.
        """
        registry = hub._opened("cannot be observed")  # noqa: SLF001 - one library
        if any(one.registry is registry for one in self._past.hubs):
            yield
            return
        meters, tracers = self._providers
        observed = _ObservedHub(hub, registry, self._tracer, self._latency)
        observed.start(
            measures=_is_real(meters or metrics.get_meter_provider()),
            traces=_is_real(tracers or trace.get_tracer_provider()),
        )
        self._past = self._past._replace(hubs=(*self._past.hubs, observed))
        try:
            yield
        finally:
            observed.stop()
            self._forget(observed)

    def _forget(self, hub: "_ObservedHub") -> None:
        """Keep what a hub has counted, and let go of the hub."""
        tally, past = hub.registry.tally, self._past
        self._past = _Past(
            tuple(one for one in past.hubs if one is not hub),
            past.counted + Counter({one.name: one.read(tally) for one in COUNTERS}),
            past.gaps + tally.gaps,
            past.errors + tally.errors,
            past.runs + tally.runs,
        )

    def opened(self, scope: Scope, kind: str) -> "_ObservedStream":
        """Observe a stream; the middleware calls this."""
        return _ObservedStream(self._open, self._opened, self._lifetime, self._tracer, (scope, kind))

    # What OpenTelemetry asks when it collects, in any thread

    def _total(self, metric: Metric[Tally]) -> Found:
        def read(_: CallbackOptions) -> Iterable[Observation]:
            past = self._past
            return [Observation(past.counted[metric.name] + sum(metric.read(one.registry.tally) for one in past.hubs))]

        return read

    def _now(self, metric: Metric[Stats]) -> Found:
        return lambda _: [Observation(sum(metric.read(one.registry.stats()) for one in self._past.hubs))]

    def _counted(self, field: str, label: str, known: dict[str, None]) -> Found:
        """Return a reader of a Counter of the Tally; the known values of its label are reported from the beginning."""

        def read(_: CallbackOptions) -> Iterable[Observation]:
            past = self._past
            counts: Counter[str] = getattr(past, field).copy()
            for one in past.hubs:
                counts.update(getattr(one.registry.tally, field).copy())
            return [Observation(counts[value], {label: value}) for value in {**known, **counts}]

        return read

    def _runs(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(sum(one.runs.running for one in self._past.hubs))]

    def _up(self, _: CallbackOptions) -> Iterable[Observation]:
        hubs = self._past.hubs
        return [Observation(int(all(one.registry.up for one in hubs)))] if hubs else []

    def _readers(self, _: CallbackOptions) -> Iterable[Observation]:
        groups: Counter[str] = Counter()
        assert self._channel_group is not None
        for hub in self._past.hubs:
            for name, count in hub.registry.stats().channels.items():
                groups[self._channel_group(name)] += count
        return [Observation(count, {"sse.channel.group": group}) for group, count in groups.items()]

    def _streams_opened(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(count, dict(labels)) for labels, count in self._opened.copy().items()]

    def _streams_open(self, _: CallbackOptions) -> Iterable[Observation]:
        opened = self._opened.copy()  # a kind of stream of which none is open now is reported as 0
        open_now = Counter(stream.labels for stream in self._open.copy())
        return [Observation(open_now[labels], dict(labels)) for labels in opened]


class _ObservedHub:
    """Measures the deliveries of one open hub, and its calls of publish."""

    def __init__(self, hub: Hub, registry: Registry, tracer: Tracer, latency: Histogram) -> None:
        self.registry = registry
        self.runs = hub._runs  # noqa: SLF001 - one library
        self._backend = hub.backend
        self._system = type(hub.backend).__name__.removesuffix("Backend").lower()
        self._tracer = tracer
        self._latency = latency
        self._store: Store = registry.store
        self._measured = 0.0

    def start(self, *, measures: bool, traces: bool) -> None:
        """Ask for the deliveries, and for the calls of publish."""
        if measures:
            self.registry.when_sent = self._when_sent
        if traces:
            self.registry.store = self._publish

    def stop(self) -> None:
        self.registry.store = self._store
        self.registry.when_sent = None

    def _when_sent(self, delivery: Delivery) -> Callable[[float], None] | None:
        began = delivery.now
        if began < self._measured + SAMPLE_SECONDS:
            return None
        self._measured = began
        position = delivery.position
        age = 0.0 if position is None else self._backend.age(position)
        return lambda ended: self._latency.record(age + ended - began)

    async def _publish(self, channels: tuple[str, ...], event: Any, **options: str | None) -> Position | None:
        if not trace.get_current_span().is_recording():  # outside of a trace, each event would be a trace of its own
            return await self._store(channels, event, **options)
        span = self._span(channels)
        try:
            position = await self._store(channels, event, **options)
        except Exception as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR, str(error)))
            raise
        else:
            if position is not None:
                span.set_attribute("messaging.message.id", str(position))
            return position
        finally:
            span.end()

    def _span(self, channels: tuple[str, ...]) -> Span:
        return self._tracer.start_span(
            "publish",
            kind=SpanKind.PRODUCER,
            attributes={
                "messaging.system": self._system,
                "messaging.operation.name": "publish",
                "messaging.operation.type": "send",
                "messaging.destination.name": ",".join(channels),
            },
        )


def _is_real(provider: MeterProvider | TracerProvider) -> bool:
    """Return False for the providers of OpenTelemetry's API, which do nothing."""
    return not type(provider).__module__.startswith(("opentelemetry.metrics", "opentelemetry.trace"))


class _ObservedStream:
    """One stream of the application, with the span of its beginning."""

    __slots__ = ("_began", "_lifetime", "_open", "_span", "labels")

    def __init__(
        self,
        open_streams: "dict[_ObservedStream, None]",
        opened: Counter[Labels],
        lifetime: Histogram,
        tracer: Tracer,
        request: tuple[Scope, str],
    ) -> None:
        scope, kind = request
        route = route_of(scope)
        named = () if route is None else (("http.route", route),)
        self.labels: Labels = (*named, ("sse.stream.kind", kind))
        self._open = open_streams
        self._lifetime = lifetime
        self._began = time.monotonic()
        self._span: Span | None = _connect_span(tracer, scope, route, dict(self.labels))
        open_streams[self] = None
        opened[self.labels] += 1

    def started(self) -> None:
        """End the span of connecting, because the head is sent."""
        span, self._span = self._span, None
        if span is not None:
            span.end()

    def ended(self, reason: str) -> None:
        """Count the end of the stream."""
        if self._span is not None and reason == "error":
            self._span.set_status(Status(StatusCode.ERROR))
        self.started()
        del self._open[self]
        self._lifetime.record(time.monotonic() - self._began, {**dict(self.labels), "sse.stream.end_reason": reason})


def _connect_span(tracer: Tracer, scope: Scope, route: str | None, labels: dict[str, str]) -> Span:
    """Return the span of a stream's beginning, which ends when the head is sent.

    It is the request's server span, unless another instrumentation has one already.
    """
    method = scope["method"]
    attributes = {"http.request.method": method, **labels}
    if trace.get_current_span().get_span_context().is_valid:
        return tracer.start_span("open event stream", attributes=attributes)
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    name = method if route is None else f"{method} {route}"
    return tracer.start_span(
        name, TraceContextTextMapPropagator().extract(headers), SpanKind.SERVER, attributes=attributes
    )


def traced(data: Any) -> ServerSentEvent:
    """Make an event that carries the current trace context.

    For example, `await hub.publish("news", traced({"text": "hello"}))`. The context travels in comments, which
    `context_of` reads and browsers ignore. Every reader can see its ids.

    Args:
        data: A ServerSentEvent, or anything that one takes as data.
    """
    event = as_event(data)
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    comment = "\n".join([*filter(None, [event.comment]), *(f"{name}: {value}" for name, value in carrier.items())])
    return ServerSentEvent(event.data, event=event.event, id=event.id, retry=event.retry, comment=comment or None)


def context_of(event: ServerSentEvent) -> Context:
    """Return the trace context that an event carries, to continue its trace or to link to it; else an empty one."""
    lines = (event.comment or "").split("\n")
    carrier = {name: value for name, colon, value in (line.partition(": ") for line in lines) if colon}
    return TraceContextTextMapPropagator().extract(carrier, Context())
