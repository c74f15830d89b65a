"""The pauses between attempts to connect: each is up to twice as long as the one before, and random."""

import random

from ._reasons import CredentialsError, UnusableError

SHORTEST_PAUSE = 0.02
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 0.5
LONGEST_CREDENTIALS_PAUSE = 10.0  # a credential provider is often a service with a limit of its own


class Backoff:
    """The pause after each failure, until the next success."""

    def __init__(self) -> None:
        """Begin with the shortest pauses."""
        self._most = FIRST_PAUSE

    def reset(self) -> None:
        """Begin with the shortest pauses again, after a success."""
        self._most = FIRST_PAUSE

    def after(self, failure: UnusableError) -> float:
        """Return the seconds to wait after a failure."""
        longest = LONGEST_CREDENTIALS_PAUSE if isinstance(failure, CredentialsError) else LONGEST_PAUSE
        most = min(self._most, longest)
        self._most = most * 2
        return random.uniform(SHORTEST_PAUSE, most)  # noqa: S311 - a spread, not a secret
