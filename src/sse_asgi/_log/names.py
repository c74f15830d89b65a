"""Names that the library keeps for itself."""

RESERVED = "sse."  # what the library's own channels and event types begin with
