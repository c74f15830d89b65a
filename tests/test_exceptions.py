"""The error tree."""

import pytest

from sse_asgi import exceptions
from sse_asgi.exceptions import (
    BackendError,
    HubClosedError,
    PublishUnknownError,
    RunConflictError,
    RunLimitError,
    SlowReaderError,
    SSEError,
)


@pytest.mark.parametrize(
    ("error", "parents"),
    [
        (SSEError, (Exception,)),
        (HubClosedError, (SSEError, RuntimeError)),
        (RunConflictError, (SSEError,)),
        (RunLimitError, (SSEError,)),
        (SlowReaderError, (SSEError,)),
        (BackendError, (SSEError,)),
        (PublishUnknownError, (BackendError,)),
    ],
)
def test_an_error_has_the_parents_of_the_tree(error: type[Exception], parents: tuple[type[Exception], ...]) -> None:
    """Each error has exactly the parents that the module's docstring draws."""
    assert error.__bases__ == parents


def test_the_tree_shows_every_error() -> None:
    """The module's docstring names each class of the module."""
    names = [name for name, value in vars(exceptions).items() if isinstance(value, type)]
    assert len(names) == 7
    assert all(name in (exceptions.__doc__ or "") for name in names)


@pytest.mark.parametrize(
    "way",
    [
        "async with hub:",
        "app.add_middleware(EventSourceMiddleware, hub=hub)",
        "FastAPI(lifespan=hub.lifespan)",
        "with TestClient(app):",
    ],
)
def test_a_closed_hub_names_the_ways_to_open_it(way: str) -> None:
    """The message says which call failed, how to open a hub, and how a test client opens it."""
    message = str(HubClosedError("cannot publish"))
    assert message.startswith("cannot publish: the hub is not open.")
    assert f"`{way}`" in message


def test_a_hub_that_was_closed_names_the_lifespan() -> None:
    """The message of a call after a shutdown says why the hub is closed, and what to do about the call."""
    message = str(HubClosedError("cannot publish", exceptions.CLOSED))
    assert message.startswith("cannot publish: the hub was closed, because the application's lifespan has ended")
    assert "in your own lifespan after its `yield`" in message
