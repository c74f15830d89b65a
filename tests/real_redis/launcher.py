"""Real redis-servers that tests start, kill, stop and start again."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

PATIENCE = 15.0
SERVER_ONLY = ["--save", "", "--repl-diskless-sync-delay", "0"]
CLUSTER_BUS = 10_000  # above the port
PORTS = range(11_000, 21_000)  # Linux gives connections those above 32,767, while a server is down too


def free_port() -> int:
    """Find a port that is free, as is that of the bus of a cluster's node above it."""
    while True:
        port = random.choice(PORTS)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as bus:
            one.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + CLUSTER_BUS))
            return port


class RedisServer:
    """A server on a port of its own, which it keeps when it is started again.

    Attributes:
        port: Where it listens.
        url: The same, for RedisBackend.
    """

    def __init__(
        self,
        directory: Path,
        *options: str,
        port: int | None = None,
        sentinel: Path | None = None,
        binary: str = "redis-server",
    ) -> None:
        """Prepare; `start` starts it.

        Args:
            directory: Where it keeps its files.
            options: As on its command line, such as `"--appendonly", "yes"`.
            port: A free one if None.
            sentinel: Makes it a Sentinel, which has its configuration in this file, and writes to it.
            binary: What to start.
        """
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.directory = directory
        self.options = options
        self._command = [binary, *([str(sentinel), "--sentinel"] if sentinel else SERVER_ONLY)]
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def start(self) -> Self:
        """Start it, and wait until it answers."""
        defaults = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        command = [*self._command, *defaults, *self.options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert time.monotonic() < deadline, command
            assert self._process.poll() is None, command
            time.sleep(0.005)
        return self

    def _answers(self) -> bool:
        """Return True if it has loaded its data. A server that wants a password answers as well."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def kill(self) -> None:
        """Let it die at once, as at a crash."""
        if self._process is not None:
            self._process.kill()  # a frozen process as well
            self._process.wait()
            self._process = None

    def shutdown(self) -> None:
        """Let it end in order."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._process = None

    def save(self) -> None:
        """Let it end in order, and keep everything in a dump."""
        self.cli("SHUTDOWN", "SAVE")
        assert self._process is not None
        self._process.wait(PATIENCE)
        self._process = None

    def restart(self, *options: str) -> None:
        """Kill it and start it again, with other options if there are any."""
        self.kill()
        self.options = options or self.options
        self.start()

    def stop(self) -> None:
        """Freeze it: connections stay open, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def cli(self, *arguments: str, password: str | None = None) -> str:
        """Run one command, and return the output of redis-cli."""
        command = ["redis-cli", "-p", str(self.port), *(["-a", password] if password else []), *arguments]
        run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
        return run.stdout.strip()

    def info(self, field: str) -> str:
        """Return one field of INFO."""
        lines = self.cli("INFO", "everything").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{field}:"))

    def __enter__(self) -> Self:
        """Start it."""
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        """Kill it."""
        self.kill()


def join_cluster(nodes: Sequence[RedisServer]) -> None:
    """Share the slots of a cluster between these, without replicas."""
    addresses = [f"127.0.0.1:{node.port}" for node in nodes]
    create = ["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", "0", "--cluster-yes"]
    subprocess.run(create, check=True, capture_output=True, timeout=30)


def move_slot(nodes: Sequence[RedisServer], slot: str) -> None:
    """Move one slot from its owner to the next node, as `redis-cli --cluster reshard` does."""
    ids = [node.cli("CLUSTER", "MYID") for node in nodes]
    source = next(at for at, node in enumerate(nodes) if node.cli("CLUSTER", "COUNTKEYSINSLOT", slot) != "0")
    target = (source + 1) % len(nodes)
    nodes[target].cli("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    nodes[source].cli("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
    while keys := nodes[source].cli("CLUSTER", "GETKEYSINSLOT", slot, "10").split():
        nodes[source].cli("MIGRATE", "127.0.0.1", str(nodes[target].port), "", "0", "5000", "KEYS", *keys)
    for at in (target, source, 3 - source - target):
        nodes[at].cli("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
