"""HAProxy on the core of the load client, which speaks plain HTTP/1.1: it speaks TLS or HTTP/2 to a server."""

from pathlib import Path

from .environments import CACHE, run

HOME = CACHE / "proxy"
CERTIFICATE, KEY = HOME / "certificate.pem", HOME / "key.pem"
TLS, HTTP2 = "ssl verify none alpn http/1.1", "proto h2"
CONFIG = """global
  maxconn 4000
defaults
  mode http
  option http-no-delay
  timeout connect 60s
  timeout client 1h
  timeout server 1h
  timeout queue 60s
listen load
  bind 127.0.0.1:{port} backlog 4096
  server upstream 127.0.0.1:{upstream} {speaks}
"""


def certificate() -> tuple[Path, Path]:
    """Return the files of a certificate and its key, of the kind that web servers mostly have."""
    HOME.mkdir(exist_ok=True)
    if not CERTIFICATE.exists():
        made = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "3650")
        run(*made, "-keyout", KEY, "-out", CERTIFICATE)
    return CERTIFICATE, KEY


def haproxy(port: int, upstream: int, speaks: str) -> list[str | Path]:
    """Return the command of a proxy that listens on `port`."""
    HOME.mkdir(exist_ok=True)
    config = HOME / f"{port}.cfg"
    config.write_text(CONFIG.format(port=port, upstream=upstream, speaks=speaks))
    return ["haproxy", "-db", "-q", "-f", config]
