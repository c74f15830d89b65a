"""Contract: how a suite gets its backends."""

from typing import TypedDict, Unpack

import pytest

from ...backends.base import NO_PRESENCE, NO_RUNS, Backend


class BackendOptions(TypedDict, total=False):
    """The options with which a suite makes backends; MemoryBackend describes them."""

    history_size: int
    history_ttl: float | None
    history_bytes: int


class Contract:
    """A suite of tests; see BackendContract.

    Attributes:
        random_logs: How many random logs are compared with one that keeps everything.
    """

    pytestmark: pytest.MarkDecorator = pytest.mark.anyio
    random_logs: int = 30

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Run the tests on asyncio. A backend that works on trio too overrides this with `params`."""
        return "asyncio"

    def make_backend(self, **options: Unpack[BackendOptions]) -> Backend:
        """Return a backend with a log of its own, which no other test uses.

        Args:
            **options: What the test needs of the history. A backend that does not have an option calls `pytest.skip`.
        """
        msg = "make_backend must return a backend: override it in the subclass of BackendContract"
        raise NotImplementedError(msg)

    def with_presence(self, **options: Unpack[BackendOptions]) -> Backend:
        """Return a backend, or skip the test if it does not support presence."""
        backend = self.make_backend(**options)
        if type(backend).attend is Backend.attend:
            pytest.skip(NO_PRESENCE)
        return backend

    def with_runs(self, **options: Unpack[BackendOptions]) -> Backend:
        """Return a backend, or skip the test if it does not support runs."""
        backend = self.make_backend(**options)
        if type(backend).start_run is Backend.start_run:
            pytest.skip(NO_RUNS)
        return backend
