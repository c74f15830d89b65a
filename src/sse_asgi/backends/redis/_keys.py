"""What a hub's keys and topics are called: all of one hub share a hash tag, and so one slot of a cluster."""


class Keys:
    """The names of one hub.

    Attributes:
        meta: A hash: `e` epoch, `o` the epoch before, `s` last sequence, `r` run id of the server that fenced last, `h`
            holes: what a server still had after a restart, and what it gives out from then on, as pairs; `x` the last
            sequence that fell out of the index; `n` the last one that was put there; `y` and `j` the same of the index
            of joins and leaves; `b:<channel>` the bytes of all its events, and of those before the oldest that is kept;
            `c:<channel>` the bytes that it counts for in `a`, the sum of all channels.
        index: A sorted set: each channel's last sequence.
            Beside it is `a`, the same of the channels that are counted in the sum.
        presence_index: A sorted set: the last sequence of each channel's joins and leaves.
        leases: A sorted set: until when each process that lists who is here is heard of.
        base: What all of them begin with.
    """

    def __init__(self, prefix: str, name: str) -> None:
        """Join the prefix and the hub's name.

        Raises:
            ValueError: One of them is empty or has braces, which would move or end the hash tag.
        """
        for what, value in (("prefix", prefix), ("name", name)):
            if not value or set("{}") & set(value):
                msg = f"{what}={value!r}: must not be empty nor contain braces"
                raise ValueError(msg)
        self.base = base = f"{prefix}:{{{name}}}:".encode()
        self.meta = base + b"m"
        self.index = base + b"i"
        self.presence_index = base + b"j"
        self.leases = base + b"w"
        self._members = base + b"w:"
        self._present = base + b"p:"
        self._streams = base + b"s:"
        self._presence_streams = base + b"j:"
        self._topics = base + b"c:"
        self._idempotency = base + b"k:"

    def stream(self, channel: str) -> bytes:
        """Name the history of a channel."""
        return self._streams + channel.encode()

    def presence_stream(self, channel: str) -> bytes:
        """Name the history of a channel's joins and leaves."""
        return self._presence_streams + channel.encode()

    def topic(self, channel: str) -> bytes:
        """Name what a channel's events are announced on."""
        return self._topics + channel.encode()

    def idempotency(self, idempotency_key: str | None) -> bytes:
        """Name what remembers a published event."""
        return self._idempotency + (idempotency_key or "").encode()

    def members(self, process: str) -> bytes:
        """Name whom a process has here."""
        return self._members + process.encode()

    def present(self, channel: str) -> bytes:
        """Name who is here on a channel."""
        return self._present + channel.encode()
