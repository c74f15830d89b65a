"""The names of a hub's keys and topics. All names of a hub share a hash tag, and so one slot of a cluster."""


class Keys:
    """The names of one hub.

    Attributes:
        meta: A hash. `e` epoch; `o` the epoch before; `s` last sequence; `r` run id of the server that fenced last; `h`
            holes, as pairs: the last sequence that a server still had after a restart, and the first that it gives out
            from then on; `x` the last sequence that fell out of the index; `n` the last one that was put there; `y` and
            `j` the same for the index of joins and leaves; `b:<channel>` the bytes of all its events, and of those
            before the oldest that is kept; `c:<channel>` its share of `a`, the bytes of all channels.
        index: A sorted set: each channel's last sequence. Beside it is the key `a`, the same for the channels that are
            counted in the sum.
        presence_index: A sorted set: the last sequence of each channel's joins and leaves.
        leases: A sorted set: when the lease of each process that lists members ends.
        schedule: A sorted set: when the lease of each run ends, or when the run is forgotten.
        base: The beginning of all names.
    """

    def __init__(self, prefix: str, name: str) -> None:
        """Join the prefix and the hub's name.

        Raises:
            ValueError: One of them is empty or has braces, which would move the hash tag.
        """
        for option, value in (("prefix", prefix), ("name", name)):
            if not value or set("{}") & set(value):
                msg = f"{option}={value!r}: must not be empty nor contain braces"
                raise ValueError(msg)
        self.base = base = f"{prefix}:{{{name}}}:".encode()
        self.meta = base + b"m"
        self.index = base + b"i"
        self.presence_index = base + b"j"
        self.leases = base + b"w"
        self.schedule = base + b"q"
        self._runs = base + b"r:"
        self._members = base + b"w:"
        self._present = base + b"p:"
        self._streams = base + b"s:"
        self._presence_streams = base + b"j:"
        self._topics = base + b"c:"
        self._idempotency = base + b"k:"

    def stream(self, channel: str) -> bytes:
        """Return the stream of a channel's events."""
        return self._streams + channel.encode()

    def presence_stream(self, channel: str) -> bytes:
        """Return the stream of a channel's joins and leaves."""
        return self._presence_streams + channel.encode()

    def topic(self, channel: str) -> bytes:
        """Return the topic on which a channel's events are announced."""
        return self._topics + channel.encode()

    def idempotency(self, idempotency_key: str | None) -> bytes:
        """Return the key that remembers an idempotency key."""
        return self._idempotency + (idempotency_key or "").encode()

    def run(self, key: str) -> bytes:
        """Return the hash of a run; `runs.lua` has its fields."""
        return self._runs + key.encode()

    def members(self, process: str) -> bytes:
        """Return the set of the members that a process has listed."""
        return self._members + process.encode()

    def present(self, channel: str) -> bytes:
        """Return the hash of the identities that are present on a channel."""
        return self._present + channel.encode()
