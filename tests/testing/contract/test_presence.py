"""The facts of presence, for the memory backend on asyncio."""

from typing import Unpack

from sse_asgi import Backend, MemoryBackend
from sse_asgi.testing.contract._base import BackendOptions
from sse_asgi.testing.contract._presence import PresenceContract


class TestMemory(PresenceContract):
    """On asyncio; tests/backends/test_contract.py has the other backends and event loops."""

    def make_backend(self, **options: Unpack[BackendOptions]) -> Backend:
        return MemoryBackend(**options)
