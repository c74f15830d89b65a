"""What telemetry is told of a stream: the reason for which an exception ends it."""

import pytest
from starlette.requests import ClientDisconnect

from sse_asgi._stream.observed import reason_of


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(), "client"),
        (ClientDisconnect(), "client"),
        (LookupError(), "error"),
        (KeyboardInterrupt(), "shutdown"),
    ],
)
def test_an_exception_has_a_reason(error: BaseException, reason: str) -> None:
    """A broken connection is the client's doing, and a cancellation is the server's."""
    assert reason_of(error) == reason
