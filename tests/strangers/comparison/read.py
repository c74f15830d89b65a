"""The cells of the servers that no package installs here: read in their documentation and source, not run."""

READ = "2026-12-01"
MERCURE, CENTRIFUGO = "Mercure (read)", "Centrifugo (read)"
VERSIONS = {MERCURE: "v0.24.2", CENTRIFUGO: "v6.9.1"}

HUB = "https://github.com/dunglas/mercure/blob/v0.24.2"
SERVER = "https://github.com/centrifugal/centrifugo/blob/v6.9.1"
LIBRARY = "https://github.com/centrifugal/centrifuge/blob/84d40cc4dbf6"
GUIDE = "https://github.com/centrifugal/centrifugal.dev/blob/910fa94598b3/docs"

# The cell and its place, by column and fact.
CELLS: dict[str, dict[str, tuple[str, str]]] = {
    MERCURE: {
        "402 before the stream is made": ("401 without a valid JWT", f"{HUB}/subscribe.go#L219-L220"),
        "Ctrl-C with open streams": (
            "each stream runs on to its `write_timeout` (10 min), so that reconnects are spread",
            f"{HUB}/docs/hub/rolling-updates.md?plain=1#L14",
        ),
        "HEAD": ("served like GET", f"{HUB}/handler.go#L44"),
        "15 s of silence": ("a comment after 40 s", f"{HUB}/hub.go#L21"),
        "headers for proxies": ("both headers", f"{HUB}/subscribe.go#L288-L298"),
        "line ends in data": ("a line each", f"{HUB}/event.go#L9"),
        "a line end in `event`": ("refused", f"{HUB}/publish.go#L73"),
        "a line end in `id`": ("refused", f"{HUB}/publish.go#L69"),
        "a client that reads nothing": ("cut off after `dispatch_timeout`, 5 s by default", f"{HUB}/hub.go#L20"),
        "`2` and `3` missed, then `4`": ("all from the history, in Bolt", f"{HUB}/bolt.go#L228"),
        "16 MiB for a reader that does not read": (
            "1,000 updates are kept, then cut off",
            f"{HUB}/localsubscriber.go#L25",
        ),
        "the last id is too old": (
            "told by a header of the response, which EventSource does not show",
            f"{HUB}/spec/mercure.md?plain=1#L520-L536",
        ),
        "connections to Redis, 1 reader and 11": (
            "Redis is for the Enterprise version",
            f"{HUB}/docs/hub/cluster.md?plain=1#L3-L32",
        ),
    },
    CENTRIFUGO: {
        "402 before the stream is made": (
            "a status, where `connect_code_to_http_response` is on",
            f"{SERVER}/internal/unisse/handler.go#L108-L123",
        ),
        "Ctrl-C with open streams": (
            "connections are closed, within `shutdown.timeout` (30 s)",
            f"{GUIDE}/server/configuration.md?plain=1#L1350",
        ),
        "HEAD": ("405", f"{SERVER}/internal/unisse/handler.go#L78-L80"),
        "15 s of silence": ("a message `{}` after 25 s", f"{GUIDE}/transports/uni_sse.md?plain=1#L61-L78"),
        "headers for proxies": ("both headers", f"{SERVER}/internal/unisse/handler.go#L130-L134"),
        "line ends in data": ("JSON in one line", f"{GUIDE}/transports/uni_sse.md?plain=1#L30"),
        "a line end in `event`": ("no `event` is written", f"{SERVER}/internal/unisse/handler.go#L165"),
        "a line end in `id`": ("no `id` is written", f"{SERVER}/internal/unisse/handler.go#L165"),
        "a client that reads nothing": ("cut off after 1 s", f"{SERVER}/internal/unisse/handler.go#L36"),
        "`2` and `3` missed, then `4`": (
            "by its own clients; over SSE only the latest, in cache mode",
            f"{GUIDE}/server/history_and_recovery.md?plain=1#L72",
        ),
        "16 MiB for a reader that does not read": (
            "1 MiB is kept, then cut off",
            f"{GUIDE}/server/configuration.md?plain=1#L695-L699",
        ),
        "the last id is too old": (
            "told to its own clients (`recovered: false`)",
            f"{GUIDE}/server/history_and_recovery.md?plain=1#L82",
        ),
        "connections to Redis, 1 reader and 11": (
            "shared by all readers of a node",
            f"{LIBRARY}/redis_shard.go#L222",
        ),
        "publishing while Redis is away": ("fails", f"{LIBRARY}/broker_redis.go#L834"),
        "`1`, Redis dies and is back, `2`": (
            "it subscribes again; lost events are found by positions, for its own clients",
            f"{GUIDE}/server/history_and_recovery.md?plain=1#L84-L88",
        ),
    },
}


def cells(column: str) -> dict[str, str]:
    """Return the cells of a column, each with a link to its place."""
    return {fact: f"[{text}]({place})" for fact, (text, place) in CELLS[column].items()}
