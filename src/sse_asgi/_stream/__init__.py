"""One event stream as an ASGI response, from its first byte to its last."""
