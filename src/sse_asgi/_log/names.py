"""The prefix of names that the library keeps for itself."""

RESERVED = "sse."  # the library's own channels and event types begin with it
