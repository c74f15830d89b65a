"""Error replies, and the advice for each of them."""

import asyncio
from collections.abc import Callable

import pytest

from real_redis.helpers import reason
from sse_asgi import Hub
from sse_asgi.backends.redis._reasons import SENTINEL_ADVICE, explain

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]


async def test_an_old_server_repeats_the_password(new_hub: NewHub, caplog: pytest.LogCaptureFixture) -> None:
    """The arguments of HELLO in its error reply are cut off before the error is logged."""
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


@pytest.mark.parametrize(
    ("text", "start", "advice"),
    [
        ("WRONGPASS invalid username-password pair", "it refuses the user or password: set them in the URL", True),
        ("NOPERM this user has no permissions", "the ACL rules of this user are not enough", True),
        ("ERR unknown command `HELLO`, with args beginning with: `3`, `secret`", "it is too old", True),
        ("LOADING Redis is loading the dataset in memory", "LOADING Redis is loading", False),
    ],
)
def test_an_error_reply_is_explained(text: str, start: str, advice: bool) -> None:  # noqa: FBT001
    """The advice comes first, then the reply without the arguments of the command."""
    error = explain(text)
    assert str(error).startswith(start)
    assert error.advice is advice
    assert "secret" not in str(error)


def test_a_reply_ends_without_a_dot() -> None:
    """The text goes on behind it in a log line."""
    assert str(explain("BUSY Redis is busy. You can only call SHUTDOWN NOSAVE.")).endswith("SHUTDOWN NOSAVE")
    assert str(explain("NOPERM no.")).endswith("(NOPERM no)")


def test_a_sentinel_has_advice_of_its_own() -> None:
    """Its password is another option of the URL."""
    assert "sentinel_password" in str(explain("NOAUTH Authentication required.", SENTINEL_ADVICE))
