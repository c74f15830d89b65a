"""Hubs that share a log in Redis: the one package that imports redis; `pip install 'sse-asgi[redis]'`."""

from ._backend import RedisBackend

__all__ = ["RedisBackend"]
