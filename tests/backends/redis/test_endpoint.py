"""One server: credentials that take long or fail, and TLS that is not expected."""

import asyncio
import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from redis.credentials import CredentialProvider, UsernamePasswordCredentialProvider

from real_redis.helpers import reason, said, stranger, until_up
from real_redis.launcher import RedisServer
from real_redis.readers import reading
from sse_asgi import BackendError, Hub
from sse_asgi.backends.redis._address import read_address
from sse_asgi.backends.redis._link import Link
from sse_asgi.backends.redis._reasons import UnusableError

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]
NewServer = Callable[..., RedisServer]


def with_provider(server: RedisServer, provider: object, **options: object) -> dict[str, object]:
    return {"url": {"host": "127.0.0.1", "port": server.port, "credential_provider": provider}, **options}


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
    """One warning is logged for all attempts. Publishing fails with the reason; the provider may work later."""
    provider = Provider(error=PermissionError("no token"))
    async with new_hub(**with_provider(locked, provider, timeout=1)) as hub:
        with pytest.raises(BackendError, match="the credential provider failed: PermissionError: no token"):
            await hub.publish("a", "1")
        with anyio.fail_after(20):
            while provider.asked < 3:
                await anyio.sleep(0.01)
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
    """One error says what the provider must return."""

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


async def test_a_plain_url_to_a_tls_port(new_hub: NewHub, secure: tuple[RedisServer, Path]) -> None:
    """The log and the error hint at TLS."""
    async with new_hub(url=f"redis://localhost:{secure[0].port}", timeout=0.5) as hub:
        assert "if this server uses TLS, begin the URL with rediss://" in await reason(hub)


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


async def test_tls_and_a_unix_socket(new_server: NewServer, new_hub: NewHub, tmp_path: Path) -> None:
    """The other two kinds of URL."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {key} -out {certificate}"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    await asyncio.to_thread(subprocess.run, [*command.split(), *names], check=True, capture_output=True)
    files = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate)]
    socket = tmp_path / "redis.sock"
    server = new_server("--unixsocket", str(socket), *files, "--tls-auth-clients", "no").start()
    server.cli("CONFIG", "SET", "port", "0", "tls-port", str(server.port))
    url = f"rediss://localhost:{server.port}?ssl_ca_certs={certificate}"
    async with new_hub(url=url) as secret, new_hub(url=f"unix://{socket}") as local:
        assert secret.state == local.state == "up"
        async with reading(secret, "a") as reader:
            await local.publish("a", "1")
            await reader.has("1")
    async with new_hub(url=f"rediss://localhost:{server.port}") as stranger:
        assert stranger.state == "down"


async def test_a_login_is_used_for_another_node() -> None:
    """Of the same cluster, so that a provider is asked once."""
    addresses = read_address("redis+cluster://me:pw@one?client_name=x")
    one, other = addresses.at("one", 1), addresses.at("two", 1)
    await one.ask_login(addresses.inquiries)
    assert "AUTH" not in other.hello()
    assert other.with_login_of(one).hello() == ("HELLO", "3", "AUTH", "me", "pw", "SETNAME", "x")


@pytest.mark.parametrize(("url", "plus"), [("redis://h", ""), ("redis+cluster://h", r"\+cluster")])
async def test_the_hint_at_tls_names_the_scheme(url: str, plus: str) -> None:
    """With the kind of the URL, so that it can be copied."""
    async with stranger(b"-ERR what?\r\n") as address:
        host = address.removeprefix("redis://")
        for secure, end in (
            ("", "rediss{0}:// and not with redis{0}://"),
            ("s", "redis{0}:// and not with rediss{0}://"),
        ):
            one = await read_address(url.replace("redis", "redis" + secure).replace("//h", f"//{host}")).find()
            link = Link(1)
            if secure:
                with pytest.raises(UnusableError, match="TLS failed.*" + end.format(plus)):
                    await one.connect(link)
            else:
                await one.connect(link)
                assert re.search(end.format(plus), one.hinted("no answer"))
                link.close("for a test")
