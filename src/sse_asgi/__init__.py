"""Server-Sent Events for ASGI that survive production: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from ._app import EventSourceApp
from ._event import ServerSentEvent
from ._grant import Grant
from ._hub import Hub
from ._limits import ConnectionLimit
from ._middleware import EventSourceMiddleware, get_hub
from ._patterns import Pattern
from ._response import EventSourceResponse
from ._subscription import Subscription
from .backends.base import Backend
from .backends.memory import MemoryBackend
from .config import Settings, create_hub
from .exceptions import BackendError, HubClosedError, PublishUnknownError, SlowReaderError, SSEError
from .publisher import Publisher
from .tickets import ChannelSigner

__all__ = [
    "Backend",
    "BackendError",
    "ChannelSigner",
    "ConnectionLimit",
    "EventSourceApp",
    "EventSourceMiddleware",
    "EventSourceResponse",
    "Grant",
    "Hub",
    "HubClosedError",
    "MemoryBackend",
    "Pattern",
    "PublishUnknownError",
    "Publisher",
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
    from importlib.metadata import version  # noqa: PLC0415 - costs an import of its own, for those who ask

    return version("sse-asgi")
