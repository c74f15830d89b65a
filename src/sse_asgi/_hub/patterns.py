"""Patterns of channel names, like `orders.*`.

A pattern is itself a channel. An event of a matching channel is published to the pattern's channel too, as one event.
Replay, order and gaps are then those of any channel, and backends know nothing of patterns.
"""

from collections.abc import Callable, Collection

from .options import check_channels, check_public

STAR = "*"


class Pattern(str):
    """The channel that gathers the events of all matching channels: `hub.subscribe(Pattern("orders.*"))`.

    A plain str never means a pattern. A channel name that contains user input therefore cannot reach one.
    """

    __slots__ = ()


def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """Return a function that returns True for matching names. `*` is any run of characters; nothing else is special."""
    first, *parts, last = pattern.split(STAR)

    def matches(name: str) -> bool:
        start, end = len(first), len(name) - len(last)
        if start > end or not (name.startswith(first) and name.endswith(last)):
            return False
        for part in parts:  # the first place of each part leaves the most room for later parts
            found = name.find(part, start, end)
            if found < 0:
                return False
            start = found + len(part)
        return True

    return matches


class Patterns:
    """The patterns of a hub.

    Attributes:
        names: The patterns in the order given; each is a channel of its own.
    """

    def __init__(self, patterns: Collection[str]) -> None:
        """Compile the patterns.

        Raises:
            TypeError: `patterns` is not a collection of str.
            ValueError: A pattern cannot be the name of a channel, or has no `*`.
        """
        self.names = tuple(map(Pattern, check_public(check_channels(patterns)))) if patterns else ()
        for name in self.names:
            if STAR not in name:
                msg = f"a pattern must have a {STAR!r} (got {name!r}): a plain channel need not be gathered"
                raise ValueError(msg)
        self._matchers = [(name, compile_pattern(name)) for name in self.names]

    def readable(self, channels: tuple[str, ...]) -> tuple[str, ...]:
        """Return the channels, or raise ValueError for a name that cannot be read."""
        for name in check_public(channels):
            if isinstance(name, Pattern):
                if name not in self.names:
                    msg = f"the pattern {name!r} is not gathered by this hub: make it with patterns=[{name!r}]"
                    raise ValueError(msg)
            elif name in self.names:
                msg = f"{name!r} is a pattern of this hub: to read all that it gathers, say Pattern({name!r})"
                raise ValueError(msg)
        return channels

    def gather(self, channels: tuple[str, ...]) -> tuple[str, ...]:
        """Return the channels, and the patterns that match one of them.

        Raises:
            ValueError: A name is reserved, or is a pattern.
        """
        for name in check_public(channels):
            if isinstance(name, Pattern) or name in self.names:
                msg = f"the pattern {name!r} only gathers what is published to channels that match: publish to those"
                raise ValueError(msg)
        if not self.names:
            return channels
        found = (pattern for pattern, matches in self._matchers if any(map(matches, channels)))
        return tuple(dict.fromkeys((*channels, *found)))
