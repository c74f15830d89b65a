"""The package's own attributes: its public names and its version."""

from importlib.metadata import version

import pytest

import sse_asgi


def test_every_public_name_is_there_once_and_in_order() -> None:
    """`__all__` is sorted, and each of its names can be imported from the package."""
    assert sse_asgi.__all__ == sorted(set(sse_asgi.__all__))
    assert [name for name in sse_asgi.__all__ if name not in vars(sse_asgi)] == []


def test_the_version_is_that_of_the_distribution() -> None:
    """The version is read from the installed distribution."""
    assert sse_asgi.__version__ == version("sse-asgi")


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    """Names are looked up as in any module: `hasattr` is False, and the error has the name."""
    assert not hasattr(sse_asgi, "version")
    with pytest.raises(AttributeError, match="module 'sse_asgi' has no attribute 'Broker'"):
        sse_asgi.__getattr__("Broker")
