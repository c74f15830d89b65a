"""What stands before and behind: nginx as a process, the application as one, and a client that reads what comes."""

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
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"

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
    """Return what docs/proxies.md says for nginx, with the address of a test's upstream."""
    options, locations = re.findall(r"```nginx\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return {"options": options, "locations": locations.replace("127.0.0.1:8000", f"127.0.0.1:{upstream}")}


def location(*options: str) -> str:
    """Pass everything on to the upstream, with these options."""
    return " ".join(("location / {", "proxy_pass http://app;", *options, "}"))


class Nginx:
    """One process of nginx with a configuration of its own."""

    def __init__(self, directory: Path, upstream: int, *, locations: str, options: str = "", listen: str = "") -> None:
        self.port = free_port()
        self.log = directory / "access.log"
        self._directory = directory
        self.configuration = CONFIGURATION.format(
            port=self.port, upstream=upstream, locations=locations, options=options, listen=listen
        )

    def __enter__(self) -> Self:
        """Start."""
        self._directory.mkdir(exist_ok=True)
        file = self._directory / "nginx.conf"
        file.write_text(self.configuration)
        self._process = process = subprocess.Popen(
            [NGINX, "-p", str(self._directory), "-c", str(file)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        until(lambda: process.poll() is not None or self._accepts())
        assert process.poll() is None, process.communicate()
        return self

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), PATIENCE).close()
        except OSError:
            return False
        return True

    def __exit__(self, *exc_info: object) -> None:
        """Stop."""
        self._process.kill()
        self._process.communicate()

    def get(self, path: str, **headers: str) -> "Reader":
        return Reader(self.port, path, headers)


class Reader:
    """One response: its head, then pieces as they come, unpacked where they are compressed."""

    def __init__(self, port: int, path: str, headers: dict[str, str]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._connection.request("GET", path, headers={"Accept": "text/event-stream", **headers})
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
        """Go away."""
        self._response.close()
        self._connection.close()

    def until(self, part: bytes) -> float:
        """Read until these bytes have come; return when they had."""
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


def start_app(*options: str, port: int | None = None, **environment: str) -> Server:
    """Start uvicorn on the application of this folder."""
    port = port or free_port()
    command = (sys.executable, "-m", "uvicorn", "proxies.app:app", "--app-dir", str(TESTS), "--log-level", "warning")
    server = Server([*command, "--port", str(port), *options], port, environment)
    server.wait_until_it_answers()
    return server


def publish(port: int, data: object) -> bool:
    """Publish; tell whether it was acknowledged."""
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
            connection.request("POST", f"/publish?data={data}")
            with connection.getresponse() as response:
                return response.status == 200 and bool(response.read())
    except (OSError, http.client.HTTPException):
        return False
