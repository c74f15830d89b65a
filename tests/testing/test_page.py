"""docs/testing.md: each of its blocks is a file of tests that pass."""

import re
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


def test_the_blocks_of_the_page_pass(pytester: pytest.Pytester) -> None:
    """As a user runs them, with the page's own conftest.py."""
    blocks = re.findall(r"```python\n(# (\S+\.py)\n.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == PAGE.read_text().count("```python")
    tests = 0
    for text, name in blocks:
        (pytester.path / name).write_text(text)
        tests += len(re.findall("^(?:async )?def test_", text, re.MULTILINE))
    # Another test of this process may have imported the plugin.
    warnings = ("-W", "error", "-W", "ignore::pytest.PytestAssertRewriteWarning")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", *warnings)
    outcomes = result.parseoutcomes()
    assert outcomes.keys() == {"passed"}
    assert outcomes["passed"] >= tests + 40


def test_the_page_has_every_name() -> None:
    """It names each public class of the kit but those that are only returned."""
    import sse_asgi.testing  # noqa: PLC0415

    returned = {"ClientFactory", "Cookies", "SyncEventStream"}
    assert [name for name in sse_asgi.testing.__all__ if name not in PAGE.read_text() and name not in returned] == []
