"""The reasons why a server cannot be used, and the advice for each of them."""

from collections.abc import Mapping

# The beginning of an error reply, and what to do about it.
ADVICE = {
    "WRONGPASS": "it refuses the user or password: set them in the URL, as in redis://user:password@host",
    "NOAUTH": "it wants a password: set it in the URL, as in redis://:password@host or redis://user:password@host",
    "ERR AUTH": "it has no password for this user: leave it out of the URL",
    "ERR DB index": "it has no such database: choose another number at the end of the URL, or raise `databases`",
    "ERR SELECT": "a cluster has database 0 only: leave the number out of the URL",
    "ERR unknown command": "it is too old: 6.2 is the oldest Redis that works",
    "NOPERM": "the ACL rules of this user are not enough: see docs/redis.md for those that are needed",
}
SENTINEL_ADVICE = ADVICE | {
    "WRONGPASS": "it refuses the user or password: set sentinel_username and sentinel_password in the URL's query",
    "NOAUTH": "it wants a password: set sentinel_password in the URL's query",
    "ERR unknown command": "it is not a Sentinel, or it is older than Redis 6.2",
}
ECHO = ", with args beginning with"  # Redis before 6 repeats the arguments of HELLO, and the password is one of them


class UnusableError(Exception):
    """No usable connection; the message has the reason. `advice` is True if an operator must change something."""

    def __init__(self, reason: str, *, advice: bool = False) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.advice = advice


class CredentialsError(UnusableError):
    """The credential provider gave no credentials."""


def explain(text: str, advices: Mapping[str, str] = ADVICE) -> UnusableError:
    """Return the error for an error reply, with the advice for it."""
    text = text.partition(ECHO)[0].rstrip(".")
    advice = next((advice for start, advice in advices.items() if text.startswith(start)), None)
    return UnusableError(f"{advice} ({text})" if advice else text, advice=advice is not None)
