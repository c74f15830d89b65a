"""Server-Sent Events for ASGI that survive production: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from ._hub.hub import Hub
from ._hub.patterns import Pattern
from ._hub.run import Run
from ._hub.subscription import Subscription
from ._log.event import ServerSentEvent
from ._mount.app import EventSourceApp
from ._mount.grant import Grant
from ._mount.health import HealthApp
from ._mount.middleware import EventSourceMiddleware, get_hub
from ._mount.tickets import ChannelSigner
from ._stream.limits import ConnectionLimit
from ._stream.response import EventSourceResponse
from .backends.base import Backend
from .backends.memory import MemoryBackend
from .config import Settings, create_hub
from .exceptions import (
    BackendError,
    HubClosedError,
    PublishUnknownError,
    RunConflictError,
    RunLimitError,
    SlowReaderError,
    SSEError,
)
from .publisher import Publisher

__all__ = [
    "Backend",
    "BackendError",
    "ChannelSigner",
    "ConnectionLimit",
    "EventSourceApp",
    "EventSourceMiddleware",
    "EventSourceResponse",
    "Grant",
    "HealthApp",
    "Hub",
    "HubClosedError",
    "MemoryBackend",
    "Pattern",
    "PublishUnknownError",
    "Publisher",
    "Run",
    "RunConflictError",
    "RunLimitError",
    "SSEError",
    "ServerSentEvent",
    "Settings",
    "SlowReaderError",
    "Subscription",
    "create_hub",
    "get_hub",
]


def __getattr__(name: str) -> str:
    if name != "__version__":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib.metadata import version  # noqa: PLC0415 - a slow import, needed for this attribute only

    return version("sse-asgi")
