"""Credentials that take long or fail, TLS that is not expected, a busy Redis, a process that stood still."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from redis.credentials import CredentialProvider, UsernamePasswordCredentialProvider

from real_redis.launcher import RedisServer, free_port
from real_redis.proxy import proxied
from real_redis.readers import reading
from real_redis.test_startup import said
from sse_asgi import BackendError, Hub

pytestmark = pytest.mark.anyio

NewServer = Callable[..., RedisServer]
NewHub = Callable[..., Hub]


@pytest.fixture
def locked(new_server: NewServer) -> RedisServer:
    """Start a server with a password."""
    return new_server("--requirepass", "right").start()


def with_provider(server: RedisServer, provider: object, **options: object) -> dict[str, object]:
    return {"url": {"host": "127.0.0.1", "port": server.port, "credential_provider": provider}, **options}


async def until_up(hub: Hub, patience: float = 20) -> None:
    with anyio.fail_after(patience):
        while hub.state != "up":
            await anyio.sleep(0.01)


# Credentials


class Provider(CredentialProvider):
    """Gives a password after a while, or fails."""

    def __init__(self, seconds: float = 0, error: Exception | None = None) -> None:
        self.seconds = seconds
        self.error = error
        self.asked = 0
        self.threads: set[str] = set()

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        self.asked += 1
        self.threads.add(threading.current_thread().name)
        time.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return ("right",)


class AsyncProvider(Provider):
    """The same without a thread."""

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        self.asked += 1
        await asyncio.sleep(self.seconds)
        return "default", "right"


@pytest.mark.parametrize("kind", [Provider, AsyncProvider])
async def test_a_slow_credential_provider(
    new_hub: NewHub, locked: RedisServer, kind: type[Provider], caplog: pytest.LogCaptureFixture
) -> None:
    """One that takes longer than connecting may is waited for, once; the application starts, and the loop turns."""
    provider = kind(6)
    began, longest = time.monotonic(), 0.0
    async with new_hub(**with_provider(locked, provider, timeout=0.5)) as hub:
        assert time.monotonic() - began < 5.5
        assert hub.state == "down"
        with pytest.raises(BackendError, match=r"away for 0\.5 s: the credential provider has not answered yet"):
            await hub.publish("a", "1")
        while hub.state != "up":
            before = time.monotonic()
            await anyio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)
        assert await hub.publish("a", "1")
    assert provider.asked == 1
    assert longest < 4
    assert "MainThread" not in provider.threads
    assert [one.split(" ")[0] for one in said(caplog)] == ["WARNING"]


async def test_a_password_of_redis_pys_own_provider(new_hub: NewHub, locked: RedisServer) -> None:
    """It needs no thread of ours to be right."""
    provider = UsernamePasswordCredentialProvider("default", "right")
    async with new_hub(**with_provider(locked, provider)) as hub:
        assert hub.state == "up"


async def test_a_failing_credential_provider(
    new_hub: NewHub, locked: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning says so, however often it is asked, and whoever publishes is told; it may work later."""
    provider = Provider(error=PermissionError("no token"))
    async with new_hub(**with_provider(locked, provider, timeout=1)) as hub:
        with pytest.raises(BackendError, match="the credential provider failed: PermissionError: no token"):
            await hub.publish("a", "1")
        assert provider.asked > 2
        provider.error = None
        await until_up(hub)
    assert [one.split(" ")[0] for one in said(caplog)] == ["WARNING"]
    assert not any(one.exc_info for one in caplog.records)


async def test_a_credential_provider_that_never_answers(
    new_hub: NewHub, locked: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a limit of its own, and is not asked a second time meanwhile."""
    monkeypatch.setattr("sse_asgi.backends.redis._endpoint.CREDENTIAL_SECONDS", 0.2)
    provider = Provider(3)
    async with new_hub(**with_provider(locked, provider, timeout=1)) as hub:
        with pytest.raises(BackendError, match=r"the credential provider has not answered within 0\.2 s"):
            await hub.publish("a", "1")
    assert provider.asked == 1


@pytest.mark.parametrize("answer", [None, (), ("a", "b", "c"), "right"])
async def test_a_credential_provider_that_says_nonsense(
    new_hub: NewHub, locked: RedisServer, answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    """One error says what it must return."""

    class Strange:
        async def get_credentials_async(self) -> object:
            return answer

    async with new_hub(**with_provider(locked, Strange(), timeout=1)) as hub:
        assert hub.state == "down"
    assert f"must return (user, password) or (password,) (got {type(answer).__name__})" in said(caplog)[0]


async def test_a_provider_is_not_asked_where_nothing_listens(new_hub: NewHub, new_server: NewServer) -> None:
    """A token may cost something."""
    provider = Provider()
    async with new_hub(**with_provider(new_server(), provider)) as hub:
        await anyio.sleep(0.3)
        assert hub.state == "down"
    assert provider.asked == 0


async def test_a_fault_of_ours_is_one_traceback(
    new_hub: NewHub, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not one for each attempt."""
    async with new_hub() as hub:
        keeper = hub.backend._keeper  # type: ignore[attr-defined]
        calls: list[None] = []

        async def fail(session: object) -> None:
            calls.append(None)
            raise ZeroDivisionError

        monkeypatch.setattr(keeper, "_begin", fail)
        keeper.session.fail("for a test")
        with anyio.fail_after(20):
            while len(calls) < 4:
                await anyio.sleep(0.01)
    assert len([one for one in caplog.records if one.exc_info]) == 1


# A busy server


SPIN = "local till = tonumber(ARGV[1]) repeat local now = redis.call('TIME') until now[1] + now[2] / 1000000 > till"


@asynccontextmanager
async def busy(server: RedisServer, seconds: float) -> AsyncIterator[None]:
    """Have another client run a script for so long."""
    server.cli("CONFIG", "SET", "lua-time-limit", "50")
    spinning = asyncio.create_task(asyncio.to_thread(server.cli, "EVAL", SPIN, "0", str(time.time() + seconds)))
    with anyio.fail_after(10):
        while "BUSY" not in await asyncio.to_thread(server.cli, "GET", "a"):
            await anyio.sleep(0.01)
    yield
    await spinning


@pytest.mark.parametrize("key", [None, "key"])
@pytest.mark.parametrize("size", [10, 0])
async def test_a_busy_server_is_waited_for(new_hub: NewHub, server: RedisServer, key: str | None, size: int) -> None:
    """Whoever publishes while somebody else's script runs waits until it has ended, and the session lives on."""
    async with new_hub(server, history_size=size) as hub, reading(hub, "a") as reader:
        await hub.publish("a", "0")
        session = hub.backend._keeper.session  # type: ignore[attr-defined]
        async with busy(server, 2):
            session.probe()
            await hub.publish("a", "1", idempotency_key=key)
        await reader.has("0", "1")
        assert reader.gaps == []
        assert hub.backend._keeper.session is session  # type: ignore[attr-defined]


async def test_a_server_that_is_busy_for_too_long(new_hub: NewHub, server: RedisServer) -> None:
    """Nothing was stored, and the error says so, and why."""
    async with new_hub(server, timeout=0.5) as hub:
        await hub.publish("a", "0")
        async with busy(server, 4):
            with pytest.raises(BackendError, match="not published: Redis refused: BUSY") as caught:
                await hub.publish("a", "1")
        assert type(caught.value) is BackendError
        assert [event.data for event in await hub.history("a")] == ["0"]


# TLS


@pytest.fixture
def secure(new_server: NewServer, tmp_path: Path) -> tuple[RedisServer, Path]:
    """Start a server that speaks TLS only; return it and its certificate."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {key} -out {certificate}"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    files = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate)]
    server = new_server(*files, "--tls-auth-clients", "no").start()
    server.cli("CONFIG", "SET", "port", "0", "tls-port", str(server.port))
    return server, certificate


async def reason(hub: Hub) -> str:
    with pytest.raises(BackendError) as caught:
        await hub.publish("a", "1")
    return str(caught.value)


async def test_a_plain_url_to_a_tls_port(new_hub: NewHub, secure: tuple[RedisServer, Path]) -> None:
    """The log and the error hint at TLS."""
    async with new_hub(url=f"redis://localhost:{secure[0].port}", timeout=0.5) as hub:
        assert "if this server uses TLS, begin the URL with rediss://" in await reason(hub)


async def test_a_server_that_has_answered_is_not_suspected_of_tls(new_hub: NewHub, server: RedisServer) -> None:
    """The hint is for a URL that never worked."""
    async with new_hub(server) as hub:
        server.stop()
        hub.backend._keeper.session.fail("for a test")  # type: ignore[attr-defined]
        with anyio.fail_after(20):
            while "no answer within 2 s" not in hub.backend.trouble:
                await anyio.sleep(0.01)
        assert "TLS" not in hub.backend.trouble


async def test_a_tls_url_to_a_plain_port(new_hub: NewHub, shared_redis: RedisServer) -> None:
    """The other way round."""
    async with new_hub(url=f"rediss://localhost:{shared_redis.port}", timeout=0.5) as hub:
        assert "if this server does not use TLS, begin the URL with redis://" in await reason(hub)


async def test_a_tls_url_to_what_answers_in_plain_text(new_hub: NewHub, caplog: pytest.LogCaptureFixture) -> None:
    """So does a server that answers at once, or closes."""
    for answer in (b"-ERR what?\r\n", b""):

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes = answer) -> None:
            writer.write(answer)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            url = f"rediss://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with new_hub(url=url, timeout=0.2) as hub:
                assert "begin the URL with redis://" in await reason(hub)


async def test_a_certificate_that_is_not_trusted(new_hub: NewHub, secure: tuple[RedisServer, Path]) -> None:
    """The error names the option that makes it so; without checks, or with the option, it works."""
    server, certificate = secure
    url = f"rediss://localhost:{server.port}"
    async with new_hub(url=url, timeout=0.5) as hub:
        assert "its certificate is refused" in (text := await reason(hub))
        assert "ssl_ca_certs" in text
    async with new_hub(url=f"{url}?ssl_ca_certs=/nowhere.pem", timeout=0.5) as hub:
        assert "the TLS options (ssl_...) cannot be used" in await reason(hub)
    for option in (f"ssl_ca_certs={certificate}", "ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs=none"):
        async with new_hub(url=f"valkeys://localhost:{server.port}?{option}&max_connections=3") as hub:
            assert hub.state == "up"


# The reason that is known


async def test_the_reason_is_said(new_hub: NewHub, locked: RedisServer) -> None:
    """Where the password is wrong or missing, in errors of publishing, of history and of presence."""
    for credentials, text in (("", "it wants a password"), (":wrong@", "it refuses the user or password")):
        async with new_hub(url=locked.url.replace("//", f"//{credentials}"), timeout=0.3) as hub:
            assert f"Redis was away for 0.3 s: {text}" in await reason(hub)
            with pytest.raises(BackendError, match=text):
                await hub.history("a")
            with pytest.raises(BackendError, match=text):
                await hub.presence("a")


async def test_the_reason_of_an_outage_of_a_hub_that_was_up(new_hub: NewHub, server: RedisServer) -> None:
    """The last one counts."""
    async with new_hub(server, timeout=0.7) as hub:
        await hub.publish("a", "1")
        server.cli("REPLICAOF", "127.0.0.1", str(free_port()))
        assert "it is a replica" in await reason(hub)
        server.kill()
        with anyio.fail_after(20):
            while "Connection refused" not in await reason(hub):
                pass
        server.start()
        await until_up(hub)
        assert hub.backend.trouble == ""


async def test_an_old_server_repeats_the_password(new_hub: NewHub, caplog: pytest.LogCaptureFixture) -> None:
    """What it says of HELLO is cut off before it is logged."""
    answer = b"-ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `me`, `secret`, \r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        await reader.read(-1)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with new_hub(url=f"redis://me:secret@127.0.0.1:{port}", timeout=0.2) as hub:
            text = await reason(hub)
    assert "too old" in text
    assert "secret" not in text + caplog.text


# A process that stood still


STILL = """
import asyncio, sys, time
from sse_asgi import Hub
from sse_asgi.backends.redis import RedisBackend

async def main():
    async with Hub(RedisBackend(sys.argv[1])) as hub:
        await hub.publish("a", "0")
        print("ready", flush=True)
        while not sys.stdin.readline():
            pass
        began = time.monotonic()
        await hub.publish("a", "1")
        print(time.monotonic() - began, flush=True)

asyncio.run(main())
"""


async def test_a_connection_that_was_forgotten_while_the_process_stood_still(shared_redis: RedisServer) -> None:
    """The first event after a standstill is not sent to a connection that nobody answers on."""
    async with proxied(shared_redis) as proxy:
        command = [sys.executable, "-c", STILL, proxy.url]
        process = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1)
        assert process.stdin is not None
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGSTOP)
        await anyio.sleep(5)
        proxy.forget()
        process.stdin.write(b"go\n")
        process.send_signal(signal.SIGCONT)
        assert float(await process.stdout.readline()) < 10  # it was stored
        assert await process.wait() == 0


async def test_a_connection_that_lived_on(
    new_hub: NewHub, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at once, for all who publish, and kept."""
    async with new_hub(server) as hub:
        keeper = hub.backend._keeper  # type: ignore[attr-defined]
        session = keeper.session
        session._due = 0
        await asyncio.gather(*(hub.publish("a", str(number)) for number in range(3)))
        await anyio.sleep(1.2)
        assert keeper.session is session
        assert not session.doubtful


async def test_a_process_that_stood_still_finds_out_by_itself(new_hub: NewHub, shared_redis: RedisServer) -> None:
    """Its readers are live again soon, although nothing is published here."""
    async with proxied(shared_redis) as proxy, new_hub() as hub, new_hub(url=proxy.url) as far:
        async with reading(far, "a") as reader:
            session = far.backend._keeper.session  # type: ignore[attr-defined]
            proxy.forget()
            session._due = 0
            session.ended.set()  # as if the time for the next look had come
            with anyio.fail_after(4):
                while session.reason is None:
                    await anyio.sleep(0.01)
            assert session.reason == "no answer soon after this process had stood still"
            await hub.publish("a", "1")
            await reader.has("1")
            assert reader.gaps == []


async def test_only_the_messages_were_forgotten(new_hub: NewHub, shared_redis: RedisServer) -> None:
    """The connection that messages come on is looked at as well."""
    async with new_hub() as hub:
        session = hub.backend._keeper.session  # type: ignore[attr-defined]
        session._messages.data_received = len  # nothing that arrives is read
        session._due = 0
        await hub.publish("a", "1")
        with anyio.fail_after(4):
            while session.reason is None:
                await anyio.sleep(0.01)
        assert session.reason == "no answer soon after this process had stood still"


async def test_an_unsent_event_is_sent_to_the_next_session(new_hub: NewHub) -> None:
    """A connection that ends before an event is written leaves nothing unknown."""
    async with new_hub() as hub:
        await hub.publish("a", "0")
        link = hub.backend._keeper.session.server.link  # type: ignore[attr-defined]
        link._flush = lambda: None
        publishing = asyncio.create_task(hub.publish("a", "1"))
        with anyio.fail_after(20):
            while not any(b"EVALSHA" in command for command in link._unsent):
                await asyncio.sleep(0)
        link.close("for a test")
        assert await publishing
        assert [event.data for event in await hub.history("a")] == ["0", "1"]
