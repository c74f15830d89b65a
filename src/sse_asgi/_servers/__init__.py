"""The ASGI servers: how each one says that it stops, and which of them can be sent to directly."""
