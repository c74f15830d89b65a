"""The errors of this library, one tree.

    SSEError
    ├── HubClosedError          a hub was used that is not open
    ├── SlowReaderError         a direct reader fell behind and its rule is to close
    └── BackendError            the backend did not store or fetch
        └── PublishUnknownError it may have stored: publish again only with an idempotency key

Wrong arguments are plain ValueError and TypeError.
"""

NOT_OPEN = (
    "the hub is not open. Open it with `async with hub:`, with `app.add_middleware(EventSourceMiddleware, hub=hub)`, "
    "or with `FastAPI(lifespan=hub.lifespan)`. A test client must run the application's lifespan: "
    "`with TestClient(app):`."
)


class SSEError(Exception):
    """Root of every error that is this library's own."""


class HubClosedError(SSEError, RuntimeError):
    """A hub was used before it was opened or after it was closed."""

    def __init__(self, what: str, fix: str = NOT_OPEN) -> None:
        """Say what failed, and how a hub is opened."""
        super().__init__(f"{what}: {fix}")


class SlowReaderError(SSEError):
    """A reader's buffer was full and its subscription's rule is `overflow="close"`."""


class BackendError(SSEError):
    """The backend could not do what was asked; a publish that raises this was not stored."""


class PublishUnknownError(BackendError):
    """The connection was lost while publishing: whether the event was stored cannot be known."""
