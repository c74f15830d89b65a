"""The facts of pages, for the memory backend on asyncio, and for one without presence."""

from typing import Unpack

from sse_asgi import Backend, MemoryBackend
from sse_asgi.testing.contract._base import BackendOptions, Contract
from sse_asgi.testing.contract._pages import PagesContract


class TestMemory(PagesContract):
    """On asyncio; tests/backends/test_contract.py has the other backends and event loops."""

    random_logs = 300

    def make_backend(self, **options: Unpack[BackendOptions]) -> Backend:
        return MemoryBackend(**options)


class Plain(MemoryBackend):
    """A backend that keeps no presence."""

    attend = Backend.attend


class TestWithoutPresence(Contract):
    """The default way to rewind needs none."""

    test_rewind = PagesContract.test_a_backend_need_not_rewind_itself

    def make_backend(self, **options: Unpack[BackendOptions]) -> Backend:
        return Plain(**options)
