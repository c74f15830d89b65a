"""The fixtures of tests on a real Redis, for the tests of this backend's modules."""

from real_redis.fixtures import anyio_backend, cluster, dead, keys, locked, name, new_hub, new_server, resolve, server

__all__ = ["anyio_backend", "cluster", "dead", "keys", "locked", "name", "new_hub", "new_server", "resolve", "server"]
