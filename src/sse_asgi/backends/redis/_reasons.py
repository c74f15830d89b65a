"""Why a server cannot be used, and what to do about it."""

from collections.abc import Mapping

# How an error reply begins, and what to do about it.
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
    """A connection could not be had; the message says why, and `advice` whether somebody must do something."""

    def __init__(self, reason: str, *, advice: bool = False) -> None:
        """Say why."""
        super().__init__(reason)
        self.advice = advice


def explain(text: str, advices: Mapping[str, str] = ADVICE) -> UnusableError:
    """Add to an error reply what to do about it."""
    text = text.partition(ECHO)[0]
    advice = next((advice for start, advice in advices.items() if text.startswith(start)), None)
    return UnusableError(f"{advice} ({text})" if advice else text, advice=advice is not None)
