"""Patterns of channel names: `orders.*`."""

from collections.abc import Callable, Collection

from .options import check_channels, check_public

STAR = "*"


class Pattern(str):
    """The channel in which a hub gathers what is published to those that match: `hub.subscribe(Pattern("orders.*"))`.

    A plain str never means it, so that a name that a user had a part in is no way to it.
    """

    __slots__ = ()


def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """Return what tells whether a name matches: `*` is any run of characters, and nothing else is special."""
    first, *parts, last = pattern.split(STAR)

    def matches(name: str) -> bool:
        start, end = len(first), len(name) - len(last)
        if start > end or not (name.startswith(first) and name.endswith(last)):
            return False
        for part in parts:  # each at the first place where it is: what follows has most room then
            found = name.find(part, start, end)
            if found < 0:
                return False
            start = found + len(part)
        return True

    return matches


class Patterns:
    """The patterns that a hub gathers: what is published to a channel that matches reaches the pattern's own channel.

    Attributes:
        names: In the order given, each a channel of its own.
    """

    def __init__(self, patterns: Collection[str]) -> None:
        """Compile them.

        Raises:
            TypeError: No collection of str.
            ValueError: A bad channel name, or one without `*`.
        """
        self.names = tuple(map(Pattern, check_public(check_channels(patterns)))) if patterns else ()
        for name in self.names:
            if STAR not in name:
                msg = f"the pattern {name!r} has no {STAR!r}: it is a channel like any other, and need not be gathered"
                raise ValueError(msg)
        self._matchers = [(name, compile_pattern(name)) for name in self.names]

    def readable(self, channels: tuple[str, ...]) -> tuple[str, ...]:
        """Return the channels, or raise ValueError for one that is not to be read by this name."""
        for name in check_public(channels):
            if isinstance(name, Pattern):
                if name not in self.names:
                    msg = f"the pattern {name!r} is not gathered by this hub: make it with patterns=[{name!r}]"
                    raise ValueError(msg)
            elif name in self.names:
                msg = f"{name!r} is a pattern of this hub: if all that it gathers is meant, say Pattern({name!r})"
                raise ValueError(msg)
        return channels

    def gather(self, channels: tuple[str, ...]) -> tuple[str, ...]:
        """Return the channels and the patterns that one matches, or raise ValueError where nothing may be published."""
        for name in check_public(channels):
            if name in self.names or isinstance(name, Pattern):
                msg = f"the pattern {name!r} only gathers what is published to channels that match: publish to those"
                raise ValueError(msg)
        if not self.names:
            return channels
        found = (pattern for pattern, matches in self._matchers if any(map(matches, channels)))
        return tuple(dict.fromkeys((*channels, *found)))
