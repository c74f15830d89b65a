"""`sse-asgi doctor` finds each fault of a real nginx, of a real HAProxy, and of a proxy that is wrong on purpose."""

import asyncio
import re
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest

from cli.scripted import Answer, Asked, Scripted
from proxies.conftest import Start
from proxies.peers import (
    Haproxy,
    Nginx,
    documented,
    documented_haproxy,
    for_every_path,
    location,
    new_certificate,
    start_app,
)
from proxies.wrong import Fault, proxy, without
from servers.processes import Server
from sse_asgi._cli.doctor import Examination, Plan, Report
from sse_asgi._cli.request import StreamRequest

PLAIN = "without TLS a browser opens six connections to a host for all tabs together"
CORS = "CORS was not tried: give --origin https://your.page if pages of other origins read it"
PINGED = "/idle?name=doctor&ping=0.2"
SHORT = 1.1  # enough for what the head shows
IGNORED = "proxy_ignore_headers X-Accel-Buffering;"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Server]:
    server = start_app()
    yield server
    server.kill()


def examine(url: str, direct: str | None = None, *, wait: float = 1.8, **options: str | None) -> Report:
    request = StreamRequest.of(url, insecure=True)
    plan = Plan(request, None if direct is None else StreamRequest.of(direct), wait, **options)
    return anyio.run(Examination(plan).run)


def codes(report: Report) -> list[str]:
    return [one.code for one in report.findings]


def where(report: Report) -> str:
    (finding,) = report.findings
    return finding.where


def local(port: int, path: str, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{port}{path}"


def publishing(port: int) -> str:
    return f"curl -sf -X POST http://127.0.0.1:{port}/publish?data=hello"


# nginx


def test_nginx_buffers(start: Start, tmp_path: Path) -> None:
    """It is told not to obey X-Accel-Buffering, and waits for the end of an answer by HTTP/1.0. The hop is named."""
    port = start("--http", "h11").port
    with Nginx(tmp_path, port, locations=location(IGNORED)) as nginx:
        url, direct = local(nginx.port, PINGED), local(port, PINGED)
        report = examine(url, direct)
    assert codes(report) in (["head-held"], ["buffering"])
    assert where(report) == f"between {direct} and {url}"


def test_nginx_buffers_what_it_compresses(upstream: Server, tmp_path: Path) -> None:
    """Without gzip the same stream passes."""
    options = "gzip on; gzip_types text/event-stream;"
    with Nginx(tmp_path, upstream.port, locations=location(IGNORED), options=options) as nginx:
        report = examine(local(nginx.port, PINGED), local(upstream.port, PINGED))
    assert codes(report) == ["buffering-gzip"]
    assert "in the proxy" in report.findings[0].fix


def test_nginx_cuts_an_idle_stream(upstream: Server, tmp_path: Path) -> None:
    """The stream without pings is open at the direct URL."""
    path = "/idle?name=silent&ping=1.5"
    with Nginx(tmp_path, upstream.port, locations=location("proxy_read_timeout 1s;")) as nginx:
        url, direct = local(nginx.port, path), local(upstream.port, path)
        report = examine(url, direct, wait=2.2)
    assert codes(report)[-1] == "idle-cut"
    assert report.findings[-1].where == f"between {direct} and {url}"
    silence = re.search(r"after (\d\.\d) s in which nothing was sent", report.findings[-1].problem)
    assert silence
    # nginx's second begins when nginx reads the last byte; the examination's clock begins when its own read returns.
    assert 0.5 <= float(silence[1]) < 1.5


@pytest.mark.parametrize(("listen", "expected"), [("ssl", ["http-version"]), ("ssl http2", [])])
def test_nginx_with_tls_but_without_http_2(upstream: Server, tmp_path: Path, listen: str, expected: list[str]) -> None:
    """A browser has six connections then; with HTTP/2 nothing is found."""
    key, certificate = new_certificate(tmp_path)
    options = f"ssl_certificate {certificate}; ssl_certificate_key {key};"
    with Nginx(tmp_path, upstream.port, locations=location(), options=options, listen=listen) as nginx:
        report = examine(local(nginx.port, PINGED, "https"), local(upstream.port, PINGED), wait=1.2)
    assert codes(report) == expected


# HAProxy


def test_haproxy_delays_each_event(upstream: Server, tmp_path: Path) -> None:
    """Without `option http-no-delay`, by 205 ms."""
    with Haproxy(tmp_path, for_every_path(upstream.port, without="http-no-delay")) as haproxy:
        url, direct = local(haproxy.port, "/events/"), local(upstream.port, "/events/")
        report = examine(url, direct, wait=2.5, publish=publishing(upstream.port))
    assert codes(report) == ["late"]
    assert "option http-no-delay" in report.findings[0].fix


def test_haproxy_cuts_an_idle_stream(upstream: Server, tmp_path: Path) -> None:
    """After `timeout server`."""
    short = re.sub(r"timeout (client|server) .*", r"timeout \1 1s", for_every_path(upstream.port))
    with Haproxy(tmp_path, short) as haproxy:
        report = examine(local(haproxy.port, "/idle?name=silent&ping=1.5"), wait=2.2)
    assert codes(report) == ["idle-cut"]


# Restarts


def restarting(server: Server, start: Start, number: int = signal.SIGTERM) -> AbstractContextManager[Scripted]:
    """Return a server that restarts the upstream when it is asked to."""

    def restart() -> None:
        server.stop(number)
        start()

    async def script(asked: Asked, answer: Answer) -> None:
        await asyncio.to_thread(restart)
        await answer.refuse("200 OK")

    return Scripted(script)


@pytest.mark.parametrize("kind", ["nginx", "HAProxy"])
def test_a_proxy_says_502_or_503_while_the_application_restarts(
    start: Start, port: int, tmp_path: Path, kind: str
) -> None:
    """EventSource gives up. That is what the documented configurations are for."""
    server = start()
    proxy = (
        Nginx(tmp_path, port, locations=location())
        if kind == "nginx"
        else Haproxy(
            tmp_path,
            for_every_path(port, without="http-error").replace(
                "timeout connect 5s", "timeout connect 50ms\n    retries 0"
            ),
        )
    )
    with proxy, restarting(server, start) as control:
        report = examine(local(proxy.port, "/events/"), wait=1.2, restart=f"curl -sf {control.url}")
    assert codes(report) == ["restart-status"]
    assert ("502" if kind == "nginx" else "503") in report.findings[0].problem


@pytest.mark.parametrize("kind", ["nginx", "HAProxy"])
def test_the_documented_configuration_has_no_fault(start: Start, port: int, tmp_path: Path, kind: str) -> None:
    """In every respect: buffering, resuming, and a restart."""
    server = start()
    proxy = (
        Nginx(tmp_path, port, **documented(port)) if kind == "nginx" else Haproxy(tmp_path, documented_haproxy(port))
    )
    with proxy, restarting(server, start) as control:
        report = examine(
            local(proxy.port, "/events/"),
            local(port, "/events/"),
            publish=publishing(port),
            restart=f"curl -sf {control.url}",
        )
    assert (report.findings, report.notes) == ([], [CORS, PLAIN])


def test_a_killed_server_has_no_farewell(start: Start, port: int) -> None:
    """The stream is cut off in the middle."""
    server = start()
    with restarting(server, start, signal.SIGKILL) as control:
        report = examine(local(port, "/events/"), wait=1.2, restart=f"curl -sf {control.url}")
    assert codes(report) == ["restart-cut"]


# A proxy that is wrong on purpose

FAULTS: dict[str, tuple[Fault, dict[str, Any]]] = {
    "unreachable": (Fault(limit=0.0), {"wait": SHORT}),
    "head-held": (Fault(hangs="GET"), {"wait": SHORT}),
    "silent": (Fault(), {"path": "/idle?name=silent"}),
    "content-type": (Fault(head=without("content-type", "\r\ncontent-type: text/plain")), {"wait": SHORT}),
    "status": (Fault(head=lambda head: head.replace(b"200 OK", b"503 Service Unavailable")), {"wait": SHORT}),
    "cache-control": (Fault(head=without("cache-control")), {"wait": SHORT}),
    "no-transform": (Fault(head=without("cache-control", "\r\ncache-control: no-cache")), {"wait": SHORT}),
    "x-accel-buffering": (Fault(head=without("x-accel-buffering")), {"wait": SHORT, "direct": None}),
    "buffering": (Fault(lumps=2.0), {}),
    "cut-off": (Fault(limit=1.0), {}),
    "head": (Fault(hangs="HEAD"), {"wait": SHORT}),
    "cors": (Fault(forgets="origin"), {"origin": "https://page.example", "wait": SHORT}),
    "resume": (Fault(forgets="last-event-id"), {"path": "/events/"}),
}


@pytest.mark.parametrize("code", FAULTS)
def test_a_wrong_proxy(upstream: Server, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fault is the only one that is found."""
    monkeypatch.setattr("sse_asgi._cli.probes.PATIENCE", 1.0)
    monkeypatch.setattr("sse_asgi._cli.findings.SILENCE", 0.8)
    fault, options = FAULTS[code][0], {**FAULTS[code][1]}
    path = options.pop("path", PINGED)
    publish = publishing(upstream.port) if path == "/events/" else None
    with Scripted(proxy(upstream.port, fault)) as wrong:
        direct = options.pop("direct", local(upstream.port, path))
        report = examine(local(wrong.port, path), direct, publish=publish, **options)
    assert codes(report) == [code]
    if code in ("head-held", "buffering", "cut-off", "resume"):
        assert where(report) == f"between {direct} and {local(wrong.port, path)}"
