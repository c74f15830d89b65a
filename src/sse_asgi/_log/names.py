"""The names that the library keeps for itself."""

RESERVED = "sse."  # the library's own channels and event types begin with it
END = "sse.end"  # the type of the last event of a finished stream, and its id
