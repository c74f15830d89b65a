"""How a suite gets its backends, and that it finds a backend which breaks the contract."""

from typing import Unpack

import pytest

from sse_asgi import Backend, MemoryBackend
from sse_asgi.testing.contract._base import BackendOptions, Contract

pytest_plugins = ["pytester"]

PLAIN = """
from sse_asgi import Backend, MemoryBackend
from sse_asgi.testing.contract import BackendContract

class Plain(MemoryBackend):
    attend, start_run = Backend.attend, Backend.start_run

class TestPlain(BackendContract):
    random_logs = 1

    def make_backend(self, **options):
        return Plain(**options)
"""

BROKEN = """
from sse_asgi import MemoryBackend
from sse_asgi.testing.contract import BackendContract

class DeliversTwice(MemoryBackend):
    async def publish(self, channels, event, **keys):
        sinks = self._sinks
        self._sinks = sinks * 2
        position = await super().publish(channels, event, **keys)
        self._sinks = sinks
        return position

class HidesLosses(MemoryBackend):
    async def history(self, *arguments):
        return (await super().history(*arguments))._replace(reason=None)

class ForgetsKeys(MemoryBackend):
    async def publish(self, channels, event, *, key, idempotency_key):
        return await super().publish(channels, event, key=key, idempotency_key=None)

class TestOne(BackendContract):
    def make_backend(self, **options):
        return DeliversTwice(**options)

class TestTwo(BackendContract):
    def make_backend(self, **options):
        return HidesLosses(**options)

class TestThree(BackendContract):
    def make_backend(self, **options):
        return ForgetsKeys(**options)
"""


def test_three_lines_test_a_backend(pytester: pytest.Pytester) -> None:
    """A backend without presence and runs passes; the tests of these are skipped."""
    pytester.makepyfile(PLAIN)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rs")
    outcomes = result.parseoutcomes()
    assert outcomes.keys() == {"passed", "skipped"}
    assert outcomes["passed"] > outcomes["skipped"] > 10
    result.stdout.fnmatch_lines(["SKIPPED *this backend does not support presence: *"])
    result.stdout.fnmatch_lines(["SKIPPED *this backend does not support runs: *"])


def test_a_backend_that_breaks_the_contract_fails(pytester: pytest.Pytester) -> None:
    """In the test that has the fact; pytest explains the assertion."""
    pytester.makepyfile(BROKEN)
    names = ("delivery_is_in", "trimmed_is_exact", "idempotency_key_stores")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rf", "-k", " or ".join(names))
    assert result.parseoutcomes()["failed"] == 3 + 1
    for name, test in zip(("One", "Two", "Three"), names, strict=True):
        result.stdout.fnmatch_lines([f"FAILED *::Test{name}::test_{test}*"])
    result.stdout.fnmatch_lines(["E  *assert *"])


def test_a_suite_needs_a_backend() -> None:
    """Without make_backend each test fails with what to do."""
    with pytest.raises(NotImplementedError, match="make_backend must return a backend: override it"):
        Contract().make_backend()


class Plain(MemoryBackend):
    """A backend without what is optional."""

    attend, start_run = Backend.attend, Backend.start_run


@pytest.mark.parametrize("made", [MemoryBackend, Plain])
def test_what_a_backend_does_not_have_is_skipped(made: type[Backend]) -> None:
    """With the reason; what it has is tested."""

    class Suite(Contract):
        def make_backend(self, **_: Unpack[BackendOptions]) -> Backend:
            return made()

    for make, reason in ((Suite().with_presence, "does not support presence"), (Suite().with_runs, "support runs")):
        if made is MemoryBackend:
            assert isinstance(make(history_size=1), MemoryBackend)
        else:
            with pytest.raises(pytest.skip.Exception, match=reason):
                make()
