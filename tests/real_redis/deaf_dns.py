"""A DNS that takes questions and never answers, for a process that is started by a test."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RESOLVER = "127.0.0.253"
MOUNT = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
# Where a test may not have a /etc/resolv.conf of its own, this takes the place of the system's resolver.
STAND_IN = """
import socket, time
ask = socket.getaddrinfo
def getaddrinfo(host, *arguments, **options):
    if str(host).endswith(".example") and not options.get("flags"):
        time.sleep(60)
    return ask(host, *arguments, **options)
socket.getaddrinfo = getaddrinfo
"""


@contextmanager
def deaf_dns(directory: Path) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Return a prefix for commands, and their environment; names under .example are never answered."""
    configuration = directory / "resolv.conf"
    configuration.write_text(f"nameserver {RESOLVER}\noptions timeout:20 attempts:2\n")
    prefix = ["unshare", "--mount", "sh", "-c", MOUNT, str(configuration)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        try:
            deaf.bind((RESOLVER, 53))
            subprocess.run([*prefix, "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            (directory / "sitecustomize.py").write_text(STAND_IN)
            yield [], os.environ | {"PYTHONPATH": str(directory)}
        else:
            yield prefix, dict(os.environ)
