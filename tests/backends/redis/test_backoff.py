"""The pauses between attempts to connect."""

import pytest

from sse_asgi.backends.redis._backoff import (
    FIRST_PAUSE,
    LONGEST_CREDENTIALS_PAUSE,
    LONGEST_PAUSE,
    SHORTEST_PAUSE,
    Backoff,
)
from sse_asgi.backends.redis._reasons import CredentialsError, UnusableError

LOST, REFUSED = UnusableError("lost"), CredentialsError("no token")


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each pause be as long as it can be."""
    monkeypatch.setattr("sse_asgi.backends.redis._backoff.random.uniform", lambda _, most: most)


@pytest.mark.usefixtures("longest")
def test_each_pause_may_be_twice_as_long() -> None:
    """Up to a bound, until an attempt succeeds."""
    backoff = Backoff()
    assert [backoff.after(LOST) for _ in range(6)] == [FIRST_PAUSE, 0.1, 0.2, 0.4, LONGEST_PAUSE, LONGEST_PAUSE]
    backoff.reset()
    assert backoff.after(LOST) == FIRST_PAUSE


@pytest.mark.usefixtures("longest")
def test_a_failing_credential_provider_is_asked_less_and_less_often() -> None:
    """Where something else fails afterwards, the pauses are short again."""
    backoff = Backoff()
    pauses = [backoff.after(REFUSED) for _ in range(10)]
    assert pauses[:6] == [FIRST_PAUSE, 0.1, 0.2, 0.4, 0.8, 1.6]
    assert pauses[-1] == LONGEST_CREDENTIALS_PAUSE
    assert backoff.after(LOST) == LONGEST_PAUSE


def test_pauses_are_spread() -> None:
    """So that the processes of a hub do not come back at the same moment."""
    pauses = {Backoff().after(LOST) for _ in range(20)}
    assert len(pauses) > 1
    assert all(SHORTEST_PAUSE <= pause <= FIRST_PAUSE for pause in pauses)
