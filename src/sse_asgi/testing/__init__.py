"""The test kit: clients, real servers, a clock to move, faults, and a check that nothing is left.

`sse_asgi.testing.plugin` has fixtures for pytest. Nothing else here imports pytest.
"""

from ._clean import assert_clean
from ._client import EventStreamClient
from ._clock import Clock
from ._cookies import Cookies
from ._faults import FaultyBackend
from ._live import LiveServer
from ._redis import RedisServer
from ._stream import EventStream
from ._sync import ClientFactory, SyncEventStream, SyncEventStreamClient

__all__ = [
    "ClientFactory",
    "Clock",
    "Cookies",
    "EventStream",
    "EventStreamClient",
    "FaultyBackend",
    "LiveServer",
    "RedisServer",
    "SyncEventStream",
    "SyncEventStreamClient",
    "assert_clean",
]
