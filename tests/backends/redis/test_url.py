"""Redis URLs, valid and refused ones."""

import traceback

import pytest
from redis.asyncio import SSLConnection

from sse_asgi.backends.redis import RedisBackend
from sse_asgi.backends.redis._url import read_url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://localhost", "redis://, rediss://, unix://"),
        ("redis://localhost/abc", "the database in a Redis URL is a number, not 'abc'"),
        ("redis://localhost?colour=blue", "an option of this Redis URL is unknown to redis-py: .*colour"),
        ("redis+sentinel://localhost", "a Sentinel URL names the service"),
        ("redis+pigeon://localhost", "known are redis://"),
        ("redis+cluster://", "known are redis://"),
        ("unix+cluster://a", "known are redis://"),
        ("redis:host", "known are redis://"),
        ("redis://host?bogus", "every option in a Redis URL must have a value: write name=value, or leave the option"),
        ("redis://host?bogus=", "every option in a Redis URL must have a value"),
        ("redis://host?db=1&client_name", "every option in a Redis URL must have a value"),
        ("redis+sentinel://host/main?sentinel_password=", "every option in a Redis URL must have a value"),
        ("redis://host?ssl", "'ssl': TLS is chosen by the scheme, so begin the URL with rediss://,"),
        ("redis+sentinel://host/main?ssl_ca_certs=x", r"begin the URL with rediss\+sentinel://,"),
        ("redis+cluster://host?ssl_ca_certs=x", r"begin the URL with rediss\+cluster://,"),
        ("redis://host?timeout=2", "'timeout' is an argument of RedisBackend"),
        ("redis://host?retry=2", "'retry' cannot be written in a URL"),
        ("redis://host?ssl_cert_reqs=none", "'ssl_cert_reqs': TLS is chosen by the scheme"),
        ("rediss://host?ssl_cert_reqs=CERT_WHAT", r"ssl_cert_reqs must be none, optional, required.*got 'CERT_WHAT'"),
        ("redis://host?socket_timeout=soon", "'socket_timeout' in a Redis URL must be a number"),
        ("redis://host?protocol=9", "a value that redis-py refuses: protocol must be"),
        ("redis+sentinel://host/main?sentinel_colour=blue", "unknown to redis-py: .*colour"),
        ("redis+sentinel://host/main?sentinel_socket_timeout=soon", "'sentinel_socket_timeout' in a Redis URL must be"),
    ],
)
def test_a_bad_url_is_refused(url: str, message: str) -> None:
    """A wrong URL is a ValueError where it is given."""
    with pytest.raises(ValueError, match=message):
        RedisBackend(url)


@pytest.mark.parametrize("secret", ["se/cret", "se#cret", "se?cret", "se?cret=1&x", "se\u2100cret", "12?se=cret"])
@pytest.mark.parametrize("form", ["redis://me:%s@host", "rediss+sentinel://me:%s@one,two/main", "redis://:%s"])
def test_a_password_that_is_not_encoded_is_not_repeated(form: str, secret: str) -> None:
    """Neither the error nor its traceback has the secret; the error says how to write it."""
    try:
        RedisBackend(form % secret)
    except ValueError as error:
        text = "".join(traceback.format_exception(error))
        assert "cret" not in text.replace("form % secret", "")


@pytest.mark.parametrize(
    "url",
    [
        "redis://host?max_connections=10&health_check_interval=5&socket_keepalive=true&retry_on_timeout=1&protocol=2",
        "rediss://host?ssl_cert_reqs=CERT_REQUIRED",
        "redis+sentinel://host/main?sentinel_socket_timeout=0.5&sentinel_max_connections=2",
        {"host": "host", "max_connections": 10},
        {"host": "host", "connection_class": SSLConnection, "ssl_cert_reqs": "CERT_NONE"},
    ],
)
def test_a_url_that_was_written_for_redis_py_is_understood(url: str | dict[str, object]) -> None:
    """Options without a meaning for a hub are accepted."""
    RedisBackend(url)


def test_what_is_written_in_a_url_is_decoded_once() -> None:
    """With every version of redis-py, and percent-encoded characters keep their meaning."""
    read = read_url("valkey://m%2565:p%40ss@h%6Fst/3?client_name=a%2562&db=4")
    assert read.options == {"username": "m%65", "password": "p@ss", "client_name": "a%62", "db": 4}
    assert read.nodes == [{"host": "host", "port": 6379}]
    assert read_url("unix://me:pw@/run/a%20b@c.sock").options == {
        "username": "me",
        "password": "pw",
        "path": "/run/a b@c.sock",
    }
    assert read_url("unix://").options == {}
    sentinel = read_url("valkeys+sentinel://h/a%20b/2?sentinel_socket_timeout=0.5&ssl_cert_reqs=CERT_NONE")
    assert sentinel.sentinel == {"socket_timeout": 0.5, "ssl_cert_reqs": "none", "ssl_check_hostname": False}
    assert (sentinel.service, sentinel.options["db"]) == ("a b", 2)
