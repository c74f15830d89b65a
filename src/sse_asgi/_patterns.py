"""Patterns of channel names: `orders.*`."""

import re
from collections.abc import Callable, Collection

from ._options import check_channels

STAR = "*"


def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """Return what tells whether a name matches: `*` is any run of characters, and nothing else is special."""
    expression = re.compile(".*".join(map(re.escape, pattern.split(STAR))), re.DOTALL)
    return lambda name: expression.fullmatch(name) is not None


class Patterns:
    """The patterns that a hub gathers: what is published to a channel that matches reaches the pattern's own channel.

    Attributes:
        names: As they were given, each a channel of its own.
    """

    def __init__(self, patterns: Collection[str]) -> None:
        """Compile them.

        Raises:
            TypeError: No collection of str.
            ValueError: A bad channel name, or one without `*`.
        """
        self.names = check_channels(patterns) if patterns else ()
        for name in self.names:
            if STAR not in name:
                msg = f"the pattern {name!r} has no {STAR!r}: it is a channel like any other, and need not be gathered"
                raise ValueError(msg)
        self._matchers = [(name, compile_pattern(name)) for name in self.names]

    def gather(self, channels: tuple[str, ...]) -> tuple[str, ...]:
        """Return the channels, and the patterns that one of them matches."""
        found = (pattern for pattern, matches in self._matchers if any(map(matches, channels)))
        return tuple(dict.fromkeys((*channels, *found)))
