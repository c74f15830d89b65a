"""The peers of a proxy test: nginx or HAProxy as a process, the application as another one, and a client."""

import http.client
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import zlib
from contextlib import closing
from pathlib import Path
from typing import Self

from browser.peers import free_port, until
from servers.processes import PATIENCE, Server

TESTS = Path(__file__).parents[1]
DOCUMENT = TESTS.parent / "docs" / "proxies.md"
NGINX, HAPROXY = (shutil.which(one, path=f"{os.environ['PATH']}:/usr/sbin") or one for one in ("nginx", "haproxy"))

# Options of the server, and of the location. By default nginx speaks HTTP/1.0 to the upstream, and buffers.
CONFIGURATIONS = {
    "default": ("", ""),
    "buffering": ("", "proxy_buffering on;"),
    "keep-alive": ("", 'proxy_http_version 1.1; proxy_set_header Connection "";'),
    "gzip": ("gzip on; gzip_types text/event-stream;", ""),
}
# They differ with HTTP/1.0: h11 ends a body with the connection, as the standard says, and httptools sends chunks.
UPSTREAMS = ("httptools", "h11")

CONFIGURATION = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr crit;
events {{ }}
http {{
    log_format statuses "$status $upstream_status";
    access_log access.log statuses;
    client_body_temp_path temp;
    proxy_temp_path temp;
    fastcgi_temp_path temp;
    uwsgi_temp_path temp;
    scgi_temp_path temp;
    {options}
    upstream app {{
        server 127.0.0.1:{upstream};
        keepalive 8;
    }}
    server {{
        listen 127.0.0.1:{port} {listen};
        {locations}
    }}
}}
"""


def documented(upstream: int) -> dict[str, str]:
    """Return the configuration for nginx in docs/proxies.md, with the address of a test's upstream."""
    options, locations = re.findall(r"```nginx\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return {"options": options, "locations": locations.replace("127.0.0.1:8000", f"127.0.0.1:{upstream}")}


def documented_haproxy(upstream: int, *, without: str = "#") -> str:
    """Return the configuration for HAProxy in docs/proxies.md, with a test's upstream, and without matching lines."""
    (text,) = re.findall(r"```haproxy\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    kept = "".join(line for line in text.splitlines(keepends=True) if without not in line)
    return kept.replace("127.0.0.1:8000", f"127.0.0.1:{upstream}")


def for_every_path(upstream: int, *, without: str = "#") -> str:
    """Return the same, used for every path."""
    return documented_haproxy(upstream, without=without).replace("path_beg /events/", "path_beg /")


def location(*options: str) -> str:
    """Return a location that passes every request to the upstream, with these options."""
    return " ".join(("location / {", "proxy_pass http://app;", *options, "}"))


class Proxy:
    """A proxy with a configuration of its own."""

    port: int
    configuration: str

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: list[subprocess.Popen[str]] = []

    def command(self, file: Path) -> list[str]:
        raise NotImplementedError

    def start(self, *options: str) -> None:
        """Start a process, in addition to those that run."""
        self.directory.mkdir(exist_ok=True)
        file = self.directory / "proxy.conf"
        file.write_text(self.configuration)
        command = [*self.command(file), *options]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        until(lambda: process.poll() is not None or self._accepts())
        assert process.poll() is None, process.communicate()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), PATIENCE).close()
        except OSError:
            return False
        return True

    def __exit__(self, *exc_info: object) -> None:
        """Stop."""
        for process in self.processes:
            process.kill()
            process.communicate()

    def get(self, path: str, **headers: str) -> "Reader":
        return Reader(self.port, path, headers)


class Nginx(Proxy):
    """A process of nginx."""

    def __init__(self, directory: Path, upstream: int, *, locations: str, options: str = "", listen: str = "") -> None:
        super().__init__(directory)
        self.port = free_port()
        self.log = directory / "access.log"
        self.configuration = CONFIGURATION.format(
            port=self.port, upstream=upstream, locations=locations, options=options, listen=listen
        )

    def command(self, file: Path) -> list[str]:
        return [NGINX, "-p", str(self.directory), "-c", str(file)]


class Haproxy(Proxy):
    """A process of HAProxy. After a reload there is another one, which listens at the same port."""

    def __init__(self, directory: Path, configuration: str, *, bind: str = "") -> None:
        super().__init__(directory)
        self.port = free_port()
        self.configuration = re.sub(r"bind .*", f"bind 127.0.0.1:{self.port} {bind}", configuration)

    def command(self, file: Path) -> list[str]:
        return [HAPROXY, "-db", "-q", "-f", str(file)]

    def reload(self) -> None:
        """Start a process that takes over, and lets the earlier process finish its connections."""
        self.start("-sf", str(self.processes[-1].pid))


class Reader:
    """One response: its head, then its pieces as they arrive, decompressed if necessary."""

    def __init__(self, port: int, path: str, headers: dict[str, str]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._connection.request(
            "GET", path, headers={"Accept": "text/event-stream", "Cache-Control": "no-cache", **headers}
        )
        try:
            self._response = self._connection.getresponse()
        except TimeoutError:
            self._connection.close()
            raise
        self.status = self._response.status
        self.headers = self._response.headers
        unzip = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._decode = unzip.decompress if self.headers["Content-Encoding"] == "gzip" else bytes
        self.content = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Disconnect."""
        self._response.close()
        self._connection.close()

    def until(self, part: bytes) -> float:
        """Read until these bytes have arrived; return the time of that."""
        while part not in self.content:
            piece = self._response.read1()
            assert piece, self.content
            self.content += self._decode(piece)
        return time.monotonic()

    def rest(self) -> bytes:
        """Read to the end; a body that is cut off raises http.client.IncompleteRead."""
        while piece := self._response.read1():
            self.content += self._decode(piece)
        return self.content


def new_certificate(directory: Path) -> tuple[Path, Path]:
    """Return the files of a key and of a certificate that it signs itself."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run([*request, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return key, certificate


def start_app(*options: str, port: int | None = None, app: str = "proxies.app:app", **environment: str) -> Server:
    """Start uvicorn on an application of this folder."""
    port = port or free_port()
    command = (sys.executable, "-m", "uvicorn", app, "--app-dir", str(TESTS), "--log-level", "warning")
    server = Server([*command, "--port", str(port), *options], port, environment)
    server.wait_until_it_answers()
    return server


def publish(port: int, data: object) -> bool:
    """Publish; return True if the application has confirmed it."""
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
            connection.request("POST", f"/publish?data={data}")
            with connection.getresponse() as response:
                return response.status == 200 and bool(response.read())
    except (OSError, http.client.HTTPException):
        return False
