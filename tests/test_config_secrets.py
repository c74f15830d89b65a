"""Secrets in URLs: neither errors nor tracebacks nor reprs of settings show them."""

import traceback

import pytest
from starlette.config import Config

from sse_asgi import Settings, create_hub


def settings(**variables: str) -> Settings:
    """Read settings from these variables alone."""
    return Settings.from_environment(Config(environ=variables))


SECRETS = [
    "redis://me:hidden@host/x",
    "redis://me:hid/hidden@host",
    "redis://me:hid#hidden@host",
    "redis://me:hid?hidden@host",
    "redis://me:12?hidden@host",
    "redis://:?hidden@host",
    "redis+cluster://me:12?hidden#@host",
    "redis://me:hid[hidden@host",
    "redis://me:hid[hidden]@host",
    "redis://me:hid\u2100hidden@host",
    "redis://:hidden",
    "redis://host/x?password=hidden",
    "redis://host/x?password=hid@hidden",
    "redis://host/x?pasword=hidden",
    "redis://host/x?username=hidden&sentinel_password=hidden",
    "rediss://host/x?ssl_password=hidden",
    "redis://host?colour=blue&password=hidden&hidden",
    "redis+sentinel://me:hidden@one,two?sentinel_password=hidden",
    "nats://host?token=hidden",
    "memory://?password=hidden",
]


@pytest.mark.parametrize("url", SECRETS)
def test_a_secret_of_a_url_is_not_shown(url: str) -> None:
    """The error, its traceback and the repr of the settings have the URL without its secrets."""
    given = settings(SSE_REDIS_URL=url)
    with pytest.raises(ValueError, match="SSE_REDIS_URL") as caught:
        create_hub(given)
    assert "hidden" not in "".join(traceback.format_exception(caught.value)).replace("given", "")
    assert "hidden" not in repr(given)


def test_a_url_that_is_given_as_a_host_is_not_repeated() -> None:
    """A URL that was given as a host may have a password, so the error does not show it."""
    for text in ("redis://me:hidden@cache", "cache?password=hidden", "me:hidden@cache"):
        with pytest.raises(ValueError, match="must be a host") as caught:
            settings(SSE_REDIS_HOST=text)
        assert "hidden" not in str(caught.value)


def test_a_password_is_not_shown() -> None:
    """The error about an unknown scheme shows the URL without its user and password."""
    with pytest.raises(ValueError, match="no backend is installed") as caught:
        create_hub(Settings(backend_url="pigeon://user:secret@loft:1/x"))
    assert "secret" not in str(caught.value)
    assert "pigeon://loft:1/x" in str(caught.value)
