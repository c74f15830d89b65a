"""BackendContract: the tests that every backend passes, the library's own and others.

A subclass whose name begins with `Test`, and which has `make_backend`, is collected by pytest with all of them.
It needs pytest, with anyio's plugin, which comes with anyio.
"""

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in ("_log", "_naive", "_pages", "_presence", "_runs")))

from ._log import LogContract  # noqa: E402 - after the line that has pytest explain their assertions
from ._pages import PagesContract  # noqa: E402
from ._presence import PresenceContract  # noqa: E402
from ._runs import RunContract  # noqa: E402

__all__ = ["BackendContract"]


class BackendContract(LogContract, PagesContract, PresenceContract, RunContract):
    """The tests that every backend passes. A subclass has a name that begins with `Test`, and `make_backend`.

    Tests of presence and of runs are skipped for a backend that does not have their methods.
    """
