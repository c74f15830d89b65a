"""The errors of this library, one tree.

    SSEError
    ├── HubClosedError          a hub was used while it was not open
    ├── RunConflictError        a run with this key was started for something else
    ├── RunLimitError           this process has as many runs as it may have
    ├── SlowReaderError         a reader fell behind, and its `overflow` is "close"
    └── BackendError            the backend could not store or read an event
        └── PublishUnknownError the event may be stored: publish again only with an idempotency key

Wrong arguments are plain ValueError and TypeError.
"""

NOT_OPEN = (
    "the hub is not open. Open it with `async with hub:`, with `app.add_middleware(EventSourceMiddleware, hub=hub)`, "
    "or with `FastAPI(lifespan=hub.lifespan)`. A test client must run the application's lifespan: "
    "`with TestClient(app):`."
)

CLOSED = (
    "the hub was closed, because the application's lifespan has ended, or the `async with hub:` that opened it. Stop "
    "what uses the hub before that: in your own lifespan after its `yield`, or inside the block. A test client is used "
    "inside its block: `with TestClient(app):`."
)


class SSEError(Exception):
    """Base class of the library's own errors."""


class HubClosedError(SSEError, RuntimeError):
    """A hub was used before it was opened, or after it was closed."""

    def __init__(self, what: str, fix: str = NOT_OPEN) -> None:
        """Join the failed call and the way to open a hub."""
        super().__init__(f"{what}: {fix}")


class RunConflictError(SSEError):
    """A run with this key was started with another fingerprint; in an endpoint, answer 409."""


class RunLimitError(SSEError):
    """This process has `max_runs` running runs already; in an endpoint, answer 503."""


class SlowReaderError(SSEError):
    """A reader's buffer was full and its subscription's rule is `overflow="close"`."""


class BackendError(SSEError):
    """The backend failed; a publish that raises this error has not stored its event."""


class PublishUnknownError(BackendError):
    """The connection was lost while publishing, so the event may be stored or not."""
